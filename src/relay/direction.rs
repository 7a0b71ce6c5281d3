//! One direction of a relayed connection: takes bytes from one socket, gives them to the other,
//! and carries what the other does not take yet.

use std::io;
use std::task::{Context, Poll, ready};

use super::pace::{Mode, Pace};
use crate::ring::{BulkTurn, Readiness, Wait, Waited};
use crate::state::Local;
use crate::sys::{Pipe, Socket, is_transient};

/// After this many waits for the source, its readiness is taken as a stream of events. Arming one
/// and cancelling it at the end costs about as much as two polls for one event each, and most
/// connections wait no more than this.
const WAITS_BEFORE_STREAM: u8 = 4;

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The source's end of stream came and everything before it was given on.
    Finished,
    /// Reading failed: the source reset the connection. Everything received before was given on.
    SourceFailed,
    /// Writing failed: the target reset the connection. What was carried is lost with it.
    TargetFailed,
    /// Writing failed because the target had ended its stream and closed: it has said all it had
    /// to say and takes nothing more.
    TargetClosed,
}

impl Ending {
    /// Whether the target takes nothing more.
    pub(super) fn is_target_gone(self) -> bool {
        matches!(self, Ending::TargetFailed | Ending::TargetClosed)
    }
}

/// Bytes taken from the source and not yet given to the target.
enum Carried {
    Nothing,
    Copied { bytes: Box<[u8]>, given: usize },
    Piped(Pipe),
}

/// The state of one direction. It borrows no buffer while it waits: an idle one holds nothing.
pub(super) struct Direction {
    pace: Pace,
    carried: Carried,
    /// A wait for one event, at the source or at the target, or in line.
    wait: Option<Wait>,
    /// The source's events from now on, waited for when `wait` is empty.
    stream: Option<Readiness>,
    /// Waits for an empty source so far, as far as it matters.
    waits: u8,
    waits_for_target: bool,
    moved_bytes: u64,
    spliced_bytes: u64,
    begun: bool,
    /// The target would hold back small pieces.
    holds_back: bool,
    /// The ring has reported more than bytes to read: the end of the stream, a failure, urgent
    /// data. A read may then fall short before the source is empty.
    more_than_bytes: bool,
    ending: Option<Ending>,
}

impl Direction {
    /// It begins by waiting: the head has just been read and the backend just been connected, so
    /// there is hardly ever anything to read yet. `holds_back` says that the target has yet to be told
    /// not to hold back small pieces, see [`Socket::send_at_once`].
    pub(super) fn new(holds_back: bool) -> Direction {
        Direction {
            begun: false,
            holds_back,
            more_than_bytes: false,
            pace: Pace::new(),
            carried: Carried::Nothing,
            wait: None,
            stream: None,
            waits: 0,
            waits_for_target: false,
            moved_bytes: 0,
            spliced_bytes: 0,
            ending: None,
        }
    }

    /// Gives these bytes before anything is read.
    pub(super) fn carry_first(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let bytes = bytes.into_boxed_slice();
            self.carried = Carried::Copied { bytes, given: 0 };
            self.begun = true;
        }
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes the target has taken.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// The part of them that was spliced.
    pub(super) fn spliced_bytes(&self) -> u64 {
        self.spliced_bytes
    }

    /// Whether the target's slowness is what holds this direction up.
    pub(super) fn waits_for_target(&self) -> bool {
        self.waits_for_target
    }

    /// Moves what can be moved, at most `turn_bytes`, then waits on the ring; so a fast stream
    /// stands behind every other connection of the core before it goes on, in bulk also in line.
    /// Ready when it has ended.
    pub(super) fn poll(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        context: &mut Context<'_>,
    ) -> Poll<Ending> {
        if let Some(ending) = self.ending {
            return Poll::Ready(ending);
        }
        loop {
            let piece_bytes = ready!(self.poll_wait(local, context));
            let next = if self.begun {
                self.turn(local, from, to, piece_bytes)
            } else {
                self.begun = true;
                Next::ReadMore
            };
            match next {
                Next::ReadEmptied => {
                    self.waits_for_target = false;
                    self.release(local);
                    self.wait_for_bytes(local, from);
                }
                Next::ReadMore => {
                    self.waits_for_target = false;
                    self.release(local);
                    self.wait = Some(Wait::Event(local.ring.readable(from)));
                }
                Next::WriteTarget => {
                    self.waits_for_target = true;
                    self.wait = Some(Wait::Event(local.ring.writable(to)));
                }
                Next::End(ending) => {
                    self.waits_for_target = false;
                    self.release(local);
                    self.stream = None;
                    self.ending = Some(ending);
                    return Poll::Ready(ending);
                }
            }
        }
    }

