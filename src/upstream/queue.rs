//! Waiting until a full backend has a free slot: in the order of arrival, for a bounded time, and no
//! longer than the client stays.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::attempts::{Attempts, QueuedClient};
use super::dial_request::DialRequest;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Operation;
use crate::route::{ClientFinished, Route, Ticket};

/// How often a waiting client chooses again, in case that something else than a slot has changed: a
/// backend is up or down, a backup serves, a host allows more. A free slot wakes it at once.
const CHOOSE_AGAIN: Duration = Duration::from_millis(100);

/// What a waiting client is woken for.
enum Woken {
    SlotGranted,
    ClientLeft,
    ChooseAgain,
}

/// Waits until a backend of the route may have another connection, which `attempts` then tries next.
///
/// # Errors
/// [`Outcome::BackendsFull`] when too many clients wait already, or the wait takes too long;
/// [`Outcome::ClientReset`] when the client has left.
pub(crate) async fn wait_for_slot(
    request: DialRequest<'_>,
    attempts: &mut Attempts,
) -> Result<(), Outcome> {
    // Boxed, since hardly any connection ever waits.
    Box::pin(wait(request, attempts)).await
}

async fn wait(request: DialRequest<'_>, attempts: &mut Attempts) -> Result<(), Outcome> {
    let DialRequest {
        local,
        route,
        client,
        deadline,
        ..
    } = request;
    let by_host = route.options().and_then(|options| options.host.queue_max);
    let queue_max = by_host.unwrap_or(local.limits.queue_max);
    let Some(_queued) = Route::enter_queue(route, queue_max) else {
        return Err(Outcome::BackendsFull);
    };
    local.count(Counter::Queued);
    let ends = local.ring.now() + local.limits.queue_deadline;
    // The same number each time that it enters a queue, so that choosing again does not lose its turn.
    let number = Ticket::next_number();
    let task = local.callable_task();
    let mut client_left = client_left(request);
    loop {
        let QueuedClient { ticket, is_panic } =
            attempts.enter_queues(local, route, number, task.waker());
        deadline.set(ends.min(local.ring.now() + CHOOSE_AGAIN));
        let woken = poll_fn(|context| {
            task.register(context);
            if ticket.has_slot() {
                return Poll::Ready(Woken::SlotGranted);
            }
            if Pin::new(&mut client_left).poll(context).is_ready() {
                return Poll::Ready(Woken::ClientLeft);
            }
            deadline.poll_passed(context).map(|()| Woken::ChooseAgain)
        });
        match woken.await {
            Woken::ClientLeft => return Err(Outcome::ClientReset),
            Woken::ChooseAgain if local.ring.now() >= ends => return Err(Outcome::BackendsFull),
            Woken::SlotGranted | Woken::ChooseAgain => {}
        }
        if let Some(backend) = ticket.take_slot()
            && attempts.admits_queued(local, route, backend, is_panic)
        {
            return Ok(());
        }
        if attempts.need_not_wait(local, route, client) {
            return Ok(());
        }
    }
}

/// Completes when the client has left. A client that has finished sending cannot do a TLS handshake any
/// more. In HTTP it may still read its response, unless the operator says that it has left.
fn client_left(request: DialRequest<'_>) -> Operation {
    let local = request.local;
    let options = request.route.options();
    let by_host = options.and_then(|options| options.host.client_finished);
    let client_finished = by_host.unwrap_or(local.http.client_finished);
    match (request.protocol, client_finished) {
        (Protocol::Tls, _) | (Protocol::Http, ClientFinished::Abort) => {
            local.ring.finished(request.client.socket())
        }
        (Protocol::Http | Protocol::Tcp, _) => local.ring.failed(request.client.socket()),
    }
}
