//! A request: parsed out of what was received, routed, and rewritten for the backend. All of that is one
//! step without a wait, so that nothing borrowed outlives it.

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
use crate::upstream::RemovalWatch;

/// Room for what rewriting may add to a head: mostly the forwarded fields.
const ADDED_BYTES: usize = 256;

/// The path that certificate authorities ask for (RFC 8555 section 8.3).
const ACME_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// One request, ready to be sent.
pub(super) struct Request {
    /// The head for the backend, and as much of the body as came with it.
    pub outgoing: Vec<u8>,
    /// The framing of the rest of the body.
    pub rest: Framing,
    pub route: Arc<Route>,
    pub summary: RequestSummary,
    /// The client is ready for another request after this one.
    pub persistent: bool,
    pub idempotent: bool,
    /// The client asks for another protocol.
    pub upgrade: bool,
    /// The client waits for 100 before it sends the body.
    pub expects_continue: bool,
    /// The backend may leave the body unread and take it for the next request.
    pub has_unexpected_body: bool,
    pub has_body: bool,
    /// Stands for the host, among those that the client asks in turn.
    pub host_key: u64,
    /// Credentials in it authenticate the whole connection to the backend, which must carry no other
    /// client's request after this one.
    pub has_connection_auth: bool,
    pub head_complete: Instant,
    /// The host, where the log, the backend, the look-up table or a [`RemovalWatch`] needs it.
    pub name: Option<Box<Host>>,
    /// Counts the request against its host's limits, where there are any.
    pub permit: Option<Permit>,
}

impl Request {
    /// The host as it stands in the head, which is kept until the request is answered.
    pub(super) fn host_text(&self) -> Option<String> {
        const HOST: &[u8] = b"\r\nHost: ";
        let head = &self.outgoing;
        let begin = head.windows(HOST.len()).position(|part| part == HOST)? + HOST.len();
        let length = head[begin..].iter().position(|byte| *byte == b'\r')?;
        Some(String::from_utf8_lossy(&head[begin..begin + length]).into_owned())
    }
}

/// What a client is to get for a request.
pub(super) enum Incoming {
    /// The response of a backend to this request.
    Request(Request),
    /// A response of the proxy's own.
    OwnResponse(OwnResponse),
}

/// A response that the proxy gives by itself.
pub(super) struct OwnResponse {
    pub bytes: Vec<u8>,
    /// The client's connection may carry another request after it.
    pub persists: bool,
}

/// A request as it was parsed.
pub(super) struct Parsed {
    pub incoming: Incoming,
    /// How many of the received bytes belong to the request.
    pub used_bytes: usize,
}

/// Parses a request from the beginning of `received`. `None` when the head is incomplete.
pub(super) fn parse(
    session: &Session<'_>,
    reader: &mut RequestReader,
    received: &[u8],
    entry: &mut AccessLogEntry,
) -> Result<Option<Parsed>, Outcome> {
    let mut storage = FieldStorage::new();
    let head = match reader.advance(received, &mut storage) {
        Reading::Found(head) => head,
        Reading::More => return Ok(None),
        Reading::Refused(refusal) => return Err(Outcome::Refused(refusal)),
    };
    let head_complete = Instant::now();
    entry.set_request(head.host.as_ref());
    let route = find_route(session, &head, head_complete)?;
    let route = match apply_host_options(route, &head)? {
        AtHost::Route(route) => route,
        AtHost::Redirect => {
            let persists = may_persist(session, &head);
            session.local.count(Counter::Redirects);
            let bytes = redirect(&head, persists).ok_or(Outcome::NoName)?;
            return Ok(Some(own_response(&head, bytes, persists)));
        }
    };
    if head.max_forwards == Some(0) {
        let persists = may_persist(session, &head);
        let bytes = rewrite::final_recipient_response(&head, persists);
        return Ok(Some(own_response(&head, bytes, persists)));
    }
    request(session, &head, received, route, head_complete).map(Some)
}

