//! One request to a backend and its response back. Both directions move at once, since a backend
//! may answer before it has the whole request; the response begins with heads that are read,
//! checked and written anew, and goes on with a body that is only framed.

use super::body::{Moved, Mover};
use super::client_end::ClientEnd;
use super::idle::Upstream;
use super::order::Order;
use crate::http::response::{FieldRoom, ResponseFault, ResponseHead};
use crate::http::rewrite::{self, Persistence};
use crate::http::{Framing, Length};
use crate::lease::Lease;
use crate::local::Local;
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::sys::is_transient;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What at least must come of a request's body in each span of the body deadline.
const BODY_PROGRESS_BYTES: u64 = 1024;

const POLLERR: u32 = 0x008;
const POLLHUP: u32 = 0x010;

/// How one exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The client has the whole response.
    Answered {
        /// Whether the client may send another request.
        client_goes_on: bool,
        /// Whether nothing more will come on the backend's connection.
        backend_goes_on: bool,
    },
    /// The backend has changed over to the protocol that was asked for, and the client knows.
    Upgraded,
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
    pub fn is_answer(&self) -> bool {
        match self {
            Finish::Answered { .. } | Finish::Upgraded => true,
            Finish::CutOff(outcome) => *outcome != Outcome::ClientReset,
            Finish::Unanswered { .. } | Finish::Removed | Finish::Refused(_) => false,
        }
    }
}

enum Down {
    /// Response heads are awaited; of the next one these bytes are there.
    Head(Vec<u8>),
    Body(Mover),
}

/// One request under way.
pub struct Carry<'s> {
    pub local: &'s Local,
    pub client: &'s mut ClientEnd,
    pub upstream: &'s mut Upstream,
    pub order: &'s mut Order,
    /// Whether this connection may carry another request after this one.
    pub may_go_on: bool,
    lease: Option<&'s Lease>,
    up: Mover,
    up_over: bool,
    /// The backend takes nothing more; it may have answered all the same.
    up_failed: bool,
    /// An interim response that the client's socket had no room for.
    interim: Option<Mover>,
    down: Down,
    client_told: bool,
    /// The backend has asked for the body, so that it will read it.
    was_continued: bool,
    client_goes_on: bool,
    backend_goes_on: bool,
    /// Since when the deadline in force runs.
    since: Instant,
    seen_bytes: u64,
    /// Of the body, when the span of the body deadline began.
    marked_bytes: u64,
}

