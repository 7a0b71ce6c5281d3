//! Moves the bytes of one connection in both directions until both have ended.
//!
//! Half-close is passed on exactly: a side that ends its stream may still receive. A reset is
//! passed on as a reset, but only behind every byte that was received before it. Both directions
//! live in one task and share nothing but the two sockets; see [`Direction`] for one of them.

mod body;
mod carried;
mod chunk_run;
mod direction;
mod pace;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub(crate) use body::{BodyRelay, Moved};
use direction::{Direction, Ending};

use crate::client::{flush_patience, pass_reset_on};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Deadline, Operation, has_failed};
use crate::state::Local;
use crate::sys::Socket;
use crate::upstream::{LiveBackend, RemovalWatch};

/// A busy direction is told changes of its source only. That saves polls, but a read that ends at
/// urgent data (RFC 6093) leaves bytes behind of which nothing tells. So a connection that has been
/// quiet for this long goes back to plain polls, which report all that is there.
const ONESHOT_AFTER: Duration = Duration::from_secs(1);
/// After one side has ended its stream, the other direction no longer looks at that side, so a
/// reset would go unseen until something is written to it. Most connections are over well before
/// this; the others get a watch for errors.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);
/// A backend's connection that lives for this long gets keep-alive probes. Four system calls, 2 µs, that
/// most connections of a busy proxy are over without.
pub(crate) const PROBED_AFTER: Duration = Duration::from_millis(200);
/// What a client gets in all when it is its backend that has left: the operator wants an end.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(1);

/// What is known once a relay has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relayed {
    pub outcome: Outcome,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
}

/// Both sockets of one connection and what passes between them.
pub(crate) struct Relay {
    client: Socket,
    backend: Socket,
    /// Counts the backend's for as long as the relay lives, and waits with it for the first byte.
    live: LiveBackend,
    /// Of the backend, where the host wants an end when it leaves.
    removal: Option<Box<RemovalWatch>>,
    up: Direction,
    down: Direction,
    /// Completes when the client's socket fails while nobody reads from it.
    client_watch: Option<Operation>,
    /// The same for the backend's socket.
    backend_watch: Option<Operation>,
    /// When the head had been sent; `None` once the first byte has come back.
    waiting_for_first_byte: Option<Instant>,
    seen_bytes: u64,
    last_moved: Instant,
    /// A direction waits for changes, and the deadline has been set to look after it.
    uses_multishot: bool,
    /// One of the sides has finished, and the silence of the other counts from then on.
    half_closed: bool,
    /// The client has failed, and what it had sent before is still being given to the backend.
    client_gone: bool,
    /// The client's end of stream was passed on, or need not be.
    end_passed_to_backend: bool,
    /// The same of the backend's.
    end_passed_to_client: bool,
    /// A backend that vanishes is noticed.
    is_probed: bool,
}

/// What has become of a connection whose head has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The first byte has come back and is on its way to the client.
    Answered,
    /// The client has sent more than its head, which nobody holds, or has finished or failed.
    ClientWentOn,
    /// The backend has closed or reset without a byte, and the client knows nothing of it.
    Unanswered(Outcome),
    /// The backend's removal has ended without a byte of it.
    Removed,
}

impl Relay {
    /// The head has been sent to the backend at `head_sent`.
    pub(crate) fn new(
        client: Socket,
        backend: Socket,
        live: LiveBackend,
        removal: Option<Box<RemovalWatch>>,
        head_sent: Instant,
    ) -> Relay {
        Relay {
            client,
            backend,
            live,
            removal,
            up: Direction::new(true),
            down: Direction::new(false),
            client_watch: None,
            backend_watch: None,
            waiting_for_first_byte: Some(head_sent),
            seen_bytes: 0,
            last_moved: head_sent,
            uses_multishot: false,
            half_closed: false,
            client_gone: false,
            end_passed_to_backend: false,
            end_passed_to_client: false,
            is_probed: false,
        }
    }

    /// What was received before and goes first, to the backend and, where that has answered by now, to
    /// the client.
    pub(crate) fn carry_first(&mut self, to_backend: Vec<u8>, to_client: Option<Vec<u8>>) {
        self.up.carry_first(to_backend);
        if let Some(to_client) = to_client {
            self.down.carry_first(to_client);
            self.waiting_for_first_byte = None;
        }
    }

