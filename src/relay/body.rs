//! Relays one message body from one socket to another, and not a byte beyond its end. Bytes go through
//! the worker's buffer, or through a pipe where a long run of them need not be looked at.
//!
//! The bounds of a turn are those of [`Direction`](super::direction::Direction): a turn moves a bounded
//! share, then waits on the ring, and while it splices also for its turn in the bulk run queue. While
//! the source is waited for, neither a buffer nor a pipe is held.

use std::borrow::Cow;
use std::task::{Context, Poll, ready};

use super::carried::{Carried, Flow, Stop};
use super::chunk_run::{CHUNK_LINE_BYTES, OpaqueRun};
use super::pace::Mode;
use crate::http::{ChunkedOutput, Framing};
use crate::metrics::Counter;
use crate::refusal::Refusal;
use crate::ring::{BulkTurn, Wait, Waited};
use crate::state::Local;
use crate::sys::Socket;

/// How the relaying of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// The target has the whole body.
    Complete,
    /// The source ended its stream before the end of the body.
    Truncated,
    SourceFailed,
    TargetFailed,
    /// The body breaks a rule of its framing. What was parsed before the fault may have been sent on.
    Invalid(Refusal),
}

/// The target has failed and takes nothing more.
#[derive(Debug)]
pub(crate) struct TargetFailed;

/// What a turn ends with.
enum Next {
    ReadSource,
    WriteTarget,
    End(BodyEnd),
}

/// The part of some received bytes that belongs to the message.
pub(crate) struct Framed<'b> {
    /// How many of the received bytes belong to the message.
    pub used: usize,
    /// What the target gets for them: the same bytes, or a normalized form.
    pub outgoing: Cow<'b, [u8]>,
}

/// One body under way.
pub(crate) struct BodyRelay {
    framing: Framing,
    carried: Carried,
    wait: Option<Wait>,
    waits_for_target: bool,
    /// Reading is worth a try before readiness is waited for.
    source_has_more: bool,
    /// A chunk was spliced to its end, and the chunk-size line behind it has not been looked at.
    at_chunk_line: bool,
    /// How the chunks of a response are read and sent on. `None` for a request, whose framing must be
    /// exact.
    chunks: Option<ChunkedOutput>,
    was_normalized: bool,
}

impl BodyRelay {
    /// `framing` describes the rest of the body. `source_has_more` says that the last read from the
    /// source filled the buffer.
    pub(crate) fn new(framing: Framing, source_has_more: bool) -> BodyRelay {
        BodyRelay {
            framing,
            carried: Carried::new(),
            wait: None,
            waits_for_target: false,
            source_has_more,
            at_chunk_line: false,
            chunks: None,
            was_normalized: false,
        }
    }

    /// As [`BodyRelay::new`], for a response: faults in its framing that leave no doubt are tolerated
    /// and sent on in proper form.
    pub(crate) fn for_response(
        framing: Framing,
        source_has_more: bool,
        chunks: ChunkedOutput,
    ) -> BodyRelay {
        BodyRelay {
            chunks: Some(chunks),
            ..BodyRelay::new(framing, source_has_more)
        }
    }

    /// Whether the framing had a fault and the body was normalized.
    pub(crate) fn was_normalized(&self) -> bool {
        self.was_normalized
    }

