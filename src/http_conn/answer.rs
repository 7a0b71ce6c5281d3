//! Has one request answered: on an idle connection to the chosen backend, on a new one, or by another
//! backend, as long as sending the request twice does no harm.

use std::future::poll_fn;
use std::rc::Rc;

use super::backend::{Tries, connect, head_of, with_proxy_header};
use super::client_end::ClientStream;
use super::exchange::{Exchange, ExchangeEnd, ExchangeParts};
use super::pool::{self, BackendConnection};
use super::request::Request;
use super::session::Session;
use super::upgrade::tunnel;
use crate::client::{AccessLogEntry, LookupEntry, OpenConnection, failure};
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::state::Local;
use crate::upstream::RemovalWatch;

/// What comes after a request on the client's connection.
pub(super) enum AfterRequest {
    NextRequest,
    /// The client has its response, and the connection is to be closed.
    Close,
    /// The client has been sent nothing of a response: an error response is due, and then the connection
    /// ends with this outcome.
    Refuse(Outcome),
    /// The connection has ended with this outcome.
    Ended(Outcome),
}

/// Has the request answered.
pub(super) async fn answer(
    session: &mut Session<'_>,
    stream: &mut ClientStream,
    mut request: Request,
    entry: &mut AccessLogEntry,
) -> AfterRequest {
    let local = session.local;
    // Only a request whose body is in memory can be sent again.
    let may_repeat = request.rest.is_done() && request.idempotent;
    let mut tries = Tries::default();
    loop {
        let mut upstream = match next_backend(session, &mut request, &mut tries, entry).await {
            Ok(upstream) => upstream,
            Err(outcome) => return AfterRequest::Refuse(outcome),
        };
        let _lookup_entry = lookup_entry(session, &request, &upstream);
        let removal = removal_watch(local, &request, &upstream);
        let exchange = Exchange::new(ExchangeParts {
            local,
            client: stream,
            upstream: &mut upstream,
            request: &mut request,
            may_persist: session.requests < local.limits.requests_per_connection_max,
            removal: removal.as_deref(),
        });
        let Exchanged { end, rule } = run(session, exchange, entry).await;
        if end.is_answer() {
            tries.record_answer(local, &mut upstream);
        }
        let outcome = match end {
            ExchangeEnd::Answered(persistence) => {
                keep(session, &request, upstream, persistence.backend_is_reusable);
                return if persistence.client_persists {
                    AfterRequest::NextRequest
                } else {
                    AfterRequest::Close
                };
            }
            ExchangeEnd::Upgraded(unsent) => {
                // The request counts against its limits for as long as the tunnel lives. The rest of it,
                // which may keep a replaced route alive, is dropped before.
                let _permit = request.permit.take();
                drop(request);
                let outcome = tunnel(session, stream, upstream, Some(unsent), removal, entry).await;
                return AfterRequest::Ended(outcome);
            }
            ExchangeEnd::Unanswered { unsent }
                if (unsent || may_repeat) && may_retry(local, &request, &upstream, &mut tries) =>
            {
                continue;
            }
            ExchangeEnd::Unanswered { .. } => Outcome::BackendClosed,
            ExchangeEnd::Failed(outcome) => outcome,
            ExchangeEnd::Removed if may_repeat && route_again(local, &mut request) => {
                tries.attempts = None;
                continue;
            }
            ExchangeEnd::Removed => return AfterRequest::Refuse(Outcome::BackendRemoved),
            ExchangeEnd::CutOff(outcome) => {
                // A client that reads until the end of the stream must not take the close for that end.
                stream.socket.abort_on_close();
                return AfterRequest::Ended(outcome);
            }
        };
        let backend = Some(upstream.backend.text());
        let (host, attempts) = (|| request.host_text(), tries.attempt_count());
        let outcome = failure::note(local, outcome, host, backend, attempts, rule);
        return AfterRequest::Refuse(outcome);
    }
}

/// What an exchange has come to.
struct Exchanged {
    end: ExchangeEnd,
    /// The rule that the backend's response breaks, if it does.
    rule: Option<&'static str>,
}

