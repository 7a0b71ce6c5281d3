//! A request as it is parsed: read out of what was received, routed, and written anew for the
//! backend. All of that in one step without a wait, so that nothing borrowed outlives it.

use std::sync::Arc;
use std::time::Instant;

use super::session::Session;
use crate::client::{AccessLogEntry, admit};
use crate::host::Host;
use crate::http::response::RequestSummary;
use crate::http::{FieldStorage, Framing, Length, Reading, RequestHead, RequestReader, rewrite};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protect::Permit;
use crate::protocol::Protocol;
use crate::route::Route;
use crate::state::Local;
use crate::upstream::RemovalWatch;

/// Room for what rewriting may add to a head: the forwarded fields, mostly.
const ADDED_BYTES: usize = 256;

/// What certificate authorities ask for (RFC 8555 section 8.3).
const ACME_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// One request, ready to be sent.
pub(super) struct Request {
    /// The head for the backend, and as much of the body as came with it.
    pub outgoing: Vec<u8>,
    /// What is left of the body.
    pub rest: Framing,
    pub route: Arc<Route>,
    pub summary: RequestSummary,
    /// Whether the client is ready for another request.
    pub persistent: bool,
    pub idempotent: bool,
    pub upgrade: bool,
    /// Whether the client waits for 100 before it sends its body.
    pub expects_continue: bool,
    /// Whether the backend may leave the body unread and take it for a request.
    pub has_unexpected_body: bool,
    /// Whether it has a body at all.
    pub has_body: bool,
    /// What tells its host from others.
    pub host_key: u64,
    /// Whether the backend's connection is this client's alone from here on.
    pub has_connection_auth: bool,
    pub head_complete: Instant,
    /// For the log and for whoever else is to be told, if anybody.
    pub name: Option<Box<Host>>,
    /// Counts it among those of its host, where that has a limit.
    pub permit: Option<Permit>,
}

impl Request {
    /// The host as it stands in the head, which is there until it is answered.
    pub(super) fn host_text(&self) -> Option<String> {
        const HOST: &[u8] = b"\r\nHost: ";
        let head = &self.outgoing;
        let begin = head.windows(HOST.len()).position(|part| part == HOST)? + HOST.len();
        let length = head[begin..].iter().position(|byte| *byte == b'\r')?;
        Some(String::from_utf8_lossy(&head[begin..begin + length]).into_owned())
    }
}

/// What the bytes received so far amount to.
pub(super) enum Parsed {
    More,
    /// A whole head, and how many of the bytes belong to the request.
    Request(Request, usize),
    /// The proxy answers by itself: with what, how many of the bytes belong to the request, and
    /// whether the connection goes on.
    Answer(Vec<u8>, usize, bool),
}

impl Parsed {
    /// The same, where what belongs to the request was left out already.
    pub(super) fn without_use(self) -> Parsed {
        match self {
            Parsed::More => Parsed::More,
            Parsed::Request(request, _) => Parsed::Request(request, 0),
            Parsed::Answer(answer, _, goes_on) => Parsed::Answer(answer, 0, goes_on),
        }
    }
}

