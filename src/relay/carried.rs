//! What one direction has taken from its source and not yet given to its target, as copied bytes or in a
//! pipe, and how it gets there. Both kinds of direction use it: the one that relays a stream unread and
//! the one that relays a body.

use std::io;

use super::pace::Pace;
use crate::state::Local;
use crate::sys::{Pipe, Socket, is_transient};

/// The bytes on their way, and how many got there.
pub(super) struct Carried {
    held: Held,
    pub pace: Pace,
    moved_bytes: u64,
    spliced_bytes: u64,
}

enum Held {
    Nothing,
    Copied { bytes: Box<[u8]>, given: usize },
    Piped(Pipe),
}

/// Why a direction cannot go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The source has nothing to read.
    SourceEmpty,
    /// The read failed for a reason that passes; the source may have something to read.
    SourceBusy,
    /// The source reset the connection.
    SourceFailed,
    TargetFull,
    /// The target reset the connection. What was carried is lost with it.
    TargetFailed,
    /// The target had ended its stream and closed: it has said all it had to say and takes nothing more.
    TargetClosed,
}

/// One fill of a pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub bytes: usize,
    /// To ask again would most often only be told that there is nothing more.
    pub is_short: bool,
}

impl Stop {
    pub(super) fn after_read(error: &io::Error) -> Stop {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Stop::SourceEmpty,
            _ if is_transient(error) => Stop::SourceBusy,
            _ => Stop::SourceFailed,
        }
    }

    fn after_write(error: &io::Error) -> Stop {
        match error.raw_os_error() {
            _ if is_transient(error) => Stop::TargetFull,
            // A reset behind the peer's end of stream is reported as EPIPE, one without as ECONNRESET.
            Some(libc::EPIPE) => Stop::TargetClosed,
            _ => Stop::TargetFailed,
        }
    }
}

impl Carried {
    pub(super) fn new() -> Carried {
        Carried {
            held: Held::Nothing,
            pace: Pace::new(),
            moved_bytes: 0,
            spliced_bytes: 0,
        }
    }

    /// Bytes the target has taken.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// The part of them that was spliced.
    pub(super) fn spliced_bytes(&self) -> u64 {
        self.spliced_bytes
    }

    /// Whether it holds neither bytes nor a pipe.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Bytes in the pipe.
    pub(super) fn piped_bytes(&self) -> usize {
        match &self.held {
            Held::Piped(pipe) => pipe.held_bytes(),
            Held::Nothing | Held::Copied { .. } => 0,
        }
    }

    /// Takes these bytes, which are the next ones for the target. Nothing may be held before.
    pub(super) fn hold(&mut self, bytes: Box<[u8]>) {
        self.held = Held::Copied { bytes, given: 0 };
    }

    /// Gives the target what is held. An empty pipe stays for the next piece.
    pub(super) fn give(&mut self, to: &Socket) -> Result<(), Stop> {
        loop {
            let result = match &mut self.held {
                Held::Nothing => return Ok(()),
                Held::Copied { bytes, given } if *given == bytes.len() => {
                    self.held = Held::Nothing;
                    return Ok(());
                }
                Held::Copied { bytes, given } => {
                    to.send(&bytes[*given..]).inspect(|sent| *given += sent)
                }
                Held::Piped(pipe) if pipe.held_bytes() == 0 => return Ok(()),
                Held::Piped(pipe) => pipe.drain_to(to).inspect(|moved| {
                    self.spliced_bytes += *moved as u64;
                }),
            };
            match result {
                Ok(bytes) => self.moved_bytes += bytes as u64,
                Err(error) => return Err(Stop::after_write(&error)),
            }
        }
    }

    /// Sends bytes that come behind all that was given, and holds a copy of what the target does not
    /// take. [`Stop::TargetFull`] says that there is such a copy.
    pub(super) fn send(&mut self, to: &Socket, bytes: &[u8]) -> Result<(), Stop> {
        let sent = match to.send(bytes) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(error) => return Err(Stop::after_write(&error)),
        };
        self.moved_bytes += sent as u64;
        if sent < bytes.len() {
            self.hold(bytes[sent..].into());
            return Err(Stop::TargetFull);
        }
        Ok(())
    }

    /// Whether it has a pipe, now or from before. Without one it copies.
    pub(super) fn has_pipe(&mut self, local: &Local) -> bool {
        if self.is_empty() {
            match local.pipes.borrow_mut().take() {
                Some(pipe) => self.held = Held::Piped(pipe),
                None => {
                    local.count_pipe_refused();
                    self.pace.no_pipe();
                    return false;
                }
            }
        }
        true
    }

    /// Fills the pipe once, with `most` bytes at most. `None`: there is nothing, or urgent data, which
    /// splice(2) does not get past and a read does; splice says 0 there once the end of the stream is in.
    ///
    /// # Errors
    /// When the source has failed.
    pub(super) fn fill(&mut self, from: &Socket, most: usize) -> Result<Option<Filled>, Stop> {
        let Held::Piped(pipe) = &mut self.held else {
            unreachable!("a pipe was taken, and copied bytes are given before the next read")
        };
        match pipe.fill_from(from, most) {
            Ok(bytes) if bytes > 0 => {
                let is_short = pipe.is_short_fill(bytes, most);
                self.pace.filled(bytes, is_short);
                Ok(Some(Filled { bytes, is_short }))
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(Stop::after_read(&error))
            }
            _ => Ok(None),
        }
    }

    /// Gives the pipe back, and drops what is held, which is nothing while the source is waited for.
    pub(super) fn release(&mut self, local: &Local) {
        if let Held::Piped(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            local.pipes.borrow_mut().give_back(pipe);
        }
    }
}
