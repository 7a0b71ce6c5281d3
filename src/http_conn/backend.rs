//! From a request to a connection to its backend: the client's own, an idle one of the pool, or a new
//! one.

use std::sync::Arc;
use std::time::Instant;

use super::pool::{self, BackendConnection};
use super::request::Request;
use super::session::Session;
use crate::client::{AccessLogEntry, Client, write_proxy_header};
use crate::health::Moment;
use crate::host::Host;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::route::{Choice, Chooser, Chosen, Reuse, Route};
use crate::sniff::Head;
use crate::state::Local;
use crate::upstream::{Attempts, DialRequest, dial, wait_for_slot};

/// What was tried for one request so far.
#[derive(Default)]
pub(super) struct Tries {
    /// An idle connection has failed for this request: only new ones are used from now on.
    pub needs_new_connection: bool,
    /// `None` until a new connection is needed.
    pub attempts: Option<Box<Attempts>>,
    /// The request as it was before the last backend's PROXY header was put in front of it.
    pub without_proxy_header: Option<Vec<u8>>,
}

impl Tries {
    /// How many backends were connected to; none where an idle connection was used.
    pub(super) fn attempt_count(&self) -> u32 {
        let attempts = self.attempts.as_ref();
        attempts.map_or(0, |attempts| attempts.count())
    }

    /// Notes that the backend of this connection has answered.
    pub(super) fn record_answer(&mut self, local: &Local, upstream: &mut BackendConnection) {
        upstream.backend.record_answer(local);
        if let Some(attempts) = &mut self.attempts {
            attempts.record_answer(local, upstream.backend.backend());
        }
    }
}

/// The PROXY header for a new connection, with `received` behind it. `None` for a backend that expects no
/// header.
pub(super) fn with_proxy_header(
    local: &Local,
    client: &Client,
    upstream: &BackendConnection,
    name: Option<&Host>,
    received: &[u8],
    entry: &mut AccessLogEntry,
) -> Result<Option<Vec<u8>>, Outcome> {
    let Some(version) = upstream.backend.delivery().proxy else {
        return Ok(None);
    };
    let with_proxy = write_proxy_header(local, client, version, Some(&head_of(name)), received)?;
    entry.set_id(with_proxy.id);
    Ok(Some(with_proxy.bytes))
}

pub(super) fn head_of(name: Option<&Host>) -> Head {
    Head {
        name: name.cloned(),
        ..Head::default()
    }
}

/// A connection to a backend of the request's route. In this order: one that is the client's own, an idle
/// one to the backend of the client's last request, an idle one to a newly chosen backend, a new one.
pub(super) async fn connect(
    session: &mut Session<'_>,
    request: &Request,
    tries: &mut Tries,
    entry: &mut AccessLogEntry,
) -> Result<BackendConnection, Outcome> {
    let (local, route) = (session.local, &request.route);
    let may_reuse = !tries.needs_new_connection;
    if may_reuse
        && let Some(owned) = pool::take_owned(local, &session.owner, request.host_key, route)
    {
        entry.set_backend(owned.backend.text(), 0);
        return Ok(owned);
    }
    let attempts = match &mut tries.attempts {
        // A new connection was tried before and has failed.
        Some(attempts) => &mut **attempts,
        none => {
            let mut attempts = Attempts::new(local);
            let idle = begin(session, route, &mut attempts, may_reuse).await?;
            if let Some(upstream) = idle {
                entry.set_backend(upstream.backend.text(), 0);
                return Ok(upstream);
            }
            &mut **none.insert(Box::new(attempts))
        }
    };
    let began = Instant::now();
    let dialled = dial(dial_request(session, route), attempts)
        .await
        .map_err(|outcome| {
            let host = || request.host_text();
            attempts.log_failure(local, route, outcome, host, entry)
        })?;
    local
        .metrics
        .borrow_mut()
        .record(Protocol::Http, Stage::Connect, began.elapsed());
    entry.set_backend(dialled.backend.text(), dialled.attempts);
    let backend = dialled.backend.backend();
    pool::evict_owned(local, backend, route.connections_max(backend));
    Ok(BackendConnection::new(dialled))
}

/// What connecting to a backend of this route has to know of the client.
pub(super) fn dial_request<'d>(session: &'d Session<'_>, route: &'d Arc<Route>) -> DialRequest<'d> {
    DialRequest {
        local: session.local,
        route,
        protocol: Protocol::Http,
        client: session.client,
        deadline: session.deadline,
    }
}

/// Chooses the backend to begin with, waits for it where it is full, and takes an idle connection to it
/// where there is one that may be used. Otherwise `attempts` begins with it.
async fn begin(
    session: &mut Session<'_>,
    route: &Arc<Route>,
    attempts: &mut Attempts,
    may_reuse: bool,
) -> Result<Option<BackendConnection>, Outcome> {
    let local = session.local;
    let reuse = route.reuse();
    let may_share = may_reuse && reuse != Reuse::Never;
    let may_hold_body = reuse == Reuse::Always;
    Ok(match first(session, route, attempts) {
        Choice::Backend(first) => {
            let idle = if may_share {
                pool::take(local, &first.backend, first.connections_max, may_hold_body)
            } else {
                None
            };
            attempts.begin_with(first);
            idle
        }
        Choice::Full => {
            wait_for_slot(dial_request(session, route), attempts).await?;
            // The request that has freed the slot has mostly left an idle connection.
            attempts.use_granted_slot(|live| {
                if may_share {
                    pool::take_for(local, live, may_hold_body)
                } else {
                    Err(live)
                }
            })
        }
        Choice::Nothing => None,
    })
}

/// The backend to begin with: that of the client's last request, as long as the route and the backend's
/// health are unchanged, or else a new choice. When there is none, [`dial`] says why.
fn first(session: &mut Session<'_>, route: &Route, attempts: &Attempts) -> Choice {
    let local = session.local;
    if let Some((id, last)) = session.last.take()
        && id == route.id()
        && Chooser::is_still_good(route, &last, Moment::of(local.ring.now()))
    {
        return Choice::Backend(Chosen {
            connections_max: route.connections_max(&last),
            backend: last,
            is_probe: false,
            is_panic: false,
        });
    }
    attempts.choose(local, route, session.client)
}
