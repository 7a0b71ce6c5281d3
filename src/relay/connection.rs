//! One connection whose bytes are relayed in both directions until both have ended.
//!
//! Half-close is passed on exactly: a side that ends its stream may still receive. A reset is passed on
//! as a reset, but only behind every byte that was received before it. Both directions live in one task
//! and share nothing but the two sockets; [`Direction`] is one of them.

mod deadlines;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::carried::Flow;
use super::direction::{Direction, Ending};
use crate::client::{flush_patience, pass_reset_on};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Deadline, Operation, has_failed};
use crate::state::Local;
use crate::sys::Socket;
use crate::upstream::{LiveBackend, RemovalWatch};

/// A connection to a backend that has lived for this long gets TCP keep-alive. That takes four system
/// calls, 2 µs, and most connections of a busy proxy have ended before.
pub(crate) const KEEP_ALIVE_AFTER: Duration = Duration::from_millis(200);
/// How long a client whose backend was removed has to acknowledge what it was sent. Short, because the
/// operator has asked for the connection to end.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(1);

/// What is known once a relay has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relayed {
    pub outcome: Outcome,
    pub bytes_to_backend: u64,
    pub bytes_to_client: u64,
}

/// What a relay is made of.
pub(crate) struct RelayParts {
    pub client: Socket,
    pub backend: Socket,
    /// Counts the connection as one of the backend's, and records the backend's answer.
    pub live: LiveBackend,
    /// Ends the connection when its backend is removed; `None` where the host keeps such connections.
    pub removal: Option<Box<RemovalWatch>>,
    /// When the head had been sent to the backend.
    pub head_sent: Instant,
}

/// Both sockets of one connection and the bytes between them.
pub(crate) struct Relay {
    client: Socket,
    backend: Socket,
    live: LiveBackend,
    removal: Option<Box<RemovalWatch>>,
    /// From the client to the backend.
    up: Direction,
    /// From the backend to the client.
    down: Direction,
    /// Completes when the client's socket fails while nobody reads from it.
    client_watch: Option<Operation>,
    /// The same for the backend's socket.
    backend_watch: Option<Operation>,
    /// When the head had been sent; `None` once the backend's first byte has come.
    awaits_first_byte_since: Option<Instant>,
    /// Bytes moved in both directions when [`Relay::note_progress`] was last called.
    noted_bytes: u64,
    last_moved: Instant,
    /// A direction uses a multishot poll, and the deadline has been set for `ONESHOT_AFTER`.
    uses_multishot: bool,
    /// One side has ended its stream; idle time counts from then on.
    is_half_closed: bool,
    /// The client has failed, and the backend is still being given what the client had sent before.
    is_client_gone: bool,
    /// The client's end of stream was passed on to the backend, or need not be.
    end_passed_to_backend: bool,
    /// The backend's end of stream was passed on to the client, or need not be.
    end_passed_to_client: bool,
    /// The backend's socket has TCP keep-alive.
    has_keep_alive: bool,
}

/// The first thing that happens on a connection whose head has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstEvent {
    /// The backend's first byte has come and is on its way to the client.
    BackendAnswered,
    /// The client has sent more than its head, which is kept nowhere, or has finished or failed.
    ClientActive,
    /// The backend has closed or reset without sending a byte. The client has been sent nothing.
    BackendEnded(Outcome),
    /// The backend was removed and has not sent a byte.
    BackendRemoved,
}

impl Relay {
    pub(crate) fn new(parts: RelayParts) -> Relay {
        Relay {
            client: parts.client,
            backend: parts.backend,
            live: parts.live,
            removal: parts.removal,
            up: Direction::new(true),
            down: Direction::new(false),
            client_watch: None,
            backend_watch: None,
            awaits_first_byte_since: Some(parts.head_sent),
            noted_bytes: 0,
            last_moved: parts.head_sent,
            uses_multishot: false,
            is_half_closed: false,
            is_client_gone: false,
            end_passed_to_backend: false,
            end_passed_to_client: false,
            has_keep_alive: false,
        }
    }

