//! One request to a backend and its response back. Both directions move at once, since a backend
//! may answer before it has the whole request; the response begins with heads, and goes on with a
//! body that is only framed.

mod heads;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::client_end::ClientEnd;
use super::pool::BackendConnection;
use super::request::Request;
use crate::client::Discard;
use crate::http::incomplete_head::IncompleteHead;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::relay::{BodyEnd, BodyRelay, Flow, KEEP_ALIVE_AFTER};
use crate::ring::{Deadline, Events, Operation};
use crate::route::ClientFinished;
use crate::state::Local;
use crate::upstream::RemovalWatch;

/// What at least must come of a request's body in each span of the body deadline.
const BODY_PROGRESS_BYTES: u64 = 1024;

/// How one exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finish {
    /// The client has the whole response.
    Answered {
        /// Whether the client may send another request.
        client_goes_on: bool,
        /// Whether nothing more will come on the backend's connection.
        backend_goes_on: bool,
    },
    /// The backend has changed over to the protocol that was asked for. What the client is told, as
    /// far as its socket had no room for it.
    Upgraded(Vec<u8>),
    /// The backend's connection ended before it said a word.
    Unanswered {
        /// Whether the backend cannot have seen any of the request.
        unsent: bool,
    },
    /// The backend has left the host before the client was told anything.
    Removed,
    /// The exchange failed before the client was told anything.
    Refused(Outcome),
    /// It failed within the response; the client's connection can only be closed.
    CutOff(Outcome),
}

impl Finish {
    /// Whether the backend has begun to answer.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Finish::Answered { .. } | Finish::Upgraded(_) => true,
            Finish::CutOff(outcome) => *outcome != Outcome::ClientReset,
            Finish::Unanswered { .. } | Finish::Removed | Finish::Refused(_) => false,
        }
    }
}

enum Down {
    /// Response heads are awaited.
    Head(HeldHead),
    Body(BodyRelay),
}

/// What is there of the next head.
#[derive(Default)]
struct HeldHead {
    bytes: Vec<u8>,
    incomplete: IncompleteHead,
}

impl HeldHead {
    /// `bytes` were read and are no whole head, or none that is to be answered yet.
    fn behind(bytes: &[u8]) -> HeldHead {
        HeldHead {
            bytes: bytes.to_vec(),
            incomplete: IncompleteHead::new(bytes),
        }
    }
}

/// One request under way.
pub(super) struct Exchange<'s> {
    pub local: &'s Local,
    pub client: &'s mut ClientEnd,
    pub upstream: &'s mut BackendConnection,
    pub request: &'s mut Request,
    /// Whether this connection may carry another request after this one.
    pub may_go_on: bool,
    removal: Option<&'s RemovalWatch>,
    up: BodyRelay,
    up_over: bool,
    /// The backend takes nothing more; it may have answered all the same.
    up_failed: bool,
    discard: Discard,
    /// An interim response that the client's socket had no room for.
    interim: Option<BodyRelay>,
    down: Down,
    /// The held head is 101, and the protocol changes only behind the request.
    awaits_up: bool,
    /// What the client got besides the response: interim ones, and what came with 101.
    beside_bytes: u64,
    response_begun: bool,
    /// The backend has asked for the body, so that it will read it.
    was_continued: bool,
    client_goes_on: bool,
    backend_goes_on: bool,
    /// Since when the client is known to have finished sending.
    client_finished: Option<Instant>,
    /// Completes when a client that is not read from has failed, or has finished where that is not
    /// known yet.
    gone_watch: Option<Operation>,
    /// The rule that the response breaks.
    pub rule: Option<&'static str>,
    /// When the backend had been sent the request, or as much of it as there was.
    sent: Instant,
    patience: Patience,
}

/// The wait in force. Each kind of wait has its own deadline, which begins with it.
struct Patience {
    /// What the connection ends with when it is over.
    outcome: Outcome,
    since: Instant,
    /// What had moved by then.
    bytes: u64,
    /// What the connection's deadline is set to, or later.
    set: Instant,
}

