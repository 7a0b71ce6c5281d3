//! The deadlines of an exchange: which wait is in force, when it takes too long, and how the connection
//! ends then.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{Exchange, ExchangeEnd, Response};
use crate::outcome::Outcome;
use crate::relay::KEEP_ALIVE_AFTER;
use crate::ring::Deadline;

/// How much of a request's body has to come in each span of the body deadline.
const BODY_PROGRESS_BYTES: u64 = 1024;

impl Exchange<'_> {
    /// What is waited for, as the outcome of the connection when it does not come.
    pub(super) fn awaited(&self) -> Outcome {
        let client_awaits_continue = self.request.expects_continue
            && !self.was_continued
            && self.up.moved_bytes() <= self.request.outgoing.len() as u64;
        if matches!(self.response, Response::Body(_)) {
            Outcome::IdleTimeout
        } else if self.request_sent
            || self.request_failed
            || self.up.waits_for_target()
            || client_awaits_continue
        {
            Outcome::ResponseTimeout
        } else {
            Outcome::BodyTimeout
        }
    }

    pub(super) fn begin_patience(&mut self, outcome: Outcome, since: Instant) {
        self.patience.outcome = outcome;
        self.patience.since = since;
        self.patience.bytes = self.moved_bytes();
    }

    /// When the wait in force takes too long.
    fn due(&self) -> Instant {
        let limits = &self.local.limits;
        let span = match self.patience.outcome {
            Outcome::IdleTimeout => limits.idle_deadline,
            Outcome::BodyTimeout => limits.body_deadline,
            _ => limits.response_deadline,
        };
        let due = self.patience.since + span;
        self.half_closed_due()
            .map_or(due, |half_closed| half_closed.min(due))
    }

    /// When a client that has finished sending has waited too long for the next byte.
    fn half_closed_due(&self) -> Option<Instant> {
        let since = self.client_finished?.max(self.patience.since);
        Some(since + self.local.limits.half_closed_deadline)
    }

    pub(super) fn set_deadline(&mut self, deadline: &Deadline) {
        let mut at = self.due();
        if !self.upstream.has_keep_alive {
            at = at.min(self.local.ring.now() + KEEP_ALIVE_AFTER);
        }
        self.patience.set = at;
        deadline.set(at);
    }

    /// A wait begins anew when another kind of wait begins, and when what it waits for comes: of a
    /// request's body [`BODY_PROGRESS_BYTES`], otherwise any byte. The deadline itself is set again only
    /// when it would pass too late, so that traffic costs no timer.
    pub(super) fn poll_deadline(
        &mut self,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<ExchangeEnd> {
        let outcome = self.awaited();
        let progress_bytes = match outcome {
            Outcome::BodyTimeout => BODY_PROGRESS_BYTES,
            _ => 1,
        };
        let now = self.local.ring.now();
        if outcome != self.patience.outcome
            || self.moved_bytes() >= self.patience.bytes + progress_bytes
        {
            self.begin_patience(outcome, now);
        }
        if self.due() < self.patience.set {
            self.set_deadline(deadline);
        }
        while deadline.poll_passed(context).is_ready() {
            if now >= self.due() {
                // As in `abort`: the backend must not take a request that is cut off for a whole one.
                if !self.request_sent {
                    self.upstream.socket.abort_on_close();
                }
                let is_half_closed = self.half_closed_due().is_some_and(|due| now >= due);
                return Poll::Ready(self.failed(if is_half_closed {
                    Outcome::HalfClosedTimeout
                } else {
                    outcome
                }));
            }
            if !std::mem::replace(&mut self.upstream.has_keep_alive, true) {
                let silence = self.local.limits.tcp_keep_alive;
                self.upstream.socket.enable_keep_alive(silence);
            }
            self.set_deadline(deadline);
        }
        Poll::Pending
    }
}