    /// Ready when it is known whether the backend answers. Whatever comes out, [`Relay::run`] can go on
    /// from there: nothing was told to the client but the answer.
    pub(crate) fn poll_begin(
        &mut self,
        local: &Local,
        protocol: Protocol,
        context: &mut Context<'_>,
    ) -> Poll<Begun> {
        let up = self.up.poll(local, &self.client, &self.backend, context);
        if up.is_ready() || self.up.moved_bytes() > 0 || self.up.waits_for_target() {
            self.note_progress(local, protocol);
            return Poll::Ready(Begun::ClientWentOn);
        }
        self.poll_answer(local, protocol, context)
    }

    /// As [`Relay::poll_begin`], where the client belongs to another backend unless this one answers
    /// first: nothing is read from it.
    pub(crate) fn poll_answer(
        &mut self,
        local: &Local,
        protocol: Protocol,
        context: &mut Context<'_>,
    ) -> Poll<Begun> {
        let down = self.down.poll(local, &self.backend, &self.client, context);
        self.note_progress(local, protocol);
        if self.down.moved_bytes() > 0 || self.down.waits_for_target() {
            // Also where the client has no room for it yet.
            self.note_first_byte(local, protocol);
            return Poll::Ready(Begun::Answered);
        }
        match down {
            Poll::Ready(Ending::Finished) => Poll::Ready(Begun::Unanswered(Outcome::BackendClosed)),
            Poll::Ready(Ending::SourceFailed) => {
                Poll::Ready(Begun::Unanswered(Outcome::BackendReset))
            }
            Poll::Ready(_) => Poll::Ready(Begun::ClientWentOn),
            Poll::Pending if self.removal_ends(context) => Poll::Ready(Begun::Removed),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The connection's place among those of its backend.
    pub(crate) fn live(&self) -> &LiveBackend {
        &self.live
    }

    /// Nothing is to be learnt of the backend by what it says first.
    pub(crate) fn accepted(&mut self, local: &Local) {
        self.live.answered(local);
    }

    /// When to look first at what ends then.
    fn with_probes(&self, local: &Local, ends: Instant) -> Instant {
        match self.is_probed {
            true => ends,
            false => ends.min(local.ring.now() + PROBED_AFTER),
        }
    }

    /// From now on it is noticed when the backend vanishes.
    pub(crate) fn probe(&mut self, local: &Local) {
        if !std::mem::replace(&mut self.is_probed, true) {
            self.backend.probe_when_silent(local.limits.tcp_keep_alive);
        }
    }

    /// Whether the backend has left and the connection ends for it.
    fn removal_ends(&self, context: &Context<'_>) -> bool {
        let removal = self.removal.as_ref();
        removal.is_some_and(|removal| removal.poll_end(context).is_ready())
    }

    /// Ends what waits and drops what is carried, where the client goes to another backend.
    pub(crate) fn give_up(&mut self, local: &Local) {
        self.up.abandon(local);
        self.down.abandon(local);
    }

    /// Runs until the connection has ended; `deadline` is the connection's own, free for use here.
    pub(crate) async fn run(
        &mut self,
        local: &Local,
        protocol: Protocol,
        deadline: &Deadline,
    ) -> Relayed {
        deadline.set(self.with_probes(local, local.ring.now() + local.limits.idle_deadline));
        let outcome = poll_fn(|context| self.poll(local, protocol, deadline, context)).await;
        self.up.abandon(local);
        self.down.abandon(local);
        self.client_watch = None;
        self.backend_watch = None;
        // A target that failed itself is given nothing more.
        match outcome {
            Outcome::BackendReset if !target_is_gone(&self.down) => {
                Box::pin(pass_reset_on(local, &self.client, deadline, None)).await;
            }
            Outcome::ClientReset if !target_is_gone(&self.up) => {
                Box::pin(pass_reset_on(local, &self.backend, deadline, None)).await;
            }
            // Who waits for an end that has not come must not take this for it.
            Outcome::HalfClosedTimeout => {
                let waits = match self.up.ending() {
                    Some(_) => &self.client,
                    None => &self.backend,
                };
                Box::pin(pass_reset_on(local, waits, deadline, None)).await;
            }
            // A reset for both: an end of stream would be taken for the regular end of whatever has
            // no framing of its own, and by many for that of a TLS stream too.
            Outcome::BackendRemoved => {
                self.backend.abort_on_close();
                let by = Some(local.ring.now() + REMOVAL_PATIENCE);
                Box::pin(pass_reset_on(local, &self.client, deadline, by)).await;
            }
            Outcome::IdleTimeout => {
                self.backend.abort_on_close();
                self.client.abort_on_close();
            }
            // The client's end is the business of who has asked.
            Outcome::CutAtDrain => self.backend.abort_on_close(),
            _ => {}
        }
        self.count(local);
        Relayed {
            outcome,
            bytes_to_backend: self.up.moved_bytes(),
            bytes_to_client: self.down.moved_bytes(),
        }
    }

    fn poll(
        &mut self,
        local: &Local,
        protocol: Protocol,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Outcome> {
        let up = self.up.poll(local, &self.client, &self.backend, context);
        if up == Poll::Ready(Ending::Finished)
            && !std::mem::replace(&mut self.end_passed_to_backend, true)
            && self.down.ending().is_none()
        {
            self.backend.shutdown_write();
        }
        let down = self.down.poll(local, &self.backend, &self.client, context);
        if down == Poll::Ready(Ending::Finished)
            && !std::mem::replace(&mut self.end_passed_to_client, true)
            && self.up.ending().is_none()
        {
            self.client.shutdown_write();
        }
        self.note_progress(local, protocol);
        match (up, down) {
            (Poll::Ready(up), Poll::Ready(down)) => return Poll::Ready(outcome(up, down)),
            // All that the side had sent was given on, and it takes nothing more, so the other
            // direction has nobody to give to.
            (Poll::Ready(Ending::SourceFailed), _) => return Poll::Ready(Outcome::ClientReset),
            (_, Poll::Ready(Ending::SourceFailed)) => return Poll::Ready(Outcome::BackendReset),
            _ => {}
        }
        if self.up.waits_for_target() && self.client_watch.is_none() {
            self.client_watch = Some(local.ring.failed(&self.client));
        }
        if has_failed(&mut self.backend_watch, context) {
            return Poll::Ready(Outcome::BackendReset);
        }
        if has_failed(&mut self.client_watch, context) || target_is_gone(&self.down) {
            if self.up.ending().is_some() {
                return Poll::Ready(Outcome::ClientReset);
            }
            if !self.client_gone {
                self.client_gone = true;
                deadline.set(local.ring.now() + flush_patience(local));
            }
        }
        // Behind the directions, so that what the backend has sent is given to a client that takes it.
        if self.removal_ends(context) {
            return Poll::Ready(Outcome::BackendRemoved);
        }
        if local.drain.asks_relays() {
            return Poll::Ready(Outcome::CutAtDrain);
        }
        self.poll_deadline(local, deadline, context)
    }

    /// Activity only moves a mark; the deadline is moved when it passes, so traffic costs no timer.
    fn poll_deadline(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Outcome> {
        let one_has_ended = self.up.ending().is_some() || self.down.ending().is_some();
        if one_has_ended && !self.half_closed {
            let now = local.ring.now();
            self.half_closed = true;
            self.last_moved = now;
            deadline.set(now + HALF_CLOSED_GRACE.min(local.limits.half_closed_deadline));
        }
        if !self.uses_multishot && (self.up.uses_multishot() || self.down.uses_multishot()) {
            self.uses_multishot = true;
            let idle_until = self.last_moved + local.limits.idle_deadline;
            deadline.set(idle_until.min(local.ring.now() + ONESHOT_AFTER));
        }
        while deadline.poll_passed(context).is_ready() {
            self.probe(local);
            let (idle_until, ending) = self.idle_until(local);
            if local.ring.now() >= idle_until {
                return Poll::Ready(ending);
            }
            let oneshot_at = self.last_moved + ONESHOT_AFTER;
            if self.uses_multishot && local.ring.now() >= oneshot_at {
                self.up.use_oneshot_polls(local, &self.client);
                self.down.use_oneshot_polls(local, &self.backend);
                self.uses_multishot = self.up.uses_multishot() || self.down.uses_multishot();
                context.waker().wake_by_ref();
                local.ring.stay_awake();
            }
            deadline.set(if self.uses_multishot {
                idle_until.min(oneshot_at.max(local.ring.now() + ONESHOT_AFTER / 2))
            } else {
                idle_until
            });
            if self.up.ending().is_some() && self.client_watch.is_none() {
                self.client_watch = Some(local.ring.failed(&self.client));
            }
            if self.down.ending().is_some() && self.backend_watch.is_none() {
                self.backend_watch = Some(local.ring.failed(&self.backend));
            }
            let _ = has_failed(&mut self.client_watch, context);
            let _ = has_failed(&mut self.backend_watch, context);
        }
        Poll::Pending
    }

    /// How long nothing may move from now on, and how the connection ends then.
    fn idle_until(&self, local: &Local) -> (Instant, Outcome) {
        let limits = &local.limits;
        if self.client_gone {
            let until = self.last_moved + flush_patience(local);
            return (until, Outcome::ClientReset);
        }
        let (patience, ending) = match self.half_closed {
            true if limits.half_closed_deadline < limits.idle_deadline => {
                (limits.half_closed_deadline, Outcome::HalfClosedTimeout)
            }
            _ => (limits.idle_deadline, Outcome::IdleTimeout),
        };
        (self.last_moved + patience, ending)
    }

    fn note_progress(&mut self, local: &Local, protocol: Protocol) {
        let moved = self.up.moved_bytes() + self.down.moved_bytes();
        if moved == self.seen_bytes {
            return;
        }
        self.seen_bytes = moved;
        self.last_moved = local.ring.now();
        if self.down.moved_bytes() > 0 {
            self.note_first_byte(local, protocol);
        }
    }

    /// The backend has answered. Whatever the client did meanwhile, it is waited for no longer.
    fn note_first_byte(&mut self, local: &Local, protocol: Protocol) {
        let Some(head_sent) = self.waiting_for_first_byte.take() else {
            return;
        };
        self.live.answered(local);
        let waited = local.ring.now().saturating_duration_since(head_sent);
        local
            .metrics
            .borrow_mut()
            .record(protocol, Stage::FirstByte, waited);
    }

    fn count(&self, local: &Local) {
        let spliced = self.up.spliced_bytes() + self.down.spliced_bytes();
        let moved = self.up.moved_bytes() + self.down.moved_bytes();
        let mut metrics = local.metrics.borrow_mut();
        metrics.count(Counter::BytesToBackend, self.up.moved_bytes());
        metrics.count(Counter::BytesToClient, self.down.moved_bytes());
        metrics.count(Counter::SplicedBytes, spliced);
        metrics.count(Counter::CopiedBytes, moved - spliced);
    }
}

/// One word for how both directions ended. Whoever reset is named, except a backend that had sent
/// everything and closed, when what came too late was no more than a client's farewell (a TLS
/// close_notify, mostly).
fn outcome(up: Ending, down: Ending) -> Outcome {
    use Ending::{Finished, SourceFailed, TargetClosed, TargetFailed};
    match (up, down) {
        (Finished | TargetClosed, Finished) => Outcome::Relayed,
        (TargetFailed | TargetClosed, _) | (_, SourceFailed) => Outcome::BackendReset,
        (SourceFailed, _) | (_, TargetFailed | TargetClosed) => Outcome::ClientReset,
    }
}

fn target_is_gone(direction: &Direction) -> bool {
    direction.ending().is_some_and(Ending::is_target_gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_that_was_reset_is_named() {
        use Ending::*;
        assert_eq!(outcome(Finished, Finished), Outcome::Relayed);
        assert_eq!(outcome(TargetClosed, Finished), Outcome::Relayed);
        assert_eq!(outcome(Finished, TargetClosed), Outcome::ClientReset);
        assert_eq!(outcome(Finished, SourceFailed), Outcome::BackendReset);
        assert_eq!(outcome(TargetFailed, Finished), Outcome::BackendReset);
        assert_eq!(outcome(TargetFailed, SourceFailed), Outcome::BackendReset);
        assert_eq!(outcome(SourceFailed, Finished), Outcome::ClientReset);
        assert_eq!(outcome(SourceFailed, TargetFailed), Outcome::ClientReset);
        assert_eq!(outcome(Finished, TargetFailed), Outcome::ClientReset);
    }
}
