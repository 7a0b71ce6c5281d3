//! One direction of a relayed connection: reads from one socket, writes to the other, and holds what
//! the other does not take yet.

use std::task::{Context, Poll, ready};

use super::carried::{Carried, Flow, Stop};
use super::pace::Mode;
use crate::ring::{BulkTurn, Readiness, Wait, Waited};
use crate::state::Local;
use crate::sys::Socket;

/// After this many oneshot polls of the source a multishot poll takes their place. Arming a multishot
/// poll and cancelling it at the end costs about as much as two oneshot polls, and most connections need
/// no more than this many.
const ONESHOT_POLLS: u8 = 4;

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The source ended its stream, and the target has everything before the end.
    Finished,
    /// Reading failed: the source reset the connection. The target has everything received before.
    SourceFailed,
    /// Writing failed: the target reset the connection. The bytes under way are lost.
    TargetFailed,
    /// Writing failed because the target had ended its stream and has closed: it had sent everything it
    /// wanted to send, and takes nothing more.
    TargetClosed,
}

impl Ending {
    /// Whether the target takes nothing more.
    pub(super) fn is_target_gone(self) -> bool {
        matches!(self, Ending::TargetFailed | Ending::TargetClosed)
    }
}

/// The state of one direction. While it waits for its source it holds neither a buffer nor a pipe.
pub(super) struct Direction {
    carried: Carried,
    /// A oneshot wait: for one event of the source or the target, or for a turn in the bulk run queue.
    wait: Option<Wait>,
    /// A multishot poll of the source, which is waited for while `wait` is empty.
    multishot: Option<Readiness>,
    /// Oneshot polls of the source so far; counts no further than [`ONESHOT_POLLS`].
    oneshot_polls: u8,
    waits_for_target: bool,
    has_started: bool,
    /// The target's socket still lacks TCP_NODELAY, which it gets before the first copy.
    needs_nodelay: bool,
    /// The ring has reported more than readable bytes: an end of stream, a failure or urgent data. Then
    /// a read that does not fill the buffer need not have emptied the source.
    has_special_event: bool,
    ending: Option<Ending>,
}

impl Direction {
    /// A direction that begins by waiting: the head has just been read and the backend just been
    /// connected to, so there is hardly ever anything to read yet. `needs_nodelay` says that the target
    /// has not had [`Socket::set_nodelay`].
    pub(super) fn new(needs_nodelay: bool) -> Direction {
        Direction {
            has_started: false,
            needs_nodelay,
            has_special_event: false,
            carried: Carried::new(),
            wait: None,
            multishot: None,
            oneshot_polls: 0,
            waits_for_target: false,
            ending: None,
        }
    }

