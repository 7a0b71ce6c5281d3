//! One direction of a relayed connection: takes bytes from one socket, gives them to the other,
//! and carries what the other does not take yet.

use std::task::{Context, Poll, ready};

use super::carried::{Carried, Stop};
use super::pace::Mode;
use crate::ring::{BulkTurn, Readiness, Wait, Waited};
use crate::state::Local;
use crate::sys::Socket;

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

/// The state of one direction. It borrows no buffer while it waits: an idle one holds nothing.
pub(super) struct Direction {
    carried: Carried,
    /// A wait for one event, at the source or at the target, or in line.
    wait: Option<Wait>,
    /// The source's events from now on, waited for when `wait` is empty.
    stream: Option<Readiness>,
    /// Waits for an empty source so far, as far as it matters.
    waits: u8,
    waits_for_target: bool,
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
            carried: Carried::new(),
            wait: None,
            stream: None,
            waits: 0,
            waits_for_target: false,
            ending: None,
        }
    }

    /// Gives these bytes before anything is read.
    pub(super) fn carry_first(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.carried.hold(bytes.into_boxed_slice());
            self.begun = true;
        }
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes the target has taken.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.carried.moved_bytes()
    }

    /// The part of them that was spliced.
    pub(super) fn spliced_bytes(&self) -> u64 {
        self.carried.spliced_bytes()
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
                    self.carried.release(local);
                    self.wait_for_bytes(local, from);
                }
                Next::ReadMore => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.wait = Some(Wait::Event(local.ring.readable(from)));
                }
                Next::WriteTarget => {
                    self.waits_for_target = true;
                    self.wait = Some(Wait::Event(local.ring.writable(to)));
                }
                Next::End(ending) => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.stream = None;
                    self.ending = Some(ending);
                    return Poll::Ready(ending);
                }
            }
        }
    }

    /// Whether it has a stream of the source's events.
    pub(super) fn uses_multishot(&self) -> bool {
        self.stream.is_some()
    }

    /// Goes back from a stream of events, which tells changes only, to plain polls, which tell what is
    /// there to read. The task must poll again.
    pub(super) fn use_oneshot_polls(&mut self, local: &Local, from: &Socket) {
        if self.wait.is_none() && self.stream.take().is_some() {
            self.waits = 0;
            self.wait = Some(Wait::Event(local.ring.readable(from)));
        }
    }

    /// Stops waiting and drops what is carried. For a direction that will not be polled again.
    pub(super) fn abandon(&mut self, local: &Local) {
        self.wait = None;
        self.stream = None;
        self.carried.release(local);
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
            if self.carried.pace.mode() == Mode::Copy {
                return Poll::Ready(local.limits.piece_bytes(false));
            }
            self.wait = Some(Wait::Turn(
                local.ring.yield_to_queue(self.carried.pace.is_slow()),
            ));
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
        if self.carried.pace.mode() == Mode::Splice {
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

    fn turn(&mut self, local: &Local, from: &Socket, to: &Socket, piece_bytes: usize) -> Next {
        match self.try_turn(local, from, to, piece_bytes) {
            Ok(next) | Err(next) => next,
        }
    }

    fn try_turn(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        piece_bytes: usize,
    ) -> Result<Next, Next> {
        let limit = self.moved_bytes() + local.limits.full_turn_bytes();
        let mut is_short = false;
        loop {
            self.carried.give(to)?;
            if self.moved_bytes() >= limit || is_short {
                return Ok(Next::ReadMore);
            }
            is_short = match self.carried.pace.mode() {
                Mode::Copy => self.copy(local, from, to).map(|()| false)?,
                Mode::Splice => self.splice(local, from, to, piece_bytes)?,
            };
        }
    }

    /// Reads once into the core's buffer and writes once from it; keeps a copy of the rest only
    /// when the target is full.
    fn copy(&mut self, local: &Local, from: &Socket, to: &Socket) -> Result<(), Next> {
        // A pipe may be left from the last piece of bulk; it is empty here.
        self.carried.release(local);
        let mut buffer = local.buffer.borrow_mut();
        let received = match from.recv(&mut buffer) {
            Ok(0) => return Err(Next::End(Ending::Finished)),
            Ok(received) => received,
            Err(error) => return Err(Stop::after_read(&error).into()),
        };
        self.carried.pace.read(received);
        if std::mem::take(&mut self.holds_back) {
            to.send_at_once();
        }
        self.carried.send(to, &buffer[..received])?;
        // A read that did not fill the buffer has emptied the socket: asking again would most
        // often only be told so, and the ring reports what came meanwhile. Unless it has already
        // reported what ends a read early, which is read at once.
        if received < buffer.len() && !self.more_than_bytes {
            return Err(Next::ReadEmptied);
        }
        Ok(())
    }

    /// Fills the empty pipe once, with `most` bytes at most; the next step of the turn drains it. Whether
    /// it was a short fill.
    fn splice(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        most: usize,
    ) -> Result<bool, Next> {
        if !self.carried.has_pipe(local) {
            return Ok(false);
        }
        match self.carried.fill(from, most)? {
            Some(filled) => Ok(filled.is_short),
            None => self.copy(local, from, to).map(|()| false),
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

impl From<Stop> for Next {
    fn from(stop: Stop) -> Next {
        match stop {
            Stop::SourceEmpty => Next::ReadEmptied,
            Stop::SourceBusy => Next::ReadMore,
            Stop::SourceFailed => Next::End(Ending::SourceFailed),
            Stop::TargetFull => Next::WriteTarget,
            Stop::TargetFailed => Next::End(Ending::TargetFailed),
            Stop::TargetClosed => Next::End(Ending::TargetClosed),
        }
    }
}