    /// Whether it has a stream of the source's events.
    pub(super) fn is_busy(&self) -> bool {
        self.stream.is_some()
    }

    /// From being told changes goes back to being told whether there is anything to read. The task
    /// must poll again.
    pub(super) fn calm_down(&mut self, local: &Local, from: &Socket) {
        if self.wait.is_none() && self.stream.take().is_some() {
            self.waits = 0;
            self.wait = Some(Wait::Event(local.ring.readable(from)));
        }
    }

    /// Stops waiting and drops what is carried. For a direction that will not be polled again.
    pub(super) fn abandon(&mut self, local: &Local) {
        self.wait = None;
        self.stream = None;
        self.release(local);
    }

    /// Pending while there is something to wait for that has not happened; then how much may go into
    /// a pipe at a time.
    fn poll_wait(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<usize> {
        while let Some(wait) = &mut self.wait {
            let waited = ready!(wait.poll(context));
            self.wait = None;
            match waited {
                Waited::Turn(turn) => {
                    return Poll::Ready(local.limits.piece_bytes(turn == BulkTurn::Uncontended));
                }
                // A failure is not looked at: the next system call reports the socket's state.
                Waited::Event(events) => {
                    self.more_than_bytes = !self.waits_for_target && !events.is_only_bytes();
                }
            }
            if self.pace.mode() == Mode::Copy {
                return Poll::Ready(local.limits.piece_bytes(false));
            }
            self.wait = Some(Wait::Turn(local.ring.yield_to_queue(self.pace.is_slow())));
        }
        if let Some(stream) = &mut self.stream {
            let events = ready!(stream.poll_events(context));
            self.more_than_bytes = events.is_none_or(|events| !events.is_only_bytes());
            if events.is_none() {
                self.stream = None;
            }
        }
        Poll::Ready(local.limits.piece_bytes(false))
    }

    /// The source has been emptied. A stream of events tells changes only, so it is not for bulk,
    /// whose turns end with bytes left in the source.
    fn wait_for_bytes(&mut self, local: &Local, from: &Socket) {
        if self.pace.mode() == Mode::Splice {
            self.stream = None;
        } else if self.stream.is_some() {
            return;
        } else if self.waits < WAITS_BEFORE_STREAM {
            self.waits += 1;
        } else {
            self.stream = local.ring.readiness(from);
            if self.stream.is_some() {
                return;
            }
        }
        self.wait = Some(Wait::Event(local.ring.readable(from)));
    }

    /// Gives the pipe back, and drops what is carried, which is nothing while the source is waited for.
    fn release(&mut self, local: &Local) {
        if let Carried::Piped(pipe) = std::mem::replace(&mut self.carried, Carried::Nothing) {
            local.pipes.borrow_mut().give_back(pipe);
        }
    }

    fn turn(&mut self, local: &Local, from: &Socket, to: &Socket, piece_bytes: usize) -> Next {
        let limit = self.moved_bytes + local.limits.full_turn_bytes();
        let mut is_short = false;
        loop {
            if let Err(next) = self.give_carried(to) {
                return next;
            }
            if self.moved_bytes >= limit || is_short {
                return Next::ReadMore;
            }
            let step = match self.pace.mode() {
                Mode::Copy => self.copy(local, from, to).map(|()| false),
                Mode::Splice => self.splice(local, from, to, piece_bytes),
            };
            is_short = match step {
                Ok(is_short) => is_short,
                Err(next) => return next,
            };
        }
    }

    /// Gives the target what is carried. An empty pipe stays for the next piece.
    fn give_carried(&mut self, to: &Socket) -> Result<(), Next> {
        loop {
            let result = match &mut self.carried {
                Carried::Nothing => return Ok(()),
                Carried::Copied { bytes, given } if *given == bytes.len() => {
                    self.carried = Carried::Nothing;
                    return Ok(());
                }
                Carried::Copied { bytes, given } => {
                    to.send(&bytes[*given..]).inspect(|sent| *given += sent)
                }
                Carried::Piped(pipe) if pipe.held_bytes() == 0 => return Ok(()),
                Carried::Piped(pipe) => pipe.drain_to(to).inspect(|moved| {
                    self.spliced_bytes += *moved as u64;
                }),
            };
            match result {
                Ok(bytes) => self.moved_bytes += bytes as u64,
                Err(error) => return Err(after_write_error(&error)),
            }
        }
    }

    /// Reads once into the core's buffer and writes once from it; keeps a copy of the rest only
    /// when the target is full.
    fn copy(&mut self, local: &Local, from: &Socket, to: &Socket) -> Result<(), Next> {
        // A pipe may be left from the last piece of bulk; it is empty here.
        self.release(local);
        let mut buffer = local.buffer.borrow_mut();
        let received = match from.recv(&mut buffer) {
            Ok(0) => return Err(Next::End(Ending::Finished)),
            Ok(received) => received,
            Err(error) => return Err(after_read_error(&error)),
        };
        self.pace.read(received);
        if std::mem::take(&mut self.holds_back) {
            to.send_at_once();
        }
        let sent = match to.send(&buffer[..received]) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(error) => return Err(after_write_error(&error)),
        };
        self.moved_bytes += sent as u64;
        if sent < received {
            self.carried = Carried::Copied {
                bytes: buffer[sent..received].into(),
                given: 0,
            };
            return Err(Next::WriteTarget);
        }
        // A read that did not fill the buffer has emptied the socket: asking again would most
        // often only be told so, and the ring reports what came meanwhile. Unless it has already
        // reported what ends a read early, which is read at once.
        if received < buffer.len() && !self.more_than_bytes {
            return Err(Next::ReadEmptied);
        }
        Ok(())
    }

