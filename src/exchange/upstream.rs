//! From an order to a connection to its backend: the client's own, an idle one or a new one, and what
//! a backend is told on a new one before its first request.

use std::time::Instant;

use super::Session;
use super::idle::{self, Upstream};
use super::order::Order;
use crate::client::Client;
use crate::conn::announce::announce;
use crate::conn::{Story, failure};
use crate::dial::{Round, dial};
use crate::host::Host;
use crate::local::Local;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::route::{Choice, Chooser, Chosen, Moment, Reuse, Route};
use crate::sniff::Head;

/// What goes to a backend that wants to be told of its client before the first request; `None`: it
/// does not.
pub(super) fn introduce(
    local: &Local,
    client: &Client,
    upstream: &Upstream,
    name: Option<&Host>,
    received: &[u8],
    story: &mut Story,
) -> Result<Option<Vec<u8>>, Outcome> {
    let Some(version) = upstream.backend.delivery().proxy else {
        return Ok(None);
    };
    let announced = announce(local, client, version, Some(&head_of(name)), received)?;
    story.set_id(announced.id);
    Ok(Some(announced.bytes))
}

pub(super) fn head_of(name: Option<&Host>) -> Head {
    Head {
        name: name.cloned(),
        ..Head::default()
    }
}

/// A connection to a backend of the order's route: the client's own, the last one's idle one, that
/// of another one, or a new one.
pub(super) async fn upstream(
    local: &Local,
    session: &mut Session<'_>,
    order: &Order,
    may_reuse: bool,
    round: &mut Option<Box<Round>>,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<Upstream, Outcome> {
    let route = &order.route;
    if may_reuse && let Some(own) = idle::take_own(local, &session.owner, order.host_key, route) {
        story.set_backend(own.backend.text(), 0);
        return Ok(own);
    }
    let reuse = route.reuse();
    let may_share = may_reuse && reuse != Reuse::Never;
    let may_hold_body = reuse == Reuse::Always;
    let round = match round {
        // One was tried and came to nothing.
        Some(round) => &mut **round,
        None => {
            let mut fresh = Round::new(local);
            let idle = match first(local, session, route, &fresh) {
                Choice::Backend(first) => {
                    let idle =
                        || idle::take(local, &first.backend, first.connections_max, may_hold_body);
                    let idle = may_share.then(idle).flatten();
                    fresh.begin_with(first);
                    idle
                }
                Choice::Full => {
                    fresh
                        .wait_for_place(local, route, Protocol::Http, session.client, deadline)
                        .await?;
                    // Whose place it was has mostly left its connection behind.
                    let idle = |live| idle::take_for(local, live, may_hold_body);
                    fresh.use_place(|live| if may_share { idle(live) } else { Err(live) })
                }
                Choice::Nothing => None,
            };
            if let Some(upstream) = idle {
                story.set_backend(upstream.backend.text(), 0);
                return Ok(upstream);
            }
            &mut **round.insert(Box::new(fresh))
        }
    };
    let began = Instant::now();
    let dialled = dial(
        local,
        route,
        Protocol::Http,
        session.client,
        round,
        deadline,
    )
    .await;
    let dialled = dialled.map_err(|outcome| {
        let (slot, attempts) = round.last_tried();
        let backend = failure::backend_text(route, slot);
        story.set_backend(backend.unwrap_or_default(), attempts);
        failure::note(
            local,
            outcome,
            || order.host_text(),
            backend,
            attempts,
            None,
        )
    })?;
    local
        .metrics
        .borrow_mut()
        .record(Protocol::Http, Stage::Connect, began.elapsed());
    story.set_backend(dialled.backend.text(), dialled.attempts);
    let backend = dialled.backend.backend();
    idle::make_room(local, backend, route.connections_max(backend));
    Ok(Upstream::fresh(dialled))
}

/// The backend to begin with: that of the client's last request, while the route and the backend's
/// health are what they were, or a new choice. Without one, [`dial`] says why.
fn first(local: &Local, session: &mut Session<'_>, route: &Route, round: &Round) -> Choice {
    if let Some((id, last)) = session.last.take()
        && id == route.id()
        && Chooser::is_still_good(route, &last, Moment::of(local.ring.now()))
    {
        return Choice::Backend(Chosen {
            connections_max: route.connections_max(&last),
            backend: last,
            is_trial: false,
            is_last_resort: false,
        });
    }
    round.choose(local, route, session.client)
}