async fn run(
    session: &Session<'_>,
    mut exchange: Exchange<'_>,
    entry: &mut AccessLogEntry,
) -> Exchanged {
    let deadline = session.deadline;
    let end = match exchange.begin(deadline) {
        Some(end) => end,
        None => poll_fn(|context| exchange.poll(deadline, context)).await,
    };
    let rule = exchange.broken_rule;
    entry.set_rule(rule);
    let moved = exchange.finish();
    entry.add_bytes(moved.to_backend_bytes, moved.to_client_bytes);
    Exchanged { end, rule }
}

/// A connection to the backend that is asked next. On a new one the request gets the PROXY header that
/// this backend expects.
async fn next_backend(
    session: &mut Session<'_>,
    request: &mut Request,
    tries: &mut Tries,
    entry: &mut AccessLogEntry,
) -> Result<BackendConnection, Outcome> {
    let local = session.local;
    if let Some(without) = tries.without_proxy_header.take() {
        request.outgoing = without;
    }
    let upstream = connect(session, request, tries, entry).await?;
    if upstream.is_reused {
        local.count(Counter::ConnectionsReused);
        return Ok(upstream);
    }
    let (client, name) = (session.client, request.name.as_deref());
    let outgoing = with_proxy_header(local, client, &upstream, name, &request.outgoing, entry)?;
    if let Some(outgoing) = outgoing {
        tries.without_proxy_header = Some(std::mem::replace(&mut request.outgoing, outgoing));
    }
    Ok(upstream)
}

fn lookup_entry(
    session: &Session<'_>,
    request: &Request,
    upstream: &BackendConnection,
) -> Option<Box<LookupEntry>> {
    session.local.lookup.as_ref()?;
    let connection = OpenConnection {
        client: session.client,
        accepted: session.accepted,
        head: &head_of(request.name.as_deref()),
        backend: upstream.backend.text(),
        backend_socket: &upstream.socket,
    };
    LookupEntry::new(session.local, &connection)
}

fn removal_watch(
    local: &Rc<Local>,
    request: &Request,
    upstream: &BackendConnection,
) -> Option<Box<RemovalWatch>> {
    let slot = upstream.backend.backend().slot();
    let name = request.name.as_deref();
    RemovalWatch::new(local, &request.route, Protocol::Http, name, slot)
}

/// Remembers the backend that has answered, and keeps the connection for the next request if it
/// `is_reusable`.
fn keep(
    session: &mut Session<'_>,
    request: &Request,
    mut upstream: BackendConnection,
    is_reusable: bool,
) {
    let backend = upstream.backend.backend();
    session.last = Some((request.route.id(), backend.clone()));
    if is_reusable {
        let max = request.route.connections_max(backend);
        upstream.is_reused = true;
        let (local, owner) = (session.local, &session.owner);
        pool::put(local, upstream, owner, request.host_key, max);
    }
}

/// Whether an unanswered request is sent once more. A request that was sent on an idle connection goes
/// to a new one: the backend has closed the idle one while the request was on its way. When a new
/// connection was closed as well, the next backend gets the request; if that one answers, the first one
/// is to blame.
fn may_retry(
    local: &Local,
    request: &Request,
    upstream: &BackendConnection,
    tries: &mut Tries,
) -> bool {
    tries.needs_new_connection = true;
    if upstream.is_reused {
        local.count(Counter::RetriesStaleConnection);
        return true;
    }
    let attempts = tries.attempts.as_mut();
    let another = attempts.filter(|attempts| attempts.has_another(local, &request.route));
    let Some(attempts) = another else {
        return false;
    };
    attempts.record_unanswered(local, &upstream.backend, Outcome::BackendClosed);
    true
}

/// Looks up the request's route again, since its backend was removed. `false` when the host has no route
/// any more.
fn route_again(local: &Local, request: &mut Request) -> bool {
    let Ok(route) = local.route(Protocol::Http, request.name.as_deref()) else {
        return false;
    };
    request.route = route;
    local.count(Counter::RetriesRemoved);
    true
}