impl<'s> Carry<'s> {
    pub fn new(
        local: &'s Local,
        client: &'s mut ClientEnd,
        upstream: &'s mut Upstream,
        order: &'s mut Order,
        may_go_on: bool,
        lease: Option<&'s Lease>,
    ) -> Carry<'s> {
        Carry {
            up: Mover::new(order.rest.clone(), false),
            local,
            client,
            upstream,
            order,
            may_go_on,
            lease,
            up_over: false,
            up_failed: false,
            interim: None,
            down: Down::Head(Vec::new()),
            client_told: false,
            was_continued: false,
            client_goes_on: false,
            backend_goes_on: false,
            since: local.ring.now(),
            seen_bytes: 0,
            marked_bytes: 0,
        }
    }

    /// Sends the request; what is to be done next is told by [`Carry::poll`].
    pub fn begin(&mut self, deadline: &Deadline) -> Option<Finish> {
        let begun = self.up.begin(&self.upstream.socket, &self.order.outgoing);
        if begun.is_err() {
            return Some(Finish::Unanswered { unsent: true });
        }
        self.up_over = self.up.is_over();
        self.marked_bytes = self.up.moved_bytes();
        deadline.set(self.due().0);
        None
    }

    pub fn poll(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<Finish> {
        if let Poll::Ready(finish) = self.poll_up(deadline, context) {
            return Poll::Ready(finish);
        }
        loop {
            let is_head = matches!(self.down, Down::Head(_));
            let finish = match is_head {
                true => self.poll_head(context),
                false => self.poll_body(context),
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
        if let Some(lease) = self.lease
            && lease.poll_end(context).is_ready()
        {
            // What is missing of the request must not look like an end to the backend.
            self.upstream.socket.abort_on_close();
            return Poll::Ready(match self.client_told {
                true => Finish::CutOff(Outcome::BackendRemoved),
                false => Finish::Removed,
            });
        }
        self.poll_deadline(deadline, context)
    }

    /// Gives back what it holds, and counts. Nothing is polled behind it.
    pub fn finish(mut self) {
        self.up.finish(self.local, Counter::BytesToBackend);
        // What is left of the request is still under way, and closing upon it would be a reset.
        self.client.has_spoken |= !self.up_over;
        if let Down::Body(mut body) = self.down {
            body.finish(self.local, Counter::BytesToClient);
        }
    }

    fn poll_up(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<Finish> {
        if self.up_over || self.up_failed {
            return Poll::Pending;
        }
        let client = &mut *self.client;
        let moved = self.up.poll(
            self.local,
            &client.socket,
            &self.upstream.socket,
            &mut client.held,
            context,
        );
        let Poll::Ready(moved) = moved else {
            return Poll::Pending;
        };
        match moved {
            Moved::Whole => {
                self.up_over = true;
                self.since = self.local.ring.now();
                deadline.set(self.due().0);
                Poll::Pending
            }
            // What is missing must not look like an end to the backend.
            Moved::CutOff => self.abort(Outcome::BodyCutOff),
            Moved::SourceFailed => self.abort(Outcome::ClientReset),
            Moved::Broken(refusal) => self.abort(Outcome::Refused(refusal)),
            Moved::TargetFailed => {
                self.up_failed = true;
                Poll::Pending
            }
        }
    }

    fn abort(&mut self, outcome: Outcome) -> Poll<Finish> {
        self.upstream.socket.abort_on_close();
        Poll::Ready(self.failed(outcome))
    }

    fn failed(&self, outcome: Outcome) -> Finish {
        if self.client_told {
            Finish::CutOff(outcome)
        } else {
            Finish::Refused(outcome)
        }
    }

    /// Reads response heads; `None`: the body has begun.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Option<Finish>> {
        if let Some(interim) = &mut self.interim {
            let (backend, client) = (&self.upstream.socket, &self.client.socket);
            let moved = interim.poll(self.local, backend, client, &mut Vec::new(), context);
            match moved {
                Poll::Ready(Moved::Whole) => self.interim = None,
                Poll::Ready(_) => return Poll::Ready(Some(Finish::CutOff(Outcome::ClientReset))),
                Poll::Pending => return Poll::Pending,
            }
        }
        let local = self.local;
        let watch = self
            .upstream
            .watch
            .get_or_insert_with(|| local.ring.readable(&self.upstream.socket));
        if Pin::new(watch).poll(context).is_pending() {
            return Poll::Pending;
        }
        self.upstream.watch = None;
        let mut buffer = local.buffer.borrow_mut();
        let received = match self.upstream.socket.recv(&mut buffer) {
            Ok(0) => return Poll::Ready(Some(self.unanswered())),
            Ok(received) => received,
            // Ready(None) takes another turn, which waits.
            Err(error) if is_transient(&error) => return Poll::Ready(None),
            Err(_) => return Poll::Ready(Some(self.unanswered())),
        };
        let filled = received == buffer.len();
        let Down::Head(held) = &mut self.down else {
            unreachable!("heads come before the body")
        };
        if held.is_empty() {
            let answer = self.heads(&buffer[..received], filled);
            return Poll::Ready(answer);
        }
        held.extend_from_slice(&buffer[..received]);
        let held = std::mem::take(held);
        drop(buffer);
        Poll::Ready(self.heads(&held, filled))
    }

    /// The backend has ended its stream or failed before its response began.
    fn unanswered(&self) -> Finish {
        let Down::Head(held) = &self.down else {
            unreachable!("heads come before the body")
        };
        if held.is_empty() && !self.client_told {
            Finish::Unanswered { unsent: false }
        } else {
            self.failed(Outcome::BackendClosed)
        }
    }

    /// Goes through the heads in `received` and sends what the client is to have of it.
    fn heads(&mut self, received: &[u8], filled: bool) -> Option<Finish> {
        let local = self.local;
        let mut out = local.scratch.borrow_mut();
        out.clear();
        let mut rest = received;
        loop {
            let mut room = FieldRoom::new();
            let bytes_max = local.limits.response_head_bytes_max;
            let head = match ResponseHead::parse(rest, bytes_max, self.order.asked, &mut room) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.down = Down::Head(rest.to_vec());
                    return self.send_interim(&out);
                }
                Err(fault) => return Some(self.failed(outcome(fault))),
            };
            rest = &rest[head.head_bytes..];
            local.count(Counter::of_response(head.status));
            self.was_continued |= head.status == 100;
            match head.status {
                101 if self.order.upgrade && self.up_over => {
                    self.note_head();
                    rewrite::response(&head, Persistence::Upgrade, &mut out);
                    return Some(self.upgrade(&mut out, rest));
                }
                101 => return Some(self.failed(Outcome::ResponseInvalid)),
                // HTTP/1.0 has none (RFC 9110 section 15.2).
                ..200 if self.order.asked.minor_version == 0 => {}
                ..200 => rewrite::response(&head, Persistence::Default, &mut out),
                _ => return self.final_head(&head, rest, filled, &mut out),
            }
        }
    }

    fn send_interim(&mut self, out: &[u8]) -> Option<Finish> {
        if out.is_empty() {
            return None;
        }
        self.client_told = true;
        let mut mover = Mover::new(Framing::new(Length::None), false);
        if mover.begin(&self.client.socket, out).is_err() {
            return Some(Finish::CutOff(Outcome::ClientReset));
        }
        if !mover.is_over() {
            self.interim = Some(mover);
        }
        None
    }

    fn final_head(
        &mut self,
        head: &ResponseHead<'_, '_>,
        rest: &[u8],
        filled: bool,
        out: &mut Vec<u8>,
    ) -> Option<Finish> {
        self.note_head();
        self.order.outgoing = Vec::new();
        self.upstream.is_bound |= head.binds_connection || self.order.binds_connection;
        // A request that is not over yet may never be: the client has its answer.
        self.client_goes_on = self.may_go_on
            && self.order.persistent
            && self.up_over
            && head.body != Length::UntilClose
            && !self.local.is_draining();
        // A body that the backend may not have read would be its next request.
        let may_be_unread =
            self.order.has_stray_body || self.order.expects_continue && !self.was_continued;
        self.backend_goes_on = head.persistent && self.up_over && !may_be_unread;
        let persistence = match (self.client_goes_on, self.order.asked.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Default,
        };
        rewrite::response(head, persistence, out);
        let mut framing = Framing::new(head.body);
        let used = match framing.feed(rest) {
            Ok(used) => used,
            Err(_) => return Some(self.failed(Outcome::ResponseInvalid)),
        };
        // Nothing was asked that this could answer: it is nobody's.
        if used < rest.len() {
            self.backend_goes_on = false;
        }
        out.extend_from_slice(&rest[..used]);
        self.client_told = true;
        let mut body = Mover::new(framing, filled);
        if body.begin(&self.client.socket, out).is_err() {
            return Some(Finish::CutOff(Outcome::ClientReset));
        }
        let is_over = body.is_over();
        self.down = Down::Body(body);
        is_over.then(|| self.answered())
    }

    fn upgrade(&mut self, out: &mut Vec<u8>, rest: &[u8]) -> Finish {
        out.extend_from_slice(rest);
        self.client_told = true;
        let mut mover = Mover::new(Framing::new(Length::None), false);
        let begun = mover.begin(&self.client.socket, out);
        let is_whole = begun.is_ok() && mover.is_over();
        self.down = Down::Body(mover);
        // The socket of a client that waits for this answer is empty.
        match is_whole {
            true => Finish::Upgraded,
            false => Finish::CutOff(Outcome::ClientReset),
        }
    }

    fn note_head(&mut self) {
        let waited = self.order.head_complete.elapsed();
        let mut metrics = self.local.metrics.borrow_mut();
        metrics.record(Protocol::Http, Stage::Request, waited);
        let waited = self.local.ring.now().saturating_duration_since(self.since);
        metrics.record(Protocol::Http, Stage::FirstByte, waited);
        drop(metrics);
        self.since = self.local.ring.now();
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
        let (backend, client) = (&self.upstream.socket, &self.client.socket);
        let moved = body.poll(self.local, backend, client, &mut surplus, context);
        let Poll::Ready(moved) = moved else {
            return Poll::Pending;
        };
        self.backend_goes_on &= surplus.is_empty();
        Poll::Ready(Some(match moved {
            Moved::Whole => self.answered(),
            Moved::TargetFailed => Finish::CutOff(Outcome::ClientReset),
            Moved::CutOff | Moved::SourceFailed => Finish::CutOff(Outcome::BackendReset),
            Moved::Broken(_) => Finish::CutOff(Outcome::ResponseInvalid),
        }))
    }

    /// Ready when the client has gone while it is waited for the backend. One that has finished
    /// sending may still be reading; that it has gone then shows when it is written to, since a watch
    /// for errors alone would complete at once for it.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let client = &mut *self.client;
        if self.up_over && !client.has_spoken {
            let local = self.local;
            let watch = client
                .watch
                .get_or_insert_with(|| local.ring.readable(&client.socket));
            if let Poll::Ready(events) = Pin::new(watch).poll(context) {
                let events = events.unwrap_or(POLLERR);
                client.watch = None;
                client.has_spoken = true;
                if events & (POLLERR | POLLHUP) != 0 {
                    return Poll::Ready(Outcome::ClientReset);
                }
            }
        }
        Poll::Pending
    }

    /// When the wait in force ends, and how.
    fn due(&self) -> (Instant, Outcome) {
        let limits = &self.local.limits;
        let after = |span: Duration| self.since + span;
        if matches!(self.down, Down::Body(_)) {
            (after(limits.idle_deadline), Outcome::IdleTimeout)
        } else if self.up_over || self.up_failed || self.up.waits_for_target() {
            (after(limits.response_deadline), Outcome::ResponseTimeout)
        } else {
            (after(limits.body_deadline), Outcome::BodyTimeout)
        }
    }

    /// Progress is looked for only when a deadline passes, so that traffic costs no timer.
    fn poll_deadline(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<Finish> {
        while deadline.poll_passed(context).is_ready() {
            let down_bytes = match &self.down {
                Down::Body(body) => body.moved_bytes(),
                Down::Head(_) => 0,
            };
            let moved = self.up.moved_bytes() + down_bytes;
            let (_, outcome) = self.due();
            let has_progress = match outcome {
                Outcome::BodyTimeout => {
                    self.up.moved_bytes() >= self.marked_bytes + BODY_PROGRESS_BYTES
                }
                _ => moved > self.seen_bytes,
            };
            let (due, outcome) = self.due();
            if self.local.ring.now() >= due {
                if !has_progress {
                    return Poll::Ready(self.failed(outcome));
                }
                self.since = self.local.ring.now();
                self.seen_bytes = moved;
                self.marked_bytes = self.up.moved_bytes();
            }
            deadline.set(self.due().0);
        }
        Poll::Pending
    }
}

fn outcome(fault: ResponseFault) -> Outcome {
    match fault {
        ResponseFault::Invalid => Outcome::ResponseInvalid,
        ResponseFault::TooLarge => Outcome::ResponseHeadTooLarge,
    }
}
