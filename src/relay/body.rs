//! Moves one message body from one socket to another: no byte more than belongs to it, through the
//! core's buffer, or through a pipe where a long run need not be seen.
//!
//! The same bounds as in [`relay`](crate::relay): a turn moves a share, then waits on the ring, and
//! in bulk also in line; nothing is held while the source is waited for.

use std::task::{Context, Poll, ready};

use super::carried::{Carried, Stop};
use super::chunk_run::{LINE_BYTES, Run};
use super::pace::Mode;
use crate::http::{Chunks, Framing};
use crate::metrics::Counter;
use crate::refusal::Refusal;
use crate::ring::{BulkTurn, Wait, Waited};
use crate::state::Local;
use crate::sys::Socket;

/// How the moving of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The target has all of it.
    Whole,
    /// The source ended its stream within it.
    CutOff,
    SourceFailed,
    TargetFailed,
    /// It breaks a rule. What was parsed before may have been given on.
    Broken(Refusal),
}

/// The target takes nothing more.
#[derive(Debug)]
pub(crate) struct TargetFailed;

enum Next {
    ReadSource,
    WriteTarget,
    End(Moved),
}

/// One body on its way.
pub(crate) struct BodyRelay {
    framing: Framing,
    carried: Carried,
    wait: Option<Wait>,
    waits_for_target: bool,
    /// Whether it is worth reading before readiness is waited for.
    source_has_more: bool,
    /// A chunk was spliced to its end, and the line behind it was not looked at.
    at_line: bool,
    /// How a response is read; `None`: a request, which is held to the letter.
    chunks: Option<Chunks>,
    was_mended: bool,
}

impl BodyRelay {
    /// `framing` is what is left of the body. `source_has_more` says that the last read from the
    /// source filled the buffer.
    pub(crate) fn new(framing: Framing, source_has_more: bool) -> BodyRelay {
        BodyRelay {
            framing,
            carried: Carried::new(),
            wait: None,
            waits_for_target: false,
            source_has_more,
            at_line: false,
            chunks: None,
            was_mended: false,
        }
    }

    /// As [`BodyRelay::new`], of a response, which is read kindly and given on in proper form.
    pub(crate) fn of_response(
        framing: Framing,
        source_has_more: bool,
        chunks: Chunks,
    ) -> BodyRelay {
        BodyRelay {
            chunks: Some(chunks),
            ..BodyRelay::new(framing, source_has_more)
        }
    }

    /// Whether it broke a rule and was written anew.
    pub(crate) fn was_mended(&self) -> bool {
        self.was_mended
    }

    /// Takes in the next bytes of the source. How many of them belong to the message, and what the target
    /// is to have in their place, if that is something else.
    ///
    /// # Errors
    /// The rule that they break.
    pub(crate) fn take_in(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), Refusal> {
        let chunks = match self.chunks {
            None => return self.framing.feed(bytes).map(|used| (used, None)),
            Some(Chunks::DataOnly) => Chunks::DataOnly,
            Some(Chunks::Whole) => {
                let mut strict = self.framing.clone();
                if let Ok(used) = strict.feed(bytes) {
                    self.framing = strict;
                    return Ok((used, None));
                }
                self.was_mended = true;
                Chunks::Whole
            }
        };
        let mut mended = Vec::with_capacity(bytes.len());
        let used = self.framing.mend(bytes, chunks, &mut mended)?;
        Ok((used, Some(mended)))
    }

    /// Gives the target the first bytes of the message, head included; keeps a copy of what it does
    /// not take.
    ///
    /// # Errors
    /// When the target has failed; it took nothing.
    pub(crate) fn begin(&mut self, to: &Socket, bytes: &[u8]) -> Result<(), TargetFailed> {
        match self.carried.send(to, bytes) {
            Ok(()) => Ok(()),
            Err(Stop::TargetFull) => {
                self.waits_for_target = true;
                Ok(())
            }
            Err(_) => Err(TargetFailed),
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.framing.is_done() && self.carried.is_empty()
    }

    /// Whether the source has nothing more to give.
    pub(crate) fn has_read_all(&self) -> bool {
        self.framing.is_done()
    }

    /// Bytes the target has taken.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.carried.moved_bytes()
    }

    /// Whether the target's slowness is what holds it up.
    pub(crate) fn waits_for_target(&self) -> bool {
        self.waits_for_target
    }

