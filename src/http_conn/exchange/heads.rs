//! The heads that a response begins with: read, checked and rewritten, interim ones (RFC 9110 section
//! 15.2) before the final one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Exchange, ExchangeEnd, PartialHead, Response};
use crate::http::response::{ResponseFault, ResponseHead};
use crate::http::rewrite::{self, Persistence};
use crate::http::{FieldStorage, Framing, Length};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{BodyEnd, BodyRelay, Flow};
use crate::route::Reuse;
use crate::sys::is_transient;

impl Exchange<'_> {
    /// Reads response heads. `Ready(None)` asks for another poll at once: the body has begun, or there
    /// may be more to read.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Option<ExchangeEnd>> {
        if let Some(interim) = &mut self.interim {
            let flow = Flow {
                local: self.local,
                source: &self.upstream.socket,
                target: &self.client.socket,
            };
            match ready!(interim.poll(flow, &mut Vec::new(), context)) {
                BodyEnd::Complete => self.interim = None,
                _ => return Poll::Ready(Some(ExchangeEnd::CutOff(Outcome::ClientReset))),
            }
        }
        if self.upgrade_waits_for_request {
            if !self.request_sent && !self.request_failed {
                return Poll::Pending;
            }
            self.upgrade_waits_for_request = false;
            let partial = std::mem::take(self.partial_head());
            return Poll::Ready(self.heads(&partial.bytes, false));
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
            Err(error) if is_transient(&error) => return Poll::Ready(None),
            Ok(0) | Err(_) => return Poll::Ready(Some(self.unanswered())),
            Ok(received) => received,
        };
        let filled_buffer = received == buffer.len();
        let partial = self.partial_head();
        if partial.bytes.is_empty() {
            return Poll::Ready(self.heads(&buffer[..received], filled_buffer));
        }
        partial.bytes.extend_from_slice(&buffer[..received]);
        let bytes_max = local.limits.response_head_bytes_max;
        if !partial.incomplete.should_parse(&partial.bytes, bytes_max) {
            return Poll::Ready(None);
        }
        let partial = std::mem::take(partial);
        drop(buffer);
        Poll::Ready(self.heads(&partial.bytes, filled_buffer))
    }

    fn partial_head(&mut self) -> &mut PartialHead {
        match &mut self.response {
            Response::Head(partial) => partial,
            Response::Body(_) => unreachable!("heads come before the body"),
        }
    }

    /// The backend has ended its stream or failed before the body of its response.
    fn unanswered(&mut self) -> ExchangeEnd {
        if self.partial_head().bytes.is_empty() && !self.response_started {
            ExchangeEnd::Unanswered { unsent: false }
        } else {
            self.failed(Outcome::BackendClosed)
        }
    }

    /// Goes through the heads in `received` and sends the client what it gets of them. `filled_buffer`
    /// says that there may be more to read at once.
    fn heads(&mut self, received: &[u8], filled_buffer: bool) -> Option<ExchangeEnd> {
        let local = self.local;
        let mut out = local.scratch.borrow_mut();
        out.clear();
        let mut rest = received;
        loop {
            let mut storage = FieldStorage::new();
            let bytes_max = local.limits.response_head_bytes_max;
            let head =
                match ResponseHead::parse(rest, bytes_max, self.request.summary, &mut storage) {
                    Ok(Some(head)) => head,
                    Ok(None) => {
                        self.response = Response::Head(PartialHead::of(rest));
                        return self.send_interim(&out);
                    }
                    Err(fault) => return Some(self.broken(fault)),
                };
            let is_early = !self.request_sent && !self.request_failed;
            if head.status == 101 && self.request.upgrade && is_early {
                self.upgrade_waits_for_request = true;
                self.response = Response::Head(PartialHead::of(rest));
                return self.send_interim(&out);
            }
            rest = &rest[head.head_bytes..];
            local.count(Counter::of_response(head.status));
            self.was_continued |= head.status == 100;
            match head.status {
                101 if self.request.upgrade && self.request_sent => {
                    self.note_head();
                    rewrite::response(&head, Persistence::Upgrade, &mut out);
                    return Some(self.upgrade(&mut out, rest));
                }
                101 => return Some(self.broken(ResponseFault::UnrequestedUpgrade)),
                // HTTP/1.0 has no interim responses (RFC 9110 section 15.2).
                ..200 if self.request.summary.minor_version == 0 => {}
                ..200 => rewrite::response(&head, Persistence::Default, &mut out),
                _ => return self.final_head(&head, rest, filled_buffer, &mut out),
            }
        }
    }

    fn send_interim(&mut self, out: &[u8]) -> Option<ExchangeEnd> {
        if out.is_empty() {
            return None;
        }
        self.response_started = true;
        let mut relay = BodyRelay::new(Framing::new(Length::None), false);
        if relay.send_first(&self.client.socket, out).is_err() {
            return Some(ExchangeEnd::CutOff(Outcome::ClientReset));
        }
        self.interim_bytes += out.len() as u64;
        if !relay.is_complete() {
            self.interim = Some(relay);
        }
        None
    }

    fn final_head(
        &mut self,
        head: &ResponseHead<'_, '_>,
        rest: &[u8],
        filled_buffer: bool,
        out: &mut Vec<u8>,
    ) -> Option<ExchangeEnd> {
        self.note_head();
        self.request.outgoing = Vec::new();
        self.decide_persistence(head);
        let persistence = match (self.client_persists, self.request.summary.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Default,
        };
        rewrite::response(head, persistence, out);
        let mut body =
            BodyRelay::for_response(Framing::new(head.body), filled_buffer, head.chunked_output);
        let framed = match body.frame(rest) {
            Ok(framed) => framed,
            Err(refusal) => {
                self.broken_rule = Some(refusal.name());
                return Some(self.failed(Outcome::ResponseInvalid));
            }
        };
        out.extend_from_slice(&framed.outgoing);
        // Bytes behind the response answer no request, and go to nobody.
        if framed.used < rest.len() || body.was_normalized() {
            self.backend_is_reusable = false;
        }
        self.response_started = true;
        if body.send_first(&self.client.socket, out).is_err() {
            return Some(ExchangeEnd::CutOff(Outcome::ClientReset));
        }
        let is_complete = body.is_complete();
        self.response = Response::Body(body);
        is_complete.then(|| self.answered())
    }

    /// Decides, from the final head, whether the client's connection may carry another request after
    /// this exchange, and the backend's another request of whom.
    fn decide_persistence(&mut self, head: &ResponseHead<'_, '_>) {
        self.upstream.keep_alive_timeout =
            head.keep_alive_timeout.or(self.upstream.keep_alive_timeout);
        self.upstream.has_carried_body |= self.request.has_body;
        // A backend that has left a body unread takes its bytes for the next request. That request must
        // not become another client's.
        let stays_with_client = match self.request.route.reuse() {
            Reuse::Never => true,
            Reuse::Safe => self.upstream.has_carried_body,
            Reuse::Always => false,
        };
        self.upstream.is_bound |=
            stays_with_client || head.has_connection_auth || self.request.has_connection_auth;
        // A client that has its answer may never send the rest of its request.
        self.client_persists = self.may_persist
            && self.request.persistent
            && self.request_sent
            && !head.ends_with_stream()
            && !self.local.is_draining();
        // As above: the backend may not have read the body, and would take it for the next request.
        let body_may_be_unread = self.request.has_unexpected_body
            || self.request.expects_continue && !self.was_continued;
        self.backend_is_reusable = head.persistent && self.request_sent && !body_may_be_unread;
    }

    /// Ends the exchange with a 101. What the client does not take yet is sent by the tunnel: responses
    /// to earlier requests may still fill the client's socket, and a reset would destroy them.
    fn upgrade(&mut self, out: &mut Vec<u8>, rest: &[u8]) -> ExchangeEnd {
        out.extend_from_slice(rest);
        self.response_started = true;
        let sent = match self.client.socket.send(out) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(_) => return ExchangeEnd::CutOff(Outcome::ClientReset),
        };
        let mut metrics = self.local.metrics.borrow_mut();
        metrics.count(Counter::BytesFromBackends, sent as u64);
        metrics.count(Counter::CopiedBytes, sent as u64);
        self.interim_bytes += sent as u64;
        ExchangeEnd::Upgraded(out[sent..].to_vec())
    }

    /// Ends the exchange because of a head that breaks a rule.
    fn broken(&mut self, fault: ResponseFault) -> ExchangeEnd {
        self.broken_rule = Some(fault.name());
        self.failed(match fault {
            ResponseFault::TooLarge => Outcome::ResponseHeadTooLarge,
            _ => Outcome::ResponseInvalid,
        })
    }

    fn note_head(&mut self) {
        let waited = self.request.head_complete.elapsed();
        let mut metrics = self.local.metrics.borrow_mut();
        metrics.record(Protocol::Http, Stage::Request, waited);
        let waited = self.local.ring.now().saturating_duration_since(self.sent);
        metrics.record(Protocol::Http, Stage::FirstByte, waited);
    }
}
