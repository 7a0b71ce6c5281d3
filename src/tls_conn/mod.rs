//! The life of one connection whose bytes are relayed unread, from accept to its one [`Outcome`]: read
//! the head, look up the name, connect to a backend, send it the head, relay. Each step is one function
//! below, in this order. A step that ends the connection early returns the outcome, and one place sends
//! the error response.

mod connect;
mod hello;
mod race;

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use connect::{RoutedClient, connect_to_backend};
use race::Connected;

use crate::client::{self, AccessLogEntry, Client, Ended, admit, send_error_response, until_cut};
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::state::Local;
use crate::sys::Socket;
use crate::upstream::RemovalWatch;

/// Serves one accepted connection, which was counted by [`Local::connection_begins`], to its end.
pub(crate) async fn serve(local: Rc<Local>, client: Socket, protocol: Protocol) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut entry = AccessLogEntry::default();
    if AccessLogEntry::is_wanted() {
        // Asked for now: once the client has gone, the kernel no longer knows its address.
        let _ = client.peer();
    }
    // Boxed, so that an idle connection does not keep the memory of the steps before the relay. The
    // relay is put into this variable and not returned, since it would then be in the task twice.
    let mut connected = None;
    let connecting = connect(
        &local,
        &client,
        protocol,
        &deadline,
        accepted,
        &mut entry,
        &mut connected,
    );
    let result = until_cut(&local, &deadline, Box::pin(connecting).as_mut()).await;
    let outcome = match (result, &mut connected) {
        (Some(Ok(())), Some(connected)) => {
            let relaying = pin!(connected.relay.run(&local, protocol, &deadline));
            let relayed = until_cut(&local, &deadline, relaying).await;
            relayed.map_or(Outcome::CutAtDrain, |mut relayed| {
                relayed.bytes_to_backend += connected.head_bytes as u64;
                entry.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
                relayed.outcome
            })
        }
        (Some(Ok(())), None) => unreachable!("connecting has succeeded"),
        (Some(Err(outcome)), _) => {
            let sending =
                send_error_response(&local, client.socket(), protocol, outcome, &deadline);
            let sent = until_cut(&local, &deadline, Box::pin(sending).as_mut()).await;
            sent.map_or(Outcome::CutAtDrain, |()| outcome)
        }
        (None, _) => Outcome::CutAtDrain,
    };
    drop(connected);
    client::reset_if_cut(&local, &client, outcome, &deadline).await;
    let ended = Ended {
        protocol,
        outcome,
        accepted,
        entry: &entry,
    };
    client::close(&local, client, &ended);
}

/// Everything before the relay, for which the connection to a backend is put into `connected`.
async fn connect(
    local: &Rc<Local>,
    client: &Client,
    protocol: Protocol,
    deadline: &Deadline,
    accepted: Instant,
    entry: &mut AccessLogEntry,
    connected: &mut Option<Connected>,
) -> Result<(), Outcome> {
    admit::at_accept(local, client)?;
    deadline.set(accepted + local.limits.head_deadline);
    // A block of its own, so that the parsed head is dropped before the next wait, unless a later step
    // needs it.
    let routed = {
        let reading = hello::read_head(local, client, protocol);
        let (head, received) = deadline
            .bound(reading)
            .await
            .ok_or(Outcome::HeadTimeout)??;
        let head_complete = Instant::now();
        let name = head.name.as_ref();
        let route = local.route(protocol, name).and_then(|route| {
            let permit = admit::to_host(local, &route, protocol, name)?;
            permit.into_iter().for_each(|permit| client.hold(permit));
            Ok(route)
        });
        let mut metrics = local.metrics.borrow_mut();
        metrics.record(protocol, Stage::Head, head_complete - accepted);
        metrics.record(protocol, Stage::Route, head_complete.elapsed());
        let needs_head = local.lookup.is_some()
            || route
                .as_ref()
                .is_ok_and(|route| route.needs_server_name() || RemovalWatch::is_wanted(route));
        let head = (needs_head || AccessLogEntry::is_wanted()).then(|| Rc::new(head));
        entry.set_head(head.as_ref());
        RoutedClient {
            client,
            protocol,
            accepted,
            route: route?,
            kept_head: head.filter(|_| needs_head),
            received,
        }
    };
    connect_to_backend(local, &routed, deadline, entry, connected).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that a task of this kind takes for as long as it lives.
    fn task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket, Protocol) -> F) -> usize {
        size_of::<F>()
    }

    /// Together with two operations in the ring, a deadline and the executor's own header, an idle
    /// connection is to stay below 1,000 bytes of process memory.
    #[test]
    fn an_idle_connection_is_small() {
        let bytes = task_bytes(serve);
        assert!(bytes <= 592, "the task of a connection takes {bytes} bytes");
    }
}