    /// Moves what can be moved. What was read behind the end of the message goes to `surplus`.
    pub(crate) fn poll(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        surplus: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Moved> {
        loop {
            let mut piece_bytes = local.limits.piece_bytes(false);
            if let Some(wait) = &mut self.wait {
                let waited = ready!(wait.poll(context));
                self.wait = None;
                match waited {
                    Waited::Turn(turn) => {
                        piece_bytes = local.limits.piece_bytes(turn == BulkTurn::Uncontended);
                    }
                    // What came is not looked at: the next system call reports the socket's state.
                    Waited::Event(_) => {
                        self.source_has_more |= !self.waits_for_target;
                        if self.carried.pace.mode() == Mode::Splice {
                            let turn = local.ring.yield_to_queue(self.carried.pace.is_slow());
                            self.wait = Some(Wait::Turn(turn));
                            continue;
                        }
                    }
                }
            }
            match self.turn(local, from, to, surplus, piece_bytes) {
                Next::ReadSource => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.wait = Some(Wait::Event(local.ring.readable(from)));
                }
                Next::WriteTarget => {
                    self.waits_for_target = true;
                    self.wait = Some(Wait::Event(local.ring.writable(to)));
                }
                Next::End(moved) => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Stops waiting, drops what is carried and counts what was moved. It is not polled again.
    pub(crate) fn finish(&mut self, local: &Local, counter: Counter) {
        self.wait = None;
        self.carried.release(local);
        let mut metrics = local.metrics.borrow_mut();
        let (moved, spliced) = (self.carried.moved_bytes(), self.carried.spliced_bytes());
        metrics.count(counter, moved);
        metrics.count(Counter::SplicedBytes, spliced);
        metrics.count(Counter::CopiedBytes, moved - spliced);
    }

    fn turn(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        surplus: &mut Vec<u8>,
        piece_bytes: usize,
    ) -> Next {
        match self.try_turn(local, from, to, surplus, piece_bytes) {
            Ok(next) | Err(next) => next,
        }
    }

    fn try_turn(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        surplus: &mut Vec<u8>,
        piece_bytes: usize,
    ) -> Result<Next, Next> {
        let limit = self.moved_bytes() + local.limits.full_turn_bytes();
        loop {
            self.carried.give(to)?;
            if self.framing.is_done() {
                return Ok(Next::End(Moved::Whole));
            }
            if self.moved_bytes() >= limit || !self.source_has_more {
                return Ok(Next::ReadSource);
            }
            let has_spliced = self.carried.pace.mode() == Mode::Splice
                && self.splice(local, from, piece_bytes)?;
            if !has_spliced {
                self.copy(local, from, to, surplus)?;
            }
        }
    }

    fn copy(
        &mut self,
        local: &Local,
        from: &Socket,
        to: &Socket,
        surplus: &mut Vec<u8>,
    ) -> Result<(), Next> {
        // A pipe may be left from the last run; it is empty here.
        self.carried.release(local);
        let mut buffer = local.buffer.borrow_mut();
        let received = match from.recv(&mut buffer) {
            Ok(0) => return Err(self.at_end_of_stream()),
            Ok(received) => received,
            Err(error) => return Err(Stop::after_read(&error).into()),
        };
        self.carried.pace.read(received);
        self.source_has_more = received == buffer.len();
        let (used, mended) = match self.take_in(&buffer[..received]) {
            Ok(taken) => taken,
            Err(refusal) => return Err(Next::End(Moved::Broken(refusal))),
        };
        surplus.extend_from_slice(&buffer[used..received]);
        let ours = mended.as_deref().unwrap_or(&buffer[..used]);
        Ok(self.carried.send(to, ours)?)
    }

    /// Fills the empty pipe with at most `piece_bytes` that need not be seen, and the lines of chunks
    /// between them. Whether there were any; otherwise the next bytes are to be copied.
    fn splice(&mut self, local: &Local, from: &Socket, piece_bytes: usize) -> Result<bool, Next> {
        loop {
            let run = self.next_run(from);
            if !run.is_large() || !self.carried.has_pipe(local) {
                return Ok(self.carried.piped_bytes() > 0);
            }
            let held = self.carried.piped_bytes();
            let most = run.bytes_up_to(piece_bytes - held);
            let filled = match self.carried.fill(from, most) {
                // The end of the stream will still be there when what is held was given on, and after
                // a failure there is one, too. Or else the pipe is full.
                Ok(None) | Err(_) if held > 0 => return Ok(true),
                Ok(None) => return Ok(false),
                Ok(Some(filled)) => filled,
                Err(stop) => return Err(stop.into()),
            };
            let (received, is_short) = (filled.bytes, filled.is_short);
            self.source_has_more = !is_short;
            run.pass(&mut self.framing, received);
            // Where chunks are left out their lines are read instead.
            self.at_line = self.framing.opaque_bytes() == 0
                && !self.framing.is_done()
                && self.chunks != Some(Chunks::DataOnly);
            let is_full = held + received >= piece_bytes - piece_bytes / 4;
            if is_short || is_full || !self.at_line {
                return Ok(true);
            }
        }
    }

    /// What may be spliced next.
    fn next_run(&mut self, from: &Socket) -> Run {
        if !std::mem::take(&mut self.at_line) {
            return Run::known(&self.framing);
        }
        let mut seen = [0; LINE_BYTES];
        let bytes = from.peek(&mut seen).unwrap_or(0);
        Run::behind(&self.framing, &seen[..bytes])
    }

    fn at_end_of_stream(&self) -> Next {
        Next::End(if self.framing.ends_with_stream() {
            Moved::Whole
        } else {
            Moved::CutOff
        })
    }
}

impl From<Stop> for Next {
    fn from(stop: Stop) -> Next {
        match stop {
            Stop::SourceEmpty | Stop::SourceBusy => Next::ReadSource,
            Stop::SourceFailed => Next::End(Moved::SourceFailed),
            Stop::TargetFull => Next::WriteTarget,
            Stop::TargetFailed | Stop::TargetClosed => Next::End(Moved::TargetFailed),
        }
    }
}