    /// Fills the empty pipe once, with `most` bytes at most; the next step of the turn drains it. Whether there was little: to ask
    /// again would then most often only be told that there is nothing more.
    fn splice(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        most: usize,
    ) -> Result<bool, Next> {
        if let Carried::Nothing = self.carried {
            match local.pipes.borrow_mut().take() {
                Some(pipe) => self.carried = Carried::Piped(pipe),
                None => {
                    local.count_pipe_refused();
                    self.pace.no_pipe();
                    return Ok(false);
                }
            }
        }
        let Carried::Piped(pipe) = &mut self.carried else {
            unreachable!("copied bytes are given before the next read")
        };
        match pipe.fill_from(from, most) {
            Ok(received) if received > 0 => {
                let is_short = pipe.is_short_fill(received, most);
                self.pace.filled(received, is_short);
                Ok(is_short)
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(after_read_error(&error))
            }
            // There is nothing, or urgent data, which splice(2) does not get past and a read does; it
            // says 0 there once the end of the stream is in.
            _ => self.copy(local, from, to).map(|()| false),
        }
    }
}

/// What a turn ends with.
enum Next {
    /// Wait for the source, in which nothing is left.
    ReadEmptied,
    /// Wait for the source, in which something may be left.
    ReadMore,
    WriteTarget,
    End(Ending),
}

fn after_read_error(error: &io::Error) -> Next {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Next::ReadEmptied,
        _ if is_transient(error) => Next::ReadMore,
        _ => Next::End(Ending::SourceFailed),
    }
}

fn after_write_error(error: &io::Error) -> Next {
    if is_transient(error) {
        Next::WriteTarget
    } else if error.raw_os_error() == Some(libc::EPIPE) {
        // A reset behind the peer's end of stream is reported as EPIPE, one without as ECONNRESET.
        Next::End(Ending::TargetClosed)
    } else {
        Next::End(Ending::TargetFailed)
    }
}
