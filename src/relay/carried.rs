//! The bytes that one direction has read from its source and not yet written to its target, either as
//! a copy in memory or in a pipe, and the system calls that move them. Both kinds of direction use it:
//! [`Direction`](super::direction::Direction), which relays a stream unread, and
//! [`BodyRelay`](super::body::BodyRelay), which relays one HTTP body.

use std::io;

use super::pace::Pace;
use crate::state::Local;
use crate::sys::{Pipe, Socket, is_transient};

/// The two sockets of one direction: bytes flow from `source` to `target`.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'a> {
    pub local: &'a Local,
    pub source: &'a Socket,
    pub target: &'a Socket,
}

/// The bytes under way, and how many have arrived.
pub(super) struct Carried {
    held: Held,
    pub pace: Pace,
    moved_bytes: u64,
    spliced_bytes: u64,
}

enum Held {
    Nothing,
    Copied { bytes: Box<[u8]>, sent: usize },
    Piped(Pipe),
}

/// Why a direction cannot go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The source has nothing to read.
    SourceEmpty,
    /// The read failed for a transient reason; the source may have something to read.
    SourceBusy,
    /// The source reset the connection.
    SourceFailed,
    /// The target's send buffer is full.
    TargetFull,
    /// The target reset the connection. The bytes under way are lost.
    TargetFailed,
    /// The target ended its stream before and has now closed: it had sent everything it wanted to
    /// send, and takes nothing more.
    TargetClosed,
}

/// One fill of a pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub bytes: usize,
    /// The fill has most likely emptied the source, so that a second one would find nothing.
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

    /// Bytes that the target has taken.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// The part of the moved bytes that was spliced.
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

    /// Holds these bytes as the next ones for the target. It must not hold anything before.
    pub(super) fn hold(&mut self, bytes: Box<[u8]>) {
        self.held = Held::Copied { bytes, sent: 0 };
    }

    /// Writes everything that is held to the target. An empty pipe stays for the next piece.
    pub(super) fn flush(&mut self, target: &Socket) -> Result<(), Stop> {
        loop {
            let result = match &mut self.held {
                Held::Nothing => return Ok(()),
                Held::Copied { bytes, sent } if *sent == bytes.len() => {
                    self.held = Held::Nothing;
                    return Ok(());
                }
                Held::Copied { bytes, sent } => {
                    target.send(&bytes[*sent..]).inspect(|taken| *sent += taken)
                }
                Held::Piped(pipe) if pipe.held_bytes() == 0 => return Ok(()),
                Held::Piped(pipe) => pipe.drain_to(target).inspect(|moved| {
                    self.spliced_bytes += *moved as u64;
                }),
            };
            match result {
                Ok(bytes) => self.moved_bytes += bytes as u64,
                Err(error) => return Err(Stop::after_write(&error)),
            }
        }
    }

    /// Sends the next bytes, while nothing is held, and holds a copy of those that the target does not
    /// take. [`Stop::TargetFull`] says that there is such a copy.
    pub(super) fn send(&mut self, target: &Socket, bytes: &[u8]) -> Result<(), Stop> {
        let sent = match target.send(bytes) {
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

    /// Makes sure that there is a pipe. `false` when none can be had; then the direction copies.
    pub(super) fn ensure_pipe(&mut self, local: &Local) -> bool {
        if self.is_empty() {
            let Some(pipe) = local.pipes.borrow_mut().take() else {
                local.count_pipe_refused();
                self.pace.no_pipe();
                return false;
            };
            self.held = Held::Piped(pipe);
        }
        true
    }

    /// Fills the pipe with one splice(2) of at most `bytes_max`. `None` when there is nothing to read,
    /// or when urgent data comes next: splice(2) does not get past urgent data, and returns 0 there once
    /// the end of the stream has been received, but recv(2) does get past it.
    ///
    /// # Errors
    /// When the source has failed.
    pub(super) fn fill(
        &mut self,
        source: &Socket,
        bytes_max: usize,
    ) -> Result<Option<Filled>, Stop> {
        let Held::Piped(pipe) = &mut self.held else {
            unreachable!("a pipe was taken, and copied bytes are sent before the next read")
        };
        match pipe.fill_from(source, bytes_max) {
            Ok(bytes) if bytes > 0 => {
                let is_short = pipe.is_short_fill(bytes, bytes_max);
                self.pace.filled(bytes, is_short);
                Ok(Some(Filled { bytes, is_short }))
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(Stop::after_read(&error))
            }
            _ => Ok(None),
        }
    }

    /// Gives the pipe back to the pool and drops any bytes that are still held. While the source is
    /// waited for there are none.
    pub(super) fn release(&mut self, local: &Local) {
        if let Held::Piped(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            local.pipes.borrow_mut().give_back(pipe);
        }
    }
}
