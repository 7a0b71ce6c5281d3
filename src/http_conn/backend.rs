//! From a request to a connection to its backend: the client's own, an idle one or a new one, and what
//! a backend is told on a new one before its first request.

use std::time::Instant;

use super::pool::{self, BackendConnection};
use super::request::Request;
use super::session::Session;
use crate::client::{AccessLogEntry, Client, failure, write_proxy_header};
use crate::health::Moment;
use crate::host::Host;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::route::{Choice, Chooser, Chosen, Reuse, Route};
use crate::sniff::Head;
use crate::state::Local;
use crate::upstream::{Attempts, dial, wait_for_place};

/// What goes to a backend that wants to be told of its client before the first request; `None`: it
/// does not.
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
    let announced = write_proxy_header(local, client, version, Some(&head_of(name)), received)?;
    entry.set_id(announced.id);
    Ok(Some(announced.bytes))
}

pub(super) fn head_of(name: Option<&Host>) -> Head {
    Head {
        name: name.cloned(),
        ..Head::default()
    }
}

/// A connection to a backend of the request's route: the client's own, the last one's idle one, that
/// of another one, or a new one.
pub(super) async fn connect(
    local: &Local,
    session: &mut Session<'_>,
    request: &Request,
    may_reuse: bool,
    attempts: &mut Option<Box<Attempts>>,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<BackendConnection, Outcome> {
    let route = &request.route;
    if may_reuse && let Some(own) = pool::take_own(local, &session.owner, request.host_key, route) {
        entry.set_backend(own.backend.text(), 0);
        return Ok(own);
    }
    let reuse = route.reuse();
    let may_share = may_reuse && reuse != Reuse::Never;
    let may_hold_body = reuse == Reuse::Always;
    let attempts = match attempts {
        // One was tried and came to nothing.
        Some(attempts) => &mut **attempts,
        None => {
            let mut fresh = Attempts::new(local);
            let idle = match first(local, session, route, &fresh) {
                Choice::Backend(first) => {
                    let idle =
                        || pool::take(local, &first.backend, first.connections_max, may_hold_body);
                    let idle = may_share.then(idle).flatten();
                    fresh.begin_with(first);
                    idle
                }
                Choice::Full => {
                    let (client, attempts) = (session.client, &mut fresh);
                    wait_for_place(local, route, Protocol::Http, client, attempts, deadline)
                        .await?;
                    // Whose place it was has mostly left its connection behind.
                    let idle = |live| pool::take_for(local, live, may_hold_body);
                    fresh.use_place(|live| if may_share { idle(live) } else { Err(live) })
                }
                Choice::Nothing => None,
            };
            if let Some(upstream) = idle {
                entry.set_backend(upstream.backend.text(), 0);
                return Ok(upstream);
            }
            &mut **attempts.insert(Box::new(fresh))
        }
    };
    let began = Instant::now();
    let dialled = dial(
        local,
        route,
        Protocol::Http,
        session.client,
        attempts,
        deadline,
    )
    .await;
    let dialled = dialled.map_err(|outcome| {
        let (slot, attempts) = attempts.last_tried();
        let backend = failure::backend_text(route, slot);
        entry.set_backend(backend.unwrap_or_default(), attempts);
        failure::note(
            local,
            outcome,
            || request.host_text(),
            backend,
            attempts,
            None,
        )
    })?;
    local
        .metrics
        .borrow_mut()
        .record(Protocol::Http, Stage::Connect, began.elapsed());
    entry.set_backend(dialled.backend.text(), dialled.attempts);
    let backend = dialled.backend.backend();
    pool::make_room(local, backend, route.connections_max(backend));
    Ok(BackendConnection::fresh(dialled))
}

/// The backend to begin with: that of the client's last request, while the route and the backend's
/// health are what they were, or a new choice. Without one, [`dial`] says why.
fn first(local: &Local, session: &mut Session<'_>, route: &Route, attempts: &Attempts) -> Choice {
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