    /// Sends bytes that were received before: to the backend and, where the backend has answered by now,
    /// to the client.
    pub(crate) fn carry_first(&mut self, to_backend: Vec<u8>, to_client: Option<Vec<u8>>) {
        self.up.carry_first(to_backend);
        if let Some(to_client) = to_client {
            self.down.carry_first(to_client);
            self.awaits_first_byte_since = None;
        }
    }

    /// Relays until the [`FirstEvent`]. After any of them [`Relay::run`] can go on: the client has been
    /// sent nothing but what the backend sent.
    pub(crate) fn poll_first_event(
        &mut self,
        local: &Local,
        protocol: Protocol,
        context: &mut Context<'_>,
    ) -> Poll<FirstEvent> {
        let up = self.poll_up(local, context);
        if up.is_ready() || self.up.moved_bytes() > 0 || self.up.waits_for_target() {
            self.note_progress(local, protocol);
            return Poll::Ready(FirstEvent::ClientActive);
        }
        self.poll_first_answer(local, protocol, context)
    }

    /// As [`Relay::poll_first_event`], but reads nothing from the client, whose further bytes belong to
    /// another backend unless this one answers first.
    pub(crate) fn poll_first_answer(
        &mut self,
        local: &Local,
        protocol: Protocol,
        context: &mut Context<'_>,
    ) -> Poll<FirstEvent> {
        let down = self.poll_down(local, context);
        self.note_progress(local, protocol);
        if self.down.moved_bytes() > 0 || self.down.waits_for_target() {
            // Noted also while the client takes nothing yet.
            self.note_first_byte(local, protocol);
            return Poll::Ready(FirstEvent::BackendAnswered);
        }
        match down {
            Poll::Ready(Ending::Finished) => {
                Poll::Ready(FirstEvent::BackendEnded(Outcome::BackendClosed))
            }
            Poll::Ready(Ending::SourceFailed) => {
                Poll::Ready(FirstEvent::BackendEnded(Outcome::BackendReset))
            }
            Poll::Ready(_) => Poll::Ready(FirstEvent::ClientActive),
            Poll::Pending if self.removal_ends(context) => Poll::Ready(FirstEvent::BackendRemoved),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The connection as its backend counts it.
    pub(crate) fn live(&self) -> &LiveBackend {
        &self.live
    }

    /// Takes the backend's accept for its answer. For protocols in which the backend need not be the
    /// first to send.
    pub(crate) fn accept_is_answer(&mut self, local: &Local) {
        self.live.record_answer(local);
    }

    /// When the deadline is set first for something that ends at `ends`: earlier where TCP keep-alive
    /// has yet to be enabled.
    fn keep_alive_or(&self, local: &Local, ends: Instant) -> Instant {
        if self.has_keep_alive {
            ends
        } else {
            ends.min(local.ring.now() + KEEP_ALIVE_AFTER)
        }
    }

    /// Has the kernel notice when the backend vanishes.
    pub(crate) fn enable_keep_alive(&mut self, local: &Local) {
        if !std::mem::replace(&mut self.has_keep_alive, true) {
            self.backend.enable_keep_alive(local.limits.tcp_keep_alive);
        }
    }

    /// Whether the backend was removed and the connection has to end.
    fn removal_ends(&self, context: &Context<'_>) -> bool {
        let removal = self.removal.as_ref();
        removal.is_some_and(|removal| removal.poll_end(context).is_ready())
    }

    /// Stops both directions and drops the bytes under way.
    pub(crate) fn abandon(&mut self, local: &Local) {
        self.up.abandon(local);
        self.down.abandon(local);
    }

    /// Relays until the connection has ended. `deadline` is the connection's own and free for use here.
    pub(crate) async fn run(
        &mut self,
        local: &Local,
        protocol: Protocol,
        deadline: &Deadline,
    ) -> Relayed {
        deadline.set(self.keep_alive_or(local, local.ring.now() + local.limits.idle_deadline));
        let outcome = poll_fn(|context| self.poll(local, protocol, deadline, context)).await;
        self.abandon(local);
        self.client_watch = None;
        self.backend_watch = None;
        // A target that has failed itself gets no reset.
        match outcome {
            Outcome::BackendReset if !target_is_gone(&self.down) => {
                Box::pin(pass_reset_on(local, &self.client, deadline, None)).await;
            }
            Outcome::ClientReset if !target_is_gone(&self.up) => {
                Box::pin(pass_reset_on(local, &self.backend, deadline, None)).await;
            }
            // The side that still waits for an end of stream must not take the close for one.
            Outcome::HalfClosedTimeout => {
                let waiting = match self.up.ending() {
                    Some(_) => &self.client,
                    None => &self.backend,
                };
                Box::pin(pass_reset_on(local, waiting, deadline, None)).await;
            }
            // Both sides are reset. An end of stream would be taken for the regular end of a protocol
            // without framing, and by many clients for the regular end of a TLS stream, too.
            Outcome::BackendRemoved => {
                self.backend.abort_on_close();
                let by = Some(local.ring.now() + REMOVAL_PATIENCE);
                Box::pin(pass_reset_on(local, &self.client, deadline, by)).await;
            }
            Outcome::IdleTimeout => {
                self.backend.abort_on_close();
                self.client.abort_on_close();
            }
            // The caller resets the client.
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

    fn poll_up(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<Ending> {
        let flow = Flow {
            local,
            source: &self.client,
            target: &self.backend,
        };
        self.up.poll(flow, context)
    }

    fn poll_down(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<Ending> {
        let flow = Flow {
            local,
            source: &self.backend,
            target: &self.client,
        };
        self.down.poll(flow, context)
    }

    fn poll(
        &mut self,
        local: &Local,
        protocol: Protocol,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Outcome> {
        let up = self.poll_up(local, context);
        if up == Poll::Ready(Ending::Finished)
            && !std::mem::replace(&mut self.end_passed_to_backend, true)
            && self.down.ending().is_none()
        {
            self.backend.shutdown_write();
        }
        let down = self.poll_down(local, context);
        if down == Poll::Ready(Ending::Finished)
            && !std::mem::replace(&mut self.end_passed_to_client, true)
            && self.up.ending().is_none()
        {
            self.client.shutdown_write();
        }
        self.note_progress(local, protocol);
        match (up, down) {
            (Poll::Ready(up), Poll::Ready(down)) => return Poll::Ready(outcome(up, down)),
            // The failed side has no bytes left that were not passed on, and takes none: the other
            // direction cannot go on either.
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
            if !self.is_client_gone {
                self.is_client_gone = true;
                deadline.set(local.ring.now() + flush_patience(local));
            }
        }
        // After the directions, so that a client that takes bytes gets all that the backend has sent.
        if self.removal_ends(context) {
            return Poll::Ready(Outcome::BackendRemoved);
        }
        if local.drain.asks_relays() {
            return Poll::Ready(Outcome::CutAtDrain);
        }
        self.poll_deadline(local, deadline, context)
    }

    fn note_progress(&mut self, local: &Local, protocol: Protocol) {
        let moved = self.up.moved_bytes() + self.down.moved_bytes();
        if moved == self.noted_bytes {
            return;
        }
        self.noted_bytes = moved;
        self.last_moved = local.ring.now();
        if self.down.moved_bytes() > 0 {
            self.note_first_byte(local, protocol);
        }
    }

    /// Notes that the backend has answered, the first time that it is called.
    fn note_first_byte(&mut self, local: &Local, protocol: Protocol) {
        let Some(head_sent) = self.awaits_first_byte_since.take() else {
            return;
        };
        self.live.record_answer(local);
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
        metrics.count(Counter::BytesFromClients, self.up.moved_bytes());
        metrics.count(Counter::BytesFromBackends, self.down.moved_bytes());
        metrics.count(Counter::SplicedBytes, spliced);
        metrics.count(Counter::CopiedBytes, moved - spliced);
    }
}

/// How the connection has ended, from how its two directions have. The side that reset the connection is
/// named. The exception is a backend that had sent everything and closed: when it resets upon what the
/// client sends late, mostly a TLS close_notify, the connection was relayed.
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
    fn the_side_that_reset_the_connection_is_named() {
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
