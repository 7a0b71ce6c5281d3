//! One request to a backend and its response back. Both directions move at once, since a backend may
//! answer before it has the whole request. The response begins with heads and goes on with a body, of
//! which only the framing is read.

mod deadlines;
mod heads;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::client_end::ClientStream;
use super::pool::BackendConnection;
use super::request::Request;
use crate::client::Discard;
use crate::http::incomplete_head::IncompleteHead;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::relay::{BodyEnd, BodyRelay, Flow};
use crate::ring::{Deadline, Events, Operation};
use crate::route::ClientFinished;
use crate::state::Local;
use crate::upstream::RemovalWatch;

/// How one exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExchangeEnd {
    /// The client has the whole response.
    Answered(Persists),
    /// The backend has switched to the protocol that the client asked for. Holds the bytes for the
    /// client that its socket had no room for.
    Upgraded(Vec<u8>),
    /// The connection to the backend ended before the backend sent anything.
    Unanswered {
        /// The backend cannot have seen any of the request.
        unsent: bool,
    },
    /// The backend was removed before the client was sent anything.
    Removed,
    /// The exchange failed before the client was sent anything.
    Failed(Outcome),
    /// The exchange failed within the response; the client's connection can only be closed.
    CutOff(Outcome),
}

/// Which connections can go on after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Persists {
    /// The client may send another request on its connection.
    pub client_persists: bool,
    /// The connection to the backend may carry another request.
    pub backend_is_reusable: bool,
}

impl ExchangeEnd {
    /// Whether the backend has begun to answer.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            ExchangeEnd::Answered(_) | ExchangeEnd::Upgraded(_) => true,
            ExchangeEnd::CutOff(outcome) => *outcome != Outcome::ClientReset,
            ExchangeEnd::Unanswered { .. } | ExchangeEnd::Removed | ExchangeEnd::Failed(_) => false,
        }
    }
}

/// Bytes that an exchange has moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct MovedBytes {
    pub to_backend_bytes: u64,
    pub to_client_bytes: u64,
}

/// How far the response has come.
enum Response {
    /// Heads are awaited.
    Head(PartialHead),
    Body(BodyRelay),
}

/// What was received of the next head.
#[derive(Default)]
struct PartialHead {
    bytes: Vec<u8>,
    incomplete: IncompleteHead,
}

impl PartialHead {
    /// These bytes are no complete head, or a complete one that is handled later.
    fn of(bytes: &[u8]) -> PartialHead {
        PartialHead {
            bytes: bytes.to_vec(),
            incomplete: IncompleteHead::new(bytes),
        }
    }
}

/// What an exchange is made of.
pub(super) struct ExchangeParts<'s> {
    pub local: &'s Local,
    pub client: &'s mut ClientStream,
    pub upstream: &'s mut BackendConnection,
    pub request: &'s mut Request,
    /// The client's connection may carry another request after this one.
    pub may_persist: bool,
    pub removal: Option<&'s RemovalWatch>,
}

/// One request under way.
pub(super) struct Exchange<'s> {
    local: &'s Local,
    client: &'s mut ClientStream,
    upstream: &'s mut BackendConnection,
    request: &'s mut Request,
    may_persist: bool,
    removal: Option<&'s RemovalWatch>,
    /// Relays the request: its head, and then its body.
    up: BodyRelay,
    /// The backend has the whole request.
    request_sent: bool,
    /// The backend takes no more of the request; it may have answered all the same.
    request_failed: bool,
    /// Reads the rest of a request that the backend does not take.
    discard: Discard,
    /// An interim response that the client's socket had no room for.
    interim: Option<BodyRelay>,
    response: Response,
    /// The partial head is a 101 that came before the request was sent, behind which the protocol
    /// changes.
    upgrade_waits_for_request: bool,
    /// Bytes to the client that `response` does not count: interim responses, and what came with a 101.
    interim_bytes: u64,
    /// The client was sent a part of the response, interim ones included.
    response_started: bool,
    /// The backend has sent 100, so that it will read the body.
    was_continued: bool,
    client_persists: bool,
    backend_is_reusable: bool,
    /// When the client was found to have finished sending.
    client_finished: Option<Instant>,
    /// Completes when a client that is not read from has failed or, where that is not known yet, has
    /// finished sending.
    gone_watch: Option<Operation>,
    /// The rule that the response breaks.
    pub broken_rule: Option<&'static str>,
    /// When the backend had been sent the request, or as much of it as there was.
    sent: Instant,
    patience: Patience,
}