fn own_response(head: &RequestHead<'_, '_>, bytes: Vec<u8>, persists: bool) -> Parsed {
    Parsed {
        incoming: Incoming::OwnResponse(OwnResponse { bytes, persists }),
        used_bytes: head.head_bytes,
    }
}

/// Looks up the route of the request's host, and records how long that took.
fn find_route(
    session: &Session<'_>,
    head: &RequestHead<'_, '_>,
    head_complete: Instant,
) -> Result<Arc<Route>, Outcome> {
    let route = session.local.route(Protocol::Http, head.host.as_ref())?;
    let spent = head_complete.elapsed();
    let mut metrics = session.local.metrics.borrow_mut();
    metrics.record(Protocol::Http, Stage::Route, spent);
    metrics.count(Counter::Requests, 1);
    if session.requests == 0 {
        let waited = head_complete - session.accepted;
        metrics.record(Protocol::Http, Stage::Head, waited);
    }
    Ok(route)
}

/// Admits the request to its host and rewrites it for the backend.
fn request(
    session: &Session<'_>,
    head: &RequestHead<'_, '_>,
    received: &[u8],
    route: Arc<Route>,
    head_complete: Instant,
) -> Result<Parsed, Outcome> {
    let local = session.local;
    let permit = admit::to_host(local, &route, Protocol::Http, head.host.as_ref())?;
    let behind_head = &received[head.head_bytes..];
    let mut rest = Framing::new(head.body);
    let body_bytes = rest.feed(behind_head).map_err(Outcome::Refused)?;
    let mut outgoing = Vec::with_capacity(head.head_bytes + ADDED_BYTES + body_bytes);
    let forwarding = &local.http.forwarding;
    rewrite::request(head, forwarding, &session.downstream(), &mut outgoing);
    outgoing.extend_from_slice(&behind_head[..body_bytes]);
    let needs_name = AccessLogEntry::is_wanted()
        || route.needs_server_name()
        || local.lookup.is_some()
        || RemovalWatch::is_wanted(&route);
    let request = Request {
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
        host_key: local.idle.borrow().host_key(head.host.as_ref()),
        has_connection_auth: head.has_connection_auth,
        head_complete,
        name: head.host.clone().filter(|_| needs_name).map(Box::new),
        permit,
    };
    Ok(Parsed {
        incoming: Incoming::Request(request),
        used_bytes: head.head_bytes + body_bytes,
    })
}

/// Whether the client's connection may carry another request after a response of the proxy's own.
fn may_persist(session: &Session<'_>, head: &RequestHead<'_, '_>) -> bool {
    let local = session.local;
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

/// Applies the options of the host to the request; most hosts have none.
fn apply_host_options(route: Arc<Route>, head: &RequestHead<'_, '_>) -> Result<AtHost, Outcome> {
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

/// A redirect to the same URL under https; `None` for a request without host. It is a 308, after which the
/// client sends the same method again (RFC 9110 section 15.4.9).
fn redirect(head: &RequestHead<'_, '_>, persists: bool) -> Option<Vec<u8>> {
    let host = head.host.as_ref()?;
    let mut response =
        b"HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nLocation: https://".to_vec();
    response.extend_from_slice(host.as_bytes());
    if !head.path.starts_with(b"/") {
        response.push(b'/');
    }
    for byte in head.path.strip_prefix(b"*").unwrap_or(head.path) {
        match byte {
            b'"' | b'<' | b'>' | b'\\' => response.extend(format!("%{byte:02X}").bytes()),
            _ if byte.is_ascii_graphic() => response.push(*byte),
            _ => response.extend(format!("%{byte:02X}").bytes()),
        }
    }
    response.extend_from_slice(if persists {
        b"\r\n\r\n".as_slice()
    } else {
        b"\r\nConnection: close\r\n\r\n"
    });
    Some(response)
}