/// Reads a request from the beginning of `received`.
pub(super) fn parse(
    local: &Local,
    session: &Session<'_>,
    reader: &mut RequestReader,
    received: &[u8],
    entry: &mut AccessLogEntry,
) -> Result<Parsed, Outcome> {
    let mut storage = FieldStorage::new();
    let head = match reader.advance(received, &mut storage) {
        Reading::Found(head) => head,
        Reading::More => return Ok(Parsed::More),
        Reading::Refused(refusal) => return Err(Outcome::Refused(refusal)),
    };
    let head_complete = Instant::now();
    entry.set_request(head.host.as_ref());
    let route = local.route(Protocol::Http, head.host.as_ref())?;
    let spent = head_complete.elapsed();
    {
        let mut metrics = local.metrics.borrow_mut();
        metrics.record(Protocol::Http, Stage::Route, spent);
        metrics.count(Counter::Requests, 1);
        if session.requests == 0 {
            let waited = head_complete - session.accepted;
            metrics.record(Protocol::Http, Stage::Head, waited);
        }
    }
    let route = match at_host(route, &head)? {
        AtHost::Route(route) => route,
        AtHost::Redirect => {
            let goes_on = may_go_on(local, session, &head);
            local.count(Counter::Redirects);
            let answer = redirect(&head, goes_on).ok_or(Outcome::NoName)?;
            return Ok(Parsed::Answer(answer, head.head_bytes, goes_on));
        }
    };
    if head.max_forwards == Some(0) {
        let goes_on = may_go_on(local, session, &head);
        let answer = rewrite::final_recipient_response(&head, goes_on);
        return Ok(Parsed::Answer(answer, head.head_bytes, goes_on));
    }
    let permit = admit::to_host(local, &route, Protocol::Http, head.host.as_ref())?;
    let behind = &received[head.head_bytes..];
    let mut rest = Framing::new(head.body);
    let used = rest.feed(behind).map_err(Outcome::Refused)?;
    let mut outgoing = Vec::with_capacity(head.head_bytes + ADDED_BYTES + used);
    rewrite::request(
        &head,
        &local.http.forwarding,
        &session.downstream(local),
        &mut outgoing,
    );
    outgoing.extend_from_slice(&behind[..used]);
    let is_told = AccessLogEntry::is_wanted()
        || route.needs_server_name()
        || local.lookup.is_some()
        || RemovalWatch::is_wanted(&route);
    let mut request = new_request(&head, outgoing, rest, route, permit, head_complete, is_told);
    request.host_key = local.idle.borrow().host_key(head.host.as_ref());
    Ok(Parsed::Request(request, head.head_bytes + used))
}

/// Whether the connection may go on behind an answer of the proxy's own.
fn may_go_on(local: &Local, session: &Session<'_>, head: &RequestHead<'_, '_>) -> bool {
    head.persistent
        && head.minor_version > 0
        && matches!(head.body, Length::None | Length::Bytes(0))
        && !local.is_draining()
        && session.requests + 1 < local.limits.requests_per_connection_max
}

enum AtHost {
    Route(Arc<Route>),
    Redirect,
}

/// What the options of the host make of the request; most hosts have none.
fn at_host(route: Arc<Route>, head: &RequestHead<'_, '_>) -> Result<AtHost, Outcome> {
    let Some(options) = route.options() else {
        return Ok(AtHost::Route(route));
    };
    match &options.acme {
        Some(acme) if head.path.starts_with(ACME_PATH) => Ok(AtHost::Route(acme.clone())),
        _ if options.host.redirects => Ok(AtHost::Redirect),
        _ if options.host.is_unknown => Err(Outcome::UnknownByOption),
        _ => Ok(AtHost::Route(route)),
    }
}

/// The same place under https; `None` for a request without host. 308 keeps the method (RFC 9110
/// section 15.4.9).
fn redirect(head: &RequestHead<'_, '_>, goes_on: bool) -> Option<Vec<u8>> {
    let host = head.host.as_ref()?;
    let mut answer =
        b"HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nLocation: https://".to_vec();
    answer.extend_from_slice(host.as_bytes());
    if !head.path.starts_with(b"/") {
        answer.push(b'/');
    }
    for byte in head.path.strip_prefix(b"*").unwrap_or(head.path) {
        match byte {
            b'"' | b'<' | b'>' | b'\\' => answer.extend(format!("%{byte:02X}").bytes()),
            _ if byte.is_ascii_graphic() => answer.push(*byte),
            _ => answer.extend(format!("%{byte:02X}").bytes()),
        }
    }
    answer.extend_from_slice(if goes_on {
        b"\r\n\r\n".as_slice()
    } else {
        b"\r\nConnection: close\r\n\r\n"
    });
    Some(answer)
}

fn new_request(
    head: &RequestHead<'_, '_>,
    outgoing: Vec<u8>,
    rest: Framing,
    route: Arc<Route>,
    permit: Option<Permit>,
    head_complete: Instant,
    is_told: bool,
) -> Request {
    Request {
        outgoing,
        rest,
        route,
        summary: RequestSummary {
            is_head: head.is_head(),
            minor_version: head.minor_version,
        },
        persistent: head.persistent,
        idempotent: head.is_idempotent(),
        upgrade: head.upgrade,
        expects_continue: head.expects_continue,
        has_unexpected_body: head.has_unexpected_body(),
        has_body: head.has_body(),
        host_key: 0,
        has_connection_auth: head.has_connection_auth,
        head_complete,
        name: head.host.clone().filter(|_| is_told).map(Box::new),
        permit,
    }
}
