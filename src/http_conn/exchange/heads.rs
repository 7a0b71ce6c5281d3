//! The heads that a response begins with: read, checked and written anew, interim ones (RFC 9110
//! section 15.2) before the final one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Down, Exchange, Finish, HeldHead};
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
    /// Reads response heads; `None`: the body has begun.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Option<Finish>> {
        if let Some(interim) = &mut self.interim {
            let flow = Flow {
                local: self.local,
                source: &self.upstream.socket,
                target: &self.client.socket,
            };
            match interim.poll(flow, &mut Vec::new(), context) {
                Poll::Ready(BodyEnd::Complete) => self.interim = None,
                Poll::Ready(_) => return Poll::Ready(Some(Finish::CutOff(Outcome::ClientReset))),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.awaits_up {
            if !self.up_over && !self.up_failed {
                return Poll::Pending;
            }
            self.awaits_up = false;
            let Down::Head(held) = &mut self.down else {
                unreachable!("heads come before the body")
            };
            let held = std::mem::take(held);
            return Poll::Ready(self.heads(&held.bytes, false));
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
        if held.bytes.is_empty() {
            let answer = self.heads(&buffer[..received], filled);
            return Poll::Ready(answer);
        }
        held.bytes.extend_from_slice(&buffer[..received]);
        let bytes_max = local.limits.response_head_bytes_max;
        if !held.incomplete.should_parse(&held.bytes, bytes_max) {
            return Poll::Ready(None);
        }
        let held = std::mem::take(held);
        drop(buffer);
        Poll::Ready(self.heads(&held.bytes, filled))
    }

    /// The backend has ended its stream or failed before its response began.
    fn unanswered(&self) -> Finish {
        let Down::Head(held) = &self.down else {
            unreachable!("heads come before the body")
        };
        if held.bytes.is_empty() && !self.response_begun {
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
            let mut storage = FieldStorage::new();
            let bytes_max = local.limits.response_head_bytes_max;
            let head =
                match ResponseHead::parse(rest, bytes_max, self.request.summary, &mut storage) {
                    Ok(Some(head)) => head,
                    Ok(None) => {
                        self.down = Down::Head(HeldHead::behind(rest));
                        return self.send_interim(&out);
                    }
                    Err(fault) => return Some(self.broken(fault)),
                };
            let is_early = !self.up_over && !self.up_failed;
            if head.status == 101 && self.request.upgrade && is_early {
                self.awaits_up = true;
                self.down = Down::Head(HeldHead::behind(rest));
                return self.send_interim(&out);
            }
            rest = &rest[head.head_bytes..];
            local.count(Counter::of_response(head.status));
            self.was_continued |= head.status == 100;
            match head.status {
                101 if self.request.upgrade && self.up_over => {
                    self.note_head();
                    rewrite::response(&head, Persistence::Upgrade, &mut out);
                    return Some(self.upgrade(&mut out, rest));
                }
                101 => return Some(self.broken(ResponseFault::UnrequestedUpgrade)),
                // HTTP/1.0 has none (RFC 9110 section 15.2).
                ..200 if self.request.summary.minor_version == 0 => {}
                ..200 => rewrite::response(&head, Persistence::Default, &mut out),
                _ => return self.final_head(&head, rest, filled, &mut out),
            }
        }
    }

    fn send_interim(&mut self, out: &[u8]) -> Option<Finish> {
        if out.is_empty() {
            return None;
        }
        self.response_begun = true;
        let mut relay = BodyRelay::new(Framing::new(Length::None), false);
        if relay.send_first(&self.client.socket, out).is_err() {
            return Some(Finish::CutOff(Outcome::ClientReset));
        }
        self.beside_bytes += out.len() as u64;
        if !relay.is_complete() {
            self.interim = Some(relay);
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
        self.request.outgoing = Vec::new();
        self.upstream.keep_alive_timeout =
            head.keep_alive_timeout.or(self.upstream.keep_alive_timeout);
        self.upstream.has_carried_body |= self.request.has_body;
        // A backend may leave a body unread, and its beginning of a request would be somebody else's.
        let is_own = match self.request.route.reuse() {
            Reuse::Never => true,
            Reuse::Safe => self.upstream.has_carried_body,
            Reuse::Always => false,
        };
        self.upstream.is_bound |=
            is_own || head.has_connection_auth || self.request.has_connection_auth;
        // A request that is not over yet may never be: the client has its answer.
        self.client_goes_on = self.may_go_on
            && self.request.persistent
            && self.up_over
            && !head.ends_with_stream()
            && !self.local.is_draining();
        // A body that the backend may not have read would be its next request.
        let may_be_unread = self.request.has_unexpected_body
            || self.request.expects_continue && !self.was_continued;
        self.backend_goes_on = head.persistent && self.up_over && !may_be_unread;
        let persistence = match (self.client_goes_on, self.request.summary.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Default,
        };
        rewrite::response(head, persistence, out);
        let mut body =
            BodyRelay::for_response(Framing::new(head.body), filled, head.chunked_output);
        let used = match body.frame(rest) {
            Ok(framed) => {
                out.extend_from_slice(&framed.outgoing);
                framed.used
            }
            Err(refusal) => {
                self.rule = Some(refusal.name());
                return Some(self.failed(Outcome::ResponseInvalid));
            }
        };
        // Nothing was asked that this could answer: it is nobody's.
        if used < rest.len() || body.was_normalized() {
            self.backend_goes_on = false;
        }
        self.response_begun = true;
        if body.send_first(&self.client.socket, out).is_err() {
            return Some(Finish::CutOff(Outcome::ClientReset));
        }
        let is_complete = body.is_complete();
        self.down = Down::Body(body);
        is_complete.then(|| self.answered())
    }

    /// What the client does not take yet goes into the tunnel: answers to earlier requests may still
    /// fill its socket, and a reset would destroy them.
    fn upgrade(&mut self, out: &mut Vec<u8>, rest: &[u8]) -> Finish {
        out.extend_from_slice(rest);
        self.response_begun = true;
        let sent = match self.client.socket.send(out) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(_) => return Finish::CutOff(Outcome::ClientReset),
        };
        let mut metrics = self.local.metrics.borrow_mut();
        metrics.count(Counter::BytesFromBackends, sent as u64);
        metrics.count(Counter::CopiedBytes, sent as u64);
        self.beside_bytes += sent as u64;
        Finish::Upgraded(out[sent..].to_vec())
    }

    /// The head breaks this rule.
    fn broken(&mut self, fault: ResponseFault) -> Finish {
        self.rule = Some(fault.name());
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