impl<'s> Exchange<'s> {
    pub(super) fn new(
        local: &'s Local,
        client: &'s mut ClientEnd,
        upstream: &'s mut BackendConnection,
        request: &'s mut Request,
        may_go_on: bool,
        removal: Option<&'s RemovalWatch>,
    ) -> Exchange<'s> {
        Exchange {
            up: BodyRelay::new(request.rest.clone(), false),
            local,
            client,
            upstream,
            request,
            may_go_on,
            removal,
            up_over: false,
            up_failed: false,
            discard: Discard::default(),
            interim: None,
            down: Down::Head(HeldHead::default()),
            awaits_up: false,
            beside_bytes: 0,
            response_begun: false,
            was_continued: false,
            client_goes_on: false,
            backend_goes_on: false,
            client_finished: None,
            gone_watch: None,
            rule: None,
            sent: local.ring.now(),
            patience: Patience {
                outcome: Outcome::ResponseTimeout,
                since: local.ring.now(),
                bytes: 0,
                set: local.ring.now(),
            },
        }
    }

    /// Sends the request; what is to be done next is told by [`Exchange::poll`].
    pub(super) fn begin(&mut self, deadline: &Deadline) -> Option<Finish> {
        let begun = self
            .up
            .send_first(&self.upstream.socket, &self.request.outgoing);
        if begun.is_err() {
            return Some(Finish::Unanswered { unsent: true });
        }
        self.up_over = self.up.is_complete();
        self.sent = Instant::now();
        self.begin_patience(self.awaited(), self.sent);
        self.set_deadline(deadline);
        None
    }

    pub(super) fn poll(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<Finish> {
        if let Poll::Ready(finish) = self.poll_up(context) {
            return Poll::Ready(finish);
        }
        loop {
            let is_head = matches!(self.down, Down::Head(_));
            let finish = if is_head {
                self.poll_head(context)
            } else {
                self.poll_body(context)
            };
            match finish {
                Poll::Ready(Some(finish)) => return Poll::Ready(finish),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(outcome) = self.poll_client(context) {
            return Poll::Ready(self.failed(outcome));
        }
        let (drain, span) = (&self.local.drain, self.local.limits.drain);
        if drain.asks_exchange(self.request.head_complete, span) {
            self.upstream.socket.abort_on_close();
            return Poll::Ready(self.failed(Outcome::CutAtDrain));
        }
        if let Some(removal) = self.removal
            && removal.poll_end(context).is_ready()
        {
            // What is missing of the request must not look like an end to the backend.
            self.upstream.socket.abort_on_close();
            return Poll::Ready(if self.response_begun {
                Finish::CutOff(Outcome::BackendRemoved)
            } else {
                Finish::Removed
            });
        }
        self.poll_deadline(deadline, context)
    }

    /// Gives back what it holds, and counts. Nothing is polled behind it.
    /// Gives back how many bytes went to the backend and to the client.
    pub(super) fn finish(mut self) -> (u64, u64) {
        self.up.finish(self.local, Counter::BytesFromClients);
        // What is left of the request is still under way, and closing upon it would be a reset.
        self.client.has_spoken |= !self.up_over;
        let mut to_client = self.beside_bytes;
        if let Down::Body(mut body) = self.down {
            body.finish(self.local, Counter::BytesFromBackends);
            to_client += body.moved_bytes();
        }
        (self.up.moved_bytes(), to_client)
    }

    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<Finish> {
        if self.up_over {
            return Poll::Pending;
        }
        let client = &mut *self.client;
        if self.up_failed {
            self.discard(context);
            return Poll::Pending;
        }
        let flow = Flow {
            local: self.local,
            source: &client.socket,
            target: &self.upstream.socket,
        };
        match ready!(self.up.poll(flow, &mut client.held, context)) {
            BodyEnd::Complete => {
                self.up_over = true;
                self.gone_watch = None;
                self.sent = Instant::now();
                Poll::Pending
            }
            // What is missing must not look like an end to the backend.
            BodyEnd::Truncated => self.abort(Outcome::BodyCutOff),
            BodyEnd::SourceFailed => self.abort(Outcome::ClientReset),
            BodyEnd::Invalid(refusal) => self.abort(Outcome::Refused(refusal)),
            BodyEnd::TargetFailed => {
                self.up_failed = true;
                self.discard(context);
                Poll::Pending
            }
        }
    }

    /// The backend will not have the rest of the request. It is read all the same, since the client
    /// may read nothing before it has sent it; what comes behind the request is another one.
    fn discard(&mut self, context: &mut Context<'_>) {
        if !self.up.has_read_all() {
            let _ = self.discard.poll(self.local, &self.client.socket, context);
        }
    }

    fn abort(&mut self, outcome: Outcome) -> Poll<Finish> {
        self.upstream.socket.abort_on_close();
        Poll::Ready(self.failed(outcome))
    }

    fn failed(&self, outcome: Outcome) -> Finish {
        if self.response_begun {
            Finish::CutOff(outcome)
        } else {
            Finish::Refused(outcome)
        }
    }

    fn answered(&self) -> Finish {
        Finish::Answered {
            client_goes_on: self.client_goes_on,
            backend_goes_on: self.backend_goes_on,
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Finish>> {
        let Down::Body(body) = &mut self.down else {
            unreachable!("the body comes behind the head")
        };
        let mut surplus = Vec::new();
        let flow = Flow {
            local: self.local,
            source: &self.upstream.socket,
            target: &self.client.socket,
        };
        let end = ready!(body.poll(flow, &mut surplus, context));
        self.backend_goes_on &= surplus.is_empty() && !body.was_normalized();
        Poll::Ready(Some(match end {
            BodyEnd::Complete => self.answered(),
            BodyEnd::TargetFailed => Finish::CutOff(Outcome::ClientReset),
            BodyEnd::Truncated | BodyEnd::SourceFailed => Finish::CutOff(Outcome::BackendReset),
            BodyEnd::Invalid(refusal) => {
                self.rule = Some(refusal.name());
                Finish::CutOff(Outcome::ResponseInvalid)
            }
        }))
    }

    /// Ready when the client has gone while it is waited for the backend, or has finished and that
    /// ends its request. A client that has finished sending may still be reading: whether it is, only
    /// what it is sent can tell, which a client that has left answers with a reset.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        if !self.up_over {
            // Nobody reads from the client while its request is stuck.
            if !self.up.waits_for_target() || !ready!(self.poll_gone(context)).has_ended() {
                return Poll::Pending;
            }
            // What is missing must not look like an end to the backend.
            self.upstream.socket.abort_on_close();
            return Poll::Ready(Outcome::ClientReset);
        }
        let client = &mut *self.client;
        if !client.has_spoken {
            let local = self.local;
            let watch = client
                .watch
                .get_or_insert_with(|| local.ring.readable(&client.socket));
            let events = ready!(Pin::new(watch).poll(context));
            client.watch = None;
            client.has_spoken = true;
            if let Some(outcome) = self.client_ended(events) {
                return Poll::Ready(outcome);
            }
        }
        // What it has said is left unread, so the end behind it has to be told apart.
        loop {
            let events = ready!(self.poll_gone(context));
            if let Some(outcome) = self.client_ended(events) {
                return Poll::Ready(outcome);
            }
        }
    }

    /// Ready when the client has failed; also when it has finished, unless that is known or its
    /// request is not over yet.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Events> {
        let (ring, socket) = (&self.local.ring, &self.client.socket);
        let awaits_end = self.up_over && self.client_finished.is_none();
        let watch = self.gone_watch.get_or_insert_with(|| {
            if awaits_end {
                ring.finished(socket)
            } else {
                ring.failed(socket)
            }
        });
        let events = ready!(Pin::new(watch).poll(context));
        self.gone_watch = None;
        Poll::Ready(events)
    }

    /// Takes note of what has become of the client; how the connection ends, if it does.
    fn client_ended(&mut self, events: Events) -> Option<Outcome> {
        if events.has_ended() {
            return Some(Outcome::ClientReset);
        }
        if !events.peer_finished() || self.client_finished.is_some() {
            return None;
        }
        self.client_finished = Some(self.local.ring.now());
        let said = self.request.route.options();
        let said = said.and_then(|options| options.host.client_finished);
        let finished = said.unwrap_or(self.local.http.client_finished);
        (finished == ClientFinished::Abort).then(|| {
            // An end of stream would be left unread by a backend that is at work.
            self.upstream.socket.abort_on_close();
            Outcome::ClientFinished
        })
    }

    /// What is waited for, as how the connection ends when that does not come.
    fn awaited(&self) -> Outcome {
        let waits_for_continue = self.request.expects_continue
            && !self.was_continued
            && self.up.moved_bytes() <= self.request.outgoing.len() as u64;
        if matches!(self.down, Down::Body(_)) {
            Outcome::IdleTimeout
        } else if self.up_over || self.up_failed || self.up.waits_for_target() || waits_for_continue
        {
            Outcome::ResponseTimeout
        } else {
            Outcome::BodyTimeout
        }
    }

    fn moved_bytes(&self) -> u64 {
        let down_bytes = match &self.down {
            Down::Body(body) => body.moved_bytes(),
            Down::Head(_) => 0,
        };
        self.up.moved_bytes() + down_bytes
    }

    fn begin_patience(&mut self, outcome: Outcome, since: Instant) {
        self.patience.outcome = outcome;
        self.patience.since = since;
        self.patience.bytes = self.moved_bytes();
    }

    /// When the wait in force ends.
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

    /// When a client that has finished sending has waited long enough for a byte.
    fn half_closed_due(&self) -> Option<Instant> {
        let since = self.client_finished?.max(self.patience.since);
        Some(since + self.local.limits.half_closed_deadline)
    }

    fn set_deadline(&mut self, deadline: &Deadline) {
        let probed_at = if self.upstream.has_keep_alive {
            None
        } else {
            Some(self.local.ring.now() + KEEP_ALIVE_AFTER)
        };
        let due = self.due();
        self.patience.set = probed_at.map_or(due, |probed_at| due.min(probed_at));
        deadline.set(self.patience.set);
    }

    /// A wait begins anew with another one, and with what it waits for: any byte, and of a request's
    /// body so many. The deadline itself is moved only where it would pass too late, so that traffic
    /// costs no timer.
    fn poll_deadline(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<Finish> {
        let outcome = self.awaited();
        let least = match outcome {
            Outcome::BodyTimeout => BODY_PROGRESS_BYTES,
            _ => 1,
        };
        let now = self.local.ring.now();
        if outcome != self.patience.outcome || self.moved_bytes() >= self.patience.bytes + least {
            self.begin_patience(outcome, now);
        }
        if self.due() < self.patience.set {
            self.set_deadline(deadline);
        }
        while deadline.poll_passed(context).is_ready() {
            if now >= self.due() {
                // What is missing of the request must not look like an end to the backend.
                if !self.up_over {
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
                let keep_alive = self.local.limits.tcp_keep_alive;
                self.upstream.socket.enable_keep_alive(keep_alive);
            }
            self.set_deadline(deadline);
        }
        Poll::Pending
    }
}