    /// Sends these bytes before anything is read.
    pub(super) fn carry_first(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.carried.hold(bytes.into_boxed_slice());
            self.has_started = true;
        }
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes that the target has taken.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.carried.moved_bytes()
    }

    /// The part of the moved bytes that was spliced.
    pub(super) fn spliced_bytes(&self) -> u64 {
        self.carried.spliced_bytes()
    }

    /// Whether it waits for the target to take bytes.
    pub(super) fn waits_for_target(&self) -> bool {
        self.waits_for_target
    }

    /// Moves what can be moved, in turns of at most `full_turn_bytes`. After each turn it waits on the
    /// ring, so that a fast stream lets every other connection of the worker go first; while it splices
    /// it also waits for its turn in the bulk run queue. Ready when the direction has ended.
    pub(super) fn poll(&mut self, flow: Flow<'_>, context: &mut Context<'_>) -> Poll<Ending> {
        let local = flow.local;
        if let Some(ending) = self.ending {
            return Poll::Ready(ending);
        }
        loop {
            let piece_bytes = ready!(self.poll_wait(local, context));
            let next = if self.has_started {
                self.turn(flow, piece_bytes)
            } else {
                self.has_started = true;
                Next::ReadMore
            };
            match next {
                Next::ReadEmptied => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.wait_for_bytes(local, flow.source);
                }
                Next::ReadMore => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.wait = Some(Wait::Event(local.ring.readable(flow.source)));
                }
                Next::WriteTarget => {
                    self.waits_for_target = true;
                    self.wait = Some(Wait::Event(local.ring.writable(flow.target)));
                }
                Next::End(ending) => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.multishot = None;
                    self.ending = Some(ending);
                    return Poll::Ready(ending);
                }
            }
        }
    }

    pub(super) fn uses_multishot(&self) -> bool {
        self.multishot.is_some()
    }

    /// Replaces a multishot poll, which reports changes only, by a oneshot poll, which reports what is
    /// there to read. The task must poll the direction again.
    pub(super) fn use_oneshot_polls(&mut self, local: &Local, source: &Socket) {
        if self.wait.is_none() && self.multishot.take().is_some() {
            self.oneshot_polls = 0;
            self.wait = Some(Wait::Event(local.ring.readable(source)));
        }
    }

    /// Stops waiting and drops the bytes under way. The direction must not be polled again.
    pub(super) fn abandon(&mut self, local: &Local) {
        self.wait = None;
        self.multishot = None;
        self.carried.release(local);
    }

    /// Pending until what is waited for has happened. Ready with the most bytes that may go into a pipe
    /// at a time.
    fn poll_wait(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<usize> {
        while let Some(wait) = &mut self.wait {
            let waited = ready!(wait.poll(context));
            self.wait = None;
            match waited {
                Waited::Turn(turn) => {
                    return Poll::Ready(local.limits.piece_bytes(turn == BulkTurn::Uncontended));
                }
                // A failure needs no attention here: the next system call reports it.
                Waited::Event(events) => {
                    self.has_special_event = !self.waits_for_target && !events.is_only_bytes();
                }
            }
            if self.carried.pace.mode() == Mode::Copy {
                return Poll::Ready(local.limits.piece_bytes(false));
            }
            self.wait = Some(Wait::Turn(
                local.ring.yield_to_queue(self.carried.pace.is_slow()),
            ));
        }
        if let Some(multishot) = &mut self.multishot {
            let events = ready!(multishot.poll_events(context));
            self.has_special_event = events.is_none_or(|events| !events.is_only_bytes());
            if events.is_none() {
                self.multishot = None;
            }
        }
        Poll::Ready(local.limits.piece_bytes(false))
    }

    /// Waits for a source that has been emptied. Bulk gets no multishot poll, since that reports changes
    /// only, and a turn of bulk ends with bytes left in the source.
    fn wait_for_bytes(&mut self, local: &Local, source: &Socket) {
        if self.carried.pace.mode() == Mode::Splice {
            self.multishot = None;
        } else if self.multishot.is_some() {
            return;
        } else if self.oneshot_polls < ONESHOT_POLLS {
            self.oneshot_polls += 1;
        } else {
            self.multishot = local.ring.readiness(source);
            if self.multishot.is_some() {
                return;
            }
        }
        self.wait = Some(Wait::Event(local.ring.readable(source)));
    }

    fn turn(&mut self, flow: Flow<'_>, piece_bytes: usize) -> Next {
        match self.try_turn(flow, piece_bytes) {
            Ok(next) | Err(next) => next,
        }
    }

    /// One turn. `Err` is no failure: it is what a step of the turn ends the turn with.
    fn try_turn(&mut self, flow: Flow<'_>, piece_bytes: usize) -> Result<Next, Next> {
        let limit = self.moved_bytes() + flow.local.limits.full_turn_bytes();
        let mut is_short = false;
        loop {
            self.carried.flush(flow.target)?;
            if self.moved_bytes() >= limit || is_short {
                return Ok(Next::ReadMore);
            }
            is_short = match self.carried.pace.mode() {
                Mode::Copy => self.copy(flow).map(|()| false)?,
                Mode::Splice => self.splice(flow, piece_bytes)?,
            };
        }
    }

    /// Reads once into the worker's buffer and writes once from it. Only what a full target does not
    /// take is copied aside.
    fn copy(&mut self, flow: Flow<'_>) -> Result<(), Next> {
        // A pipe may be left from the last piece of bulk; it is empty here.
        self.carried.release(flow.local);
        let mut buffer = flow.local.buffer.borrow_mut();
        let received = match flow.source.recv(&mut buffer) {
            Ok(0) => return Err(Next::End(Ending::Finished)),
            Ok(received) => received,
            Err(error) => return Err(Stop::after_read(&error).into()),
        };
        self.carried.pace.read(received);
        if std::mem::take(&mut self.needs_nodelay) {
            flow.target.set_nodelay();
        }
        self.carried.send(flow.target, &buffer[..received])?;
        // A read that did not fill the buffer has emptied the socket: another read would most often
        // find nothing, and the ring reports what comes meanwhile. The exception is a socket of which
        // the ring has already reported what ends a read early; that is read again at once.
        if received < buffer.len() && !self.has_special_event {
            return Err(Next::ReadEmptied);
        }
        Ok(())
    }

    /// Fills the empty pipe once, with at most `bytes_max`; the next step of the turn drains it. Returns
    /// whether the fill was short.
    fn splice(&mut self, flow: Flow<'_>, bytes_max: usize) -> Result<bool, Next> {
        if !self.carried.ensure_pipe(flow.local) {
            return Ok(false);
        }
        match self.carried.fill(flow.source, bytes_max)? {
            Some(filled) => Ok(filled.is_short),
            None => self.copy(flow).map(|()| false),
        }
    }
}

/// What a turn ends with.
enum Next {
    /// Wait for the source, which has been emptied.
    ReadEmptied,
    /// Wait for the source, which may still hold something.
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