/// The wait in force. Each kind of wait has a deadline of its own, which begins with the wait.
struct Patience {
    /// How the connection ends when the wait takes too long. Tells the kinds of wait apart.
    outcome: Outcome,
    since: Instant,
    /// How many bytes had been moved at `since`.
    bytes: u64,
    /// When the connection's deadline passes, or earlier.
    set: Instant,
}

impl<'s> Exchange<'s> {
    pub(super) fn new(parts: ExchangeParts<'s>) -> Exchange<'s> {
        let now = parts.local.ring.now();
        Exchange {
            up: BodyRelay::new(parts.request.rest.clone(), false),
            local: parts.local,
            client: parts.client,
            upstream: parts.upstream,
            request: parts.request,
            may_persist: parts.may_persist,
            removal: parts.removal,
            request_sent: false,
            request_failed: false,
            discard: Discard::default(),
            interim: None,
            response: Response::Head(PartialHead::default()),
            upgrade_waits_for_request: false,
            interim_bytes: 0,
            response_started: false,
            was_continued: false,
            client_persists: false,
            backend_is_reusable: false,
            client_finished: None,
            gone_watch: None,
            broken_rule: None,
            sent: now,
            patience: Patience {
                outcome: Outcome::ResponseTimeout,
                since: now,
                bytes: 0,
                set: now,
            },
        }
    }

    /// Sends the request. `None` when the exchange goes on with [`Exchange::poll`].
    pub(super) fn begin(&mut self, deadline: &Deadline) -> Option<ExchangeEnd> {
        let sent = self
            .up
            .send_first(&self.upstream.socket, &self.request.outgoing);
        if sent.is_err() {
            return Some(ExchangeEnd::Unanswered { unsent: true });
        }
        self.request_sent = self.up.is_complete();
        self.sent = Instant::now();
        self.begin_patience(self.awaited(), self.sent);
        self.set_deadline(deadline);
        None
    }

    pub(super) fn poll(
        &mut self,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<ExchangeEnd> {
        if let Poll::Ready(end) = self.poll_request(context) {
            return Poll::Ready(end);
        }
        loop {
            let is_head = matches!(self.response, Response::Head(_));
            let polled = if is_head {
                self.poll_head(context)
            } else {
                self.poll_body(context).map(Some)
            };
            match polled {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
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
            // A reset, so that the backend does not take a request that is cut off for a whole one.
            self.upstream.socket.abort_on_close();
            return Poll::Ready(if self.response_started {
                ExchangeEnd::CutOff(Outcome::BackendRemoved)
            } else {
                ExchangeEnd::Removed
            });
        }
        self.poll_deadline(deadline, context)
    }

    /// Releases what the exchange holds and counts the bytes that it has moved.
    pub(super) fn finish(mut self) -> MovedBytes {
        self.up.finish(self.local, Counter::BytesFromClients);
        // The rest of the request is still on its way, and closing with it unread would be a reset.
        self.client.has_unread |= !self.request_sent;
        let mut to_client_bytes = self.interim_bytes;
        if let Response::Body(mut body) = self.response {
            body.finish(self.local, Counter::BytesFromBackends);
            to_client_bytes += body.moved_bytes();
        }
        MovedBytes {
            to_backend_bytes: self.up.moved_bytes(),
            to_client_bytes,
        }
    }

    /// Relays the request. Ready when that ends the exchange.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<ExchangeEnd> {
        if self.request_sent {
            return Poll::Pending;
        }
        if self.request_failed {
            self.discard(context);
            return Poll::Pending;
        }
        let client = &mut *self.client;
        let flow = Flow {
            local: self.local,
            source: &client.socket,
            target: &self.upstream.socket,
        };
        match ready!(self.up.poll(flow, &mut client.received, context)) {
            BodyEnd::Complete => {
                self.request_sent = true;
                self.gone_watch = None;
                self.sent = Instant::now();
                Poll::Pending
            }
            BodyEnd::Truncated => self.abort(Outcome::BodyCutOff),
            BodyEnd::SourceFailed => self.abort(Outcome::ClientReset),
            BodyEnd::Invalid(refusal) => self.abort(Outcome::Refused(refusal)),
            BodyEnd::TargetFailed => {
                self.request_failed = true;
                self.discard(context);
                Poll::Pending
            }
        }
    }

    /// Reads and drops what the client sends of a request that the backend does not take, since the client
    /// may read nothing before it has sent all of it. A request that was read to its end needs nothing
    /// dropped: what follows is the next request.
    fn discard(&mut self, context: &mut Context<'_>) {
        if !self.up.has_read_all() {
            let _ = self.discard.poll(self.local, &self.client.socket, context);
        }
    }

    /// Ends the exchange with a reset of the backend's connection, so that the backend does not take a
    /// request that is cut off for a whole one.
    fn abort(&mut self, outcome: Outcome) -> Poll<ExchangeEnd> {
        self.upstream.socket.abort_on_close();
        Poll::Ready(self.failed(outcome))
    }

    fn failed(&self, outcome: Outcome) -> ExchangeEnd {
        if self.response_started {
            ExchangeEnd::CutOff(outcome)
        } else {
            ExchangeEnd::Failed(outcome)
        }
    }

    fn answered(&self) -> ExchangeEnd {
        ExchangeEnd::Answered(Persists {
            client_persists: self.client_persists,
            backend_is_reusable: self.backend_is_reusable,
        })
    }

    /// Relays the body of the response.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<ExchangeEnd> {
        let Response::Body(body) = &mut self.response else {
            unreachable!("the body comes after the head")
        };
        let mut excess = Vec::new();
        let flow = Flow {
            local: self.local,
            source: &self.upstream.socket,
            target: &self.client.socket,
        };
        let end = ready!(body.poll(flow, &mut excess, context));
        self.backend_is_reusable &= excess.is_empty() && !body.was_normalized();
        Poll::Ready(match end {
            BodyEnd::Complete => self.answered(),
            BodyEnd::TargetFailed => ExchangeEnd::CutOff(Outcome::ClientReset),
            BodyEnd::Truncated | BodyEnd::SourceFailed => {
                ExchangeEnd::CutOff(Outcome::BackendReset)
            }
            BodyEnd::Invalid(refusal) => {
                self.broken_rule = Some(refusal.name());
                ExchangeEnd::CutOff(Outcome::ResponseInvalid)
            }
        })
    }

    /// Ready when the client has left while the backend is waited for, or has finished sending and its
    /// host takes that for leaving. A client that has finished sending may still be reading. Only sending
    /// to it can tell: a client that has left answers with a reset.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        if !self.request_sent {
            // While the backend takes nothing, nobody reads from the client.
            if !self.up.waits_for_target() || !ready!(self.poll_gone(context)).has_ended() {
                return Poll::Pending;
            }
            // As in `abort`.
            self.upstream.socket.abort_on_close();
            return Poll::Ready(Outcome::ClientReset);
        }
        let client = &mut *self.client;
        if !client.has_unread {
            let local = self.local;
            let watch = client
                .watch
                .get_or_insert_with(|| local.ring.readable(&client.socket));
            let events = ready!(Pin::new(watch).poll(context));
            client.watch = None;
            client.has_unread = true;
            if let Some(outcome) = self.client_ended(events) {
                return Poll::Ready(outcome);
            }
        }
        // What the client has sent stays unread until the response is over, so an end of stream behind it
        // needs a watch of its own.
        loop {
            let events = ready!(self.poll_gone(context));
            if let Some(outcome) = self.client_ended(events) {
                return Poll::Ready(outcome);
            }
        }
    }

    /// Ready when the client has failed. Also when it has finished sending, once the request is sent and
    /// as long as the finish is news.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Events> {
        let (ring, socket) = (&self.local.ring, &self.client.socket);
        let awaits_finish = self.request_sent && self.client_finished.is_none();
        let watch = self.gone_watch.get_or_insert_with(|| {
            if awaits_finish {
                ring.finished(socket)
            } else {
                ring.failed(socket)
            }
        });
        let events = ready!(Pin::new(watch).poll(context));
        self.gone_watch = None;
        Poll::Ready(events)
    }

    /// Notes what has become of the client. Returns how the connection ends, if it ends with that.
    fn client_ended(&mut self, events: Events) -> Option<Outcome> {
        if events.has_ended() {
            return Some(Outcome::ClientReset);
        }
        if !events.peer_finished() || self.client_finished.is_some() {
            return None;
        }
        self.client_finished = Some(self.local.ring.now());
        let options = self.request.route.options();
        let by_host = options.and_then(|options| options.host.client_finished);
        let action = by_host.unwrap_or(self.local.http.client_finished);
        (action == ClientFinished::Abort).then(|| {
            // A reset: a backend at work on the request would not notice an end of stream.
            self.upstream.socket.abort_on_close();
            Outcome::ClientFinished
        })
    }

    fn moved_bytes(&self) -> u64 {
        let response_bytes = match &self.response {
            Response::Body(body) => body.moved_bytes(),
            Response::Head(_) => 0,
        };
        self.up.moved_bytes() + response_bytes
    }
}
