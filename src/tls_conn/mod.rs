//! The life of one connection whose bytes are relayed unread, from accept to its one [`Outcome`]: read
//! the head, look up the name, connect to a backend, send it the head, relay. Each step is one function
//! below, in that order; whatever ends the connection early comes back as the outcome, and the client
//! is told in one place.

mod connect;
mod hello;
mod race;

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use connect::{Arrival, reach};
use race::Reached;

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
        // Not left to the end, when the client has gone and its address with it.
        let _ = client.peer();
    }
    // Boxed, so that an idle connection does not hold the memory of steps long past.
    // Its place is here and not in what comes out of there, which would be in memory twice.
    let mut reached = None;
    let connecting = connect(
        &local,
        &client,
        protocol,
        &deadline,
        accepted,
        &mut entry,
        &mut reached,
    );
    let connected = until_cut(&local, &deadline, Box::pin(connecting).as_mut()).await;
    let outcome = match (connected, &mut reached) {
        (Some(Ok(())), Some(reached)) => {
            let relaying = pin!(reached.relay.run(&local, protocol, &deadline));
            let relayed = until_cut(&local, &deadline, relaying).await;
            relayed.map_or(Outcome::CutAtDrain, |mut relayed| {
                relayed.bytes_to_backend += reached.head_bytes as u64;
                entry.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
                relayed.outcome
            })
        }
        (Some(Ok(())), None) => unreachable!("a connection that goes on has reached a backend"),
        (Some(Err(outcome)), _) => {
            let telling =
                send_error_response(&local, client.socket(), protocol, outcome, &deadline);
            let told = until_cut(&local, &deadline, Box::pin(telling).as_mut()).await;
            told.map_or(Outcome::CutAtDrain, |()| outcome)
        }
        (None, _) => Outcome::CutAtDrain,
    };
    drop(reached);
    client::reset_if_cut(&local, &client, outcome, &deadline).await;
    let ended = Ended {
        protocol,
        outcome,
        accepted,
        entry: &entry,
    };
    client::close(&local, client, &ended);
}

/// Everything up to the relay, for which there is a backend in `reached` when it has come so far.
async fn connect(
    local: &Rc<Local>,
    client: &Client,
    protocol: Protocol,
    deadline: &Deadline,
    accepted: Instant,
    entry: &mut AccessLogEntry,
    reached: &mut Option<Reached>,
) -> Result<(), Outcome> {
    admit::at_accept(local, client)?;
    deadline.set(accepted + local.limits.head_deadline);
    // A block of its own, so that the head with its name is gone before the next wait, unless
    // somebody is to be told of it.
    let (route, told, received) = {
        let reading = hello::read_head(local, client, protocol);
        let (head, received) = deadline
            .bound(reading)
            .await
            .ok_or(Outcome::HeadTimeout)??;
        let head_complete = Instant::now();
        let name = head.name.as_ref();
        let route = local.route(protocol, name).and_then(|route| {
            let place = admit::to_host(local, &route, protocol, name)?;
            place.into_iter().for_each(|place| client.hold(place));
            Ok(route)
        });
        let mut metrics = local.metrics.borrow_mut();
        metrics.record(protocol, Stage::Head, head_complete - accepted);
        metrics.record(protocol, Stage::Route, head_complete.elapsed());
        let is_told = local.lookup.is_some()
            || route
                .as_ref()
                .is_ok_and(|route| route.tells_names() || RemovalWatch::is_wanted(route));
        let head = (is_told || AccessLogEntry::is_wanted()).then(|| Rc::new(head));
        entry.set_head(head.as_ref());
        let route = route?;
        let told = head.filter(|_| is_told);
        (route, told, received)
    };
    let arrival = Arrival {
        client,
        protocol,
        accepted,
        route,
        told,
        received,
    };
    reach(local, &arrival, deadline, entry, reached).await
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