    /// Advances the framing over bytes that were received from the source.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub(crate) fn frame<'b>(&mut self, received: &'b [u8]) -> Result<Framed<'b>, Refusal> {
        let unchanged = |used| Framed {
            used,
            outgoing: Cow::Borrowed(&received[..used]),
        };
        let chunks = match self.chunks {
            None => return self.framing.feed(received).map(unchanged),
            Some(ChunkedOutput::Decoded) => ChunkedOutput::Decoded,
            Some(ChunkedOutput::Chunked) => {
                let mut strict = self.framing.clone();
                if let Ok(used) = strict.feed(received) {
                    self.framing = strict;
                    return Ok(unchanged(used));
                }
                self.was_normalized = true;
                ChunkedOutput::Chunked
            }
        };
        let mut normalized = Vec::with_capacity(received.len());
        let used = self.framing.normalize(received, chunks, &mut normalized)?;
        Ok(Framed {
            used,
            outgoing: Cow::Owned(normalized),
        })
    }

    /// Sends the first bytes of the message, its head included, and holds a copy of those that the
    /// target does not take.
    ///
    /// # Errors
    /// When the target has failed; it took nothing.
    pub(crate) fn send_first(&mut self, target: &Socket, bytes: &[u8]) -> Result<(), TargetFailed> {
        match self.carried.send(target, bytes) {
            Ok(()) => Ok(()),
            Err(Stop::TargetFull) => {
                self.waits_for_target = true;
                Ok(())
            }
            Err(_) => Err(TargetFailed),
        }
    }

    /// Whether the target has the whole body.
    pub(crate) fn is_complete(&self) -> bool {
        self.framing.is_done() && self.carried.is_empty()
    }

    /// Whether the whole body has been read from the source.
    pub(crate) fn has_read_all(&self) -> bool {
        self.framing.is_done()
    }

    /// Bytes that the target has taken.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.carried.moved_bytes()
    }

    /// Whether it waits for the target to take bytes.
    pub(crate) fn waits_for_target(&self) -> bool {
        self.waits_for_target
    }

    /// Moves what can be moved. Bytes that were read beyond the end of the message are appended to
    /// `excess`, which for a request is the client's own buffer, so that they are copied only once.
    pub(crate) fn poll(
        &mut self,
        flow: Flow<'_>,
        excess: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<BodyEnd> {
        let local = flow.local;
        loop {
            let mut piece_bytes = local.limits.piece_bytes(false);
            if let Some(wait) = &mut self.wait {
                let waited = ready!(wait.poll(context));
                self.wait = None;
                match waited {
                    Waited::Turn(turn) => {
                        piece_bytes = local.limits.piece_bytes(turn == BulkTurn::Uncontended);
                    }
                    // Which event came does not matter: the next system call reports the socket's state.
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
            match self.turn(flow, excess, piece_bytes) {
                Next::ReadSource => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    self.wait = Some(Wait::Event(local.ring.readable(flow.source)));
                }
                Next::WriteTarget => {
                    self.waits_for_target = true;
                    self.wait = Some(Wait::Event(local.ring.writable(flow.target)));
                }
                Next::End(end) => {
                    self.waits_for_target = false;
                    self.carried.release(local);
                    return Poll::Ready(end);
                }
            }
        }
    }

    /// Stops waiting, drops the bytes under way and counts those that were moved. It must not be
    /// polled again.
    pub(crate) fn finish(&mut self, local: &Local, counter: Counter) {
        self.wait = None;
        self.carried.release(local);
        let mut metrics = local.metrics.borrow_mut();
        let (moved, spliced) = (self.carried.moved_bytes(), self.carried.spliced_bytes());
        metrics.count(counter, moved);
        metrics.count(Counter::SplicedBytes, spliced);
        metrics.count(Counter::CopiedBytes, moved - spliced);
    }

    fn turn(&mut self, flow: Flow<'_>, excess: &mut Vec<u8>, piece_bytes: usize) -> Next {
        match self.try_turn(flow, excess, piece_bytes) {
            Ok(next) | Err(next) => next,
        }
    }

    /// One turn. `Err` is no failure: it is what a step of the turn ends the turn with.
    fn try_turn(
        &mut self,
        flow: Flow<'_>,
        excess: &mut Vec<u8>,
        piece_bytes: usize,
    ) -> Result<Next, Next> {
        let limit = self.moved_bytes() + flow.local.limits.full_turn_bytes();
        loop {
            self.carried.flush(flow.target)?;
            if self.framing.is_done() {
                return Ok(Next::End(BodyEnd::Complete));
            }
            if self.moved_bytes() >= limit || !self.source_has_more {
                return Ok(Next::ReadSource);
            }
            let has_spliced =
                self.carried.pace.mode() == Mode::Splice && self.splice(flow, piece_bytes)?;
            if !has_spliced {
                self.copy(flow, excess)?;
            }
        }
    }

    fn copy(&mut self, flow: Flow<'_>, excess: &mut Vec<u8>) -> Result<(), Next> {
        // A pipe may be left from the last run; it is empty here.
        self.carried.release(flow.local);
        let mut buffer = flow.local.buffer.borrow_mut();
        let received = match flow.source.recv(&mut buffer) {
            Ok(0) => return Err(self.at_end_of_stream()),
            Ok(received) => received,
            Err(error) => return Err(Stop::after_read(&error).into()),
        };
        self.carried.pace.read(received);
        self.source_has_more = received == buffer.len();
        let framed = match self.frame(&buffer[..received]) {
            Ok(framed) => framed,
            Err(refusal) => return Err(Next::End(BodyEnd::Invalid(refusal))),
        };
        excess.extend_from_slice(&buffer[framed.used..received]);
        Ok(self.carried.send(flow.target, &framed.outgoing)?)
    }

    /// Fills the empty pipe with at most `piece_bytes` of chunk data that need not be looked at, and of
    /// the chunk-size lines between them. `false` when there is no such run: then the next bytes have to
    /// be copied.
    fn splice(&mut self, flow: Flow<'_>, piece_bytes: usize) -> Result<bool, Next> {
        loop {
            let run = self.next_run(flow.source);
            if !run.is_large() || !self.carried.ensure_pipe(flow.local) {
                return Ok(self.carried.piped_bytes() > 0);
            }
            let held = self.carried.piped_bytes();
            let bytes_max = run.bytes_up_to(piece_bytes - held);
            let filled = match self.carried.fill(flow.source, bytes_max) {
                // With bytes in the pipe this may only mean that the pipe is full. An end of the stream
                // or a failure is still there after the pipe has been drained.
                Ok(None) | Err(_) if held > 0 => return Ok(true),
                Ok(None) => return Ok(false),
                Ok(Some(filled)) => filled,
                Err(stop) => return Err(stop.into()),
            };
            self.source_has_more = !filled.is_short;
            run.advance(&mut self.framing, filled.bytes);
            // Where only the data of the chunks goes on, the lines between them are read instead.
            self.at_chunk_line = self.framing.opaque_bytes() == 0
                && !self.framing.is_done()
                && self.chunks != Some(ChunkedOutput::Decoded);
            let is_full = held + filled.bytes >= piece_bytes - piece_bytes / 4;
            if filled.is_short || is_full || !self.at_chunk_line {
                return Ok(true);
            }
        }
    }

    /// The bytes that may be spliced next.
    fn next_run(&mut self, source: &Socket) -> OpaqueRun {
        if !std::mem::take(&mut self.at_chunk_line) {
            return OpaqueRun::known(&self.framing);
        }
        let mut peeked = [0; CHUNK_LINE_BYTES];
        let bytes = source.peek(&mut peeked).unwrap_or(0);
        OpaqueRun::behind_line(&self.framing, &peeked[..bytes])
    }

    fn at_end_of_stream(&self) -> Next {
        Next::End(if self.framing.ends_with_stream() {
            BodyEnd::Complete
        } else {
            BodyEnd::Truncated
        })
    }
}

impl From<Stop> for Next {
    fn from(stop: Stop) -> Next {
        match stop {
            Stop::SourceEmpty | Stop::SourceBusy => Next::ReadSource,
            Stop::SourceFailed => Next::End(BodyEnd::SourceFailed),
            Stop::TargetFull => Next::WriteTarget,
            Stop::TargetFailed | Stop::TargetClosed => Next::End(BodyEnd::TargetFailed),
        }
    }
}
