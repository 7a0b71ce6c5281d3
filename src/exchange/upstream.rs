//! From an order to a connection to its backend: the client's own, an idle one or a new one, and what
//! a backend is told on a new one before its first request.

use super::Session;
use super::idle::{self, Upstream};
use super::order::Order;
use crate::client::Client;
use crate::conn::Story;
use crate::conn::announce::announce;
use crate::dial::dial_first;
use crate::local::Local;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::route::{Backend, Host};
use crate::sniff::Head;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What goes to a backend that wants to be told of its client before the first request; `None`: it
/// does not.
pub fn introduce(
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

pub fn head_of(name: Option<&Host>) -> Head {
    Head {
        name: name.cloned(),
        ..Head::default()
    }
}

/// A connection to a backend of the order's route: the client's own, the last one's idle one, that
/// of another one, or a new one.
pub async fn upstream(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    order: &Order,
    may_reuse: bool,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<Upstream, Outcome> {
    let route = &order.route;
    let serves = |backend: &Arc<Backend>| {
        let slot = backend.slot();
        route.backends().iter().any(|other| other.slot() == slot)
    };
    let bound = session.bound.take();
    if let Some(bound) = bound
        && may_reuse
        && bound.socket.is_quiet()
        && serves(bound.backend.backend())
    {
        return Ok(*bound);
    }
    let last = session.last.take();
    let last = last
        .filter(|(id, _)| *id == route.id())
        .map(|(_, last)| last);
    let first = match last {
        Some(last) => Some(last),
        None => local.chooser.borrow_mut().choose(route, &[]),
    };
    if may_reuse
        && let Some(first) = &first
        && let Some(upstream) = idle::take(local, first.slot())
    {
        story.set_backend(upstream.backend.text(), 0);
        return Ok(upstream);
    }
    let began = Instant::now();
    let dialled = dial_first(
        local,
        route,
        first,
        Protocol::Http,
        session.client,
        deadline,
    )
    .await?;
    local
        .metrics
        .borrow_mut()
        .record(Protocol::Http, Stage::Connect, began.elapsed());
    story.set_backend(dialled.backend.text(), dialled.attempts);
    Ok(Upstream::fresh(dialled))
}
