//! Waiting until a full backend has a place: in turn, for a bounded time, and no longer than the client
//! stays.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::attempts::{Attempts, QueuedClient};
use crate::client::Client;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Deadline, Operation};
use crate::route::{ClientFinished, Route, Ticket};
use crate::state::Local;

/// How often one who waits looks whether something else than a place has changed: a backend is back or
/// out, a backup serves, a host allows more. Of places it is told.
const LOOK: Duration = Duration::from_millis(100);

/// What one who waits is woken for.
enum Woken {
    /// A place is its own.
    Place,
    ClientLeft,
    Look,
}

/// Waits until a backend of the route may have another connection, which `attempts` then tries next.
///
/// # Errors
/// [`Outcome::BackendsFull`] when as many wait as may, or it takes too long;
/// [`Outcome::ClientReset`] when the client has left, who leaves the queue with that.
pub(crate) async fn wait_for_place(
    local: &Local,
    route: &Arc<Route>,
    protocol: Protocol,
    client: &Client,
    attempts: &mut Attempts,
    deadline: &Deadline,
) -> Result<(), Outcome> {
    // Boxed, since hardly any connection ever waits.
    Box::pin(wait(local, route, protocol, client, attempts, deadline)).await
}

async fn wait(
    local: &Local,
    route: &Arc<Route>,
    protocol: Protocol,
    client: &Client,
    attempts: &mut Attempts,
    deadline: &Deadline,
) -> Result<(), Outcome> {
    let said = route.options().and_then(|options| options.host.queue_max);
    let queue_max = said.unwrap_or(local.limits.queue_max);
    let Some(_queued) = Route::enter_queue(route, queue_max) else {
        return Err(Outcome::BackendsFull);
    };
    local.count(Counter::Queued);
    let ends = local.ring.now() + local.limits.queue_deadline;
    // Kept for as long as it waits, so that looking again costs nobody its turn.
    let number = Ticket::next_number();
    let task = local.callable_task();
    let mut departure = departure(local, route, protocol, client);
    loop {
        let QueuedClient { ticket, is_panic } =
            attempts.enter_queues(local, route, number, task.waker());
        deadline.set(ends.min(local.ring.now() + LOOK));
        let woken = poll_fn(|context| {
            task.register(context);
            if ticket.has_slot() {
                return Poll::Ready(Woken::Place);
            }
            if Pin::new(&mut departure).poll(context).is_ready() {
                return Poll::Ready(Woken::ClientLeft);
            }
            deadline.poll_passed(context).map(|()| Woken::Look)
        });
        match woken.await {
            Woken::ClientLeft => return Err(Outcome::ClientReset),
            Woken::Look if local.ring.now() >= ends => return Err(Outcome::BackendsFull),
            Woken::Place | Woken::Look => {}
        }
        if let Some(backend) = ticket.take_slot()
            && attempts.admits_queued(local, route, backend, is_panic)
        {
            return Ok(());
        }
        if attempts.finds_room(local, route, client) {
            return Ok(());
        }
    }
}

/// Completes when the client has left. One that has finished sending cannot do a TLS handshake; in HTTP
/// it may still read its answer, where the operator does not say that it has left.
fn departure(local: &Local, route: &Route, protocol: Protocol, client: &Client) -> Operation {
    let said = route.options().map(|options| &options.host);
    let said = said.and_then(|said| said.client_finished);
    let of_http = said.unwrap_or(local.http.client_finished);
    match (protocol, of_http) {
        (Protocol::Tls, _) | (Protocol::Http, ClientFinished::Abort) => {
            local.ring.finished(client.socket())
        }
        (Protocol::Http | Protocol::Tcp, _) => local.ring.failed(client.socket()),
    }
}
