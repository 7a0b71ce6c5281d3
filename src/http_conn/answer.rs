//! Has one request answered: by the backend that is chosen, by a fresh connection to it, or by another
//! backend, for as long as asking twice does no harm.

use std::future::poll_fn;
use std::rc::Rc;

use super::backend::{connect, head_of, with_proxy_header};
use super::client_end::ClientEnd;
use super::exchange::{Exchange, Finish};
use super::pool::{self, BackendConnection};
use super::request::Request;
use super::session::Session;
use super::upgrade::tunnel;
use crate::client::{AccessLogEntry, LookupEntry, OpenConnection, failure};
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::state::Local;
use crate::upstream::{Attempts, RemovalWatch};

/// What the client's connection goes on with.
pub(super) enum Answered {
    NextRequest,
    /// The client has its response, and the connection ends with it.
    Close,
    /// The client is still to be told that its connection ends so.
    Refused(Outcome),
    /// The connection has ended so.
    Over(Outcome),
}

/// What was tried for one request so far.
struct Tries {
    may_reuse: bool,
    attempts: Option<Box<Attempts>>,
    /// The request without the PROXY header of the last backend, where that got one.
    plain: Option<Vec<u8>>,
}

impl Tries {
    /// How many backends were connected to; none where an idle connection was there.
    fn count(&self) -> u32 {
        let attempts = self.attempts.as_ref();
        attempts.map_or(0, |attempts| attempts.last_tried().1)
    }
}

/// Has the request answered, and says what the client's connection goes on with.
pub(super) async fn answer(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    end: &mut ClientEnd,
    mut request: Request,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Answered {
    let may_go_on = session.requests < local.limits.requests_per_connection_max;
    // What came whole can be sent again.
    let may_repeat = request.rest.is_done() && request.idempotent;
    let mut tries = Tries {
        may_reuse: true,
        attempts: None,
        plain: None,
    };
    loop {
        let connected = next_backend(local, session, &mut request, &mut tries, deadline, entry);
        let mut upstream = match connected.await {
            Ok(upstream) => upstream,
            Err(outcome) => return Answered::Refused(outcome),
        };
        let _lookup_entry = lookup_entry(local, session, &request, &upstream);
        let removal = removal_watch(local, &request, &upstream);
        let (removal_of, backend) = (removal.as_deref(), &mut upstream);
        let mut exchange = Exchange::new(local, end, backend, &mut request, may_go_on, removal_of);
        let finish = match exchange.begin(deadline) {
            Some(finish) => finish,
            None => poll_fn(|context| exchange.poll(deadline, context)).await,
        };
        let rule = exchange.rule;
        entry.set_rule(rule);
        let (to_backend, to_client) = exchange.finish();
        entry.add_bytes(to_backend, to_client);
        if finish.is_answer() {
            upstream.backend.answered(local);
            if let Some(attempts) = &mut tries.attempts {
                attempts.answered(local, upstream.backend.backend());
            }
        }
        let attempts = tries.count();
        let refused = |request: &Request, upstream: &BackendConnection, outcome| {
            let backend = Some(upstream.backend.text());
            let host = || request.host_text();
            Answered::Refused(failure::note(local, outcome, host, backend, attempts, rule))
        };
        match finish {
            Finish::Answered {
                client_goes_on,
                backend_goes_on,
            } => {
                keep(local, session, &request, upstream, backend_goes_on);
                return if client_goes_on {
                    Answered::NextRequest
                } else {
                    Answered::Close
                };
            }
            Finish::Upgraded(unsent) => {
                // It counts for as long as it lives; a route that was replaced is not kept that long.
                let _permit = request.permit.take();
                drop(request);
                let unsent = Some(unsent);
                return Answered::Over(
                    tunnel(local, end, upstream, unsent, deadline, removal, entry).await,
                );
            }
            // Where asking twice is no harm.
            Finish::Unanswered { unsent }
                if (unsent || may_repeat) && asks_again(local, &request, &upstream, &mut tries) => {
            }
            Finish::Unanswered { .. } => {
                return refused(&request, &upstream, Outcome::BackendClosed);
            }
            Finish::Removed if may_repeat => {
                request.route = match local.route(Protocol::Http, request.name.as_deref()) {
                    Ok(route) => route,
                    Err(_) => return Answered::Refused(Outcome::BackendRemoved),
                };
                local.count(Counter::RetriesRemoved);
                tries.attempts = None;
            }
            Finish::Removed => return Answered::Refused(Outcome::BackendRemoved),
            Finish::Refused(outcome) => return refused(&request, &upstream, outcome),
            Finish::CutOff(outcome) => {
                // A client that reads until the end must not take this for it.
                end.socket.abort_on_close();
                return Answered::Over(outcome);
            }
        }
    }
}

/// A connection to the backend that is asked next. A new one gets its PROXY header in front of the
/// request, each backend in its own way.
async fn next_backend(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    request: &mut Request,
    tries: &mut Tries,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<BackendConnection, Outcome> {
    if let Some(plain) = tries.plain.take() {
        request.outgoing = plain;
    }
    let (may_reuse, attempts) = (tries.may_reuse, &mut tries.attempts);
    let upstream = connect(
        local, session, request, may_reuse, attempts, deadline, entry,
    )
    .await?;
    if upstream.reused {
        local.count(Counter::ConnectionsReused);
        return Ok(upstream);
    }
    let (client, name) = (session.client, request.name.as_deref());
    let outgoing = with_proxy_header(local, client, &upstream, name, &request.outgoing, entry)?;
    if let Some(outgoing) = outgoing {
        tries.plain = Some(std::mem::replace(&mut request.outgoing, outgoing));
    }
    Ok(upstream)
}

fn lookup_entry(
    local: &Rc<Local>,
    session: &Session<'_>,
    request: &Request,
    upstream: &BackendConnection,
) -> Option<Box<LookupEntry>> {
    local.lookup.as_ref()?;
    let connection = OpenConnection {
        client: session.client,
        accepted: session.accepted,
        head: &head_of(request.name.as_deref()),
        backend: upstream.backend.text(),
        backend_socket: &upstream.socket,
    };
    LookupEntry::new(local, &connection)
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

/// Remembers which backend has answered, and keeps its connection for the next request where it can
/// carry one.
fn keep(
    local: &Local,
    session: &mut Session<'_>,
    request: &Request,
    mut upstream: BackendConnection,
    backend_goes_on: bool,
) {
    let backend = upstream.backend.backend();
    session.last = Some((request.route.id(), backend.clone()));
    if backend_goes_on {
        let max = request.route.connections_max(backend);
        upstream.reused = true;
        pool::put(local, upstream, &session.owner, request.host_key, max);
    }
}

/// Whether an unanswered request is sent once more. One that a kept connection did not answer goes to a
/// fresh one: the backend has closed it while the request was on its way. When a fresh one did the
/// same, another backend is asked, and if that answers, the first is to blame.
fn asks_again(
    local: &Local,
    request: &Request,
    upstream: &BackendConnection,
    tries: &mut Tries,
) -> bool {
    tries.may_reuse = false;
    if upstream.reused {
        local.count(Counter::RetriesStaleConnection);
        return true;
    }
    let attempts = tries.attempts.as_mut();
    let another = attempts.filter(|attempts| attempts.has_another(local, &request.route));
    let Some(attempts) = another else {
        return false;
    };
    attempts.unanswered(local, &upstream.backend, Outcome::BackendClosed);
    true
}
