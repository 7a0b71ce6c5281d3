//! The life of one connection, from accept to its one [`Outcome`]: read the head, look up the
//! name, connect to a backend, send it the head, relay. Each step is one function below, in that
//! order; whatever ends the connection early comes back as the outcome and is told to the client
//! in one place.

pub(crate) mod admit;
pub(crate) mod announce;
mod contest;
pub(crate) mod failure;
pub(crate) mod head;
pub(crate) mod linger;
pub(crate) mod listed;

mod reach;
pub(crate) mod send;
mod story;

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

pub(crate) use failure::FailureLog;
use linger::linger;
use reach::{Arrival, Reached, reach};
pub(crate) use story::Story;

use crate::client::Client;
use crate::drain::{CUT_PATIENCE, until_cut};
use crate::lease::Lease;
use crate::local::Local;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::pass_reset_on;
use crate::ring::Deadline;
use crate::sys::Socket;
use crate::{exchange, reply};

/// Serves one accepted connection of the HTTP port, as [`serve`] does those of the TLS port. A task
/// of another kind, because between two requests it is smaller than one that relays.
pub(crate) async fn serve_http(local: Rc<Local>, client: Socket) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut story = Story::default();
    if Story::is_wanted() {
        let _ = client.peer();
    }
    let outcome = {
        let serving = pin!(exchange::serve(
            &local, &client, &deadline, accepted, &mut story
        ));
        until_cut(&local, &deadline, serving).await
    };
    let outcome = outcome.unwrap_or(Outcome::CutAtDrain);
    cut(&local, &client, outcome, &deadline).await;
    end(&local, client, Protocol::Http, outcome, accepted, &story);
}

/// Serves one accepted connection, which was counted by [`Local::connection_begins`], to its end.
pub(crate) async fn serve(local: Rc<Local>, client: Socket, protocol: Protocol) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut story = Story::default();
    if Story::is_wanted() {
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
        &mut story,
        &mut reached,
    );
    let connected = until_cut(&local, &deadline, Box::pin(connecting).as_mut()).await;
    let outcome = match (connected, &mut reached) {
        (Some(Ok(())), Some(reached)) => {
            let relaying = pin!(reached.relay.run(&local, protocol, &deadline));
            let relayed = until_cut(&local, &deadline, relaying).await;
            relayed.map_or(Outcome::CutAtDrain, |mut relayed| {
                relayed.bytes_to_backend += reached.head_bytes as u64;
                story.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
                relayed.outcome
            })
        }
        (Some(Ok(())), None) => unreachable!("a connection that goes on has reached a backend"),
        (Some(Err(outcome)), _) => {
            let telling = farewell(&local, client.socket(), protocol, outcome, &deadline);
            let told = until_cut(&local, &deadline, Box::pin(telling).as_mut()).await;
            told.map_or(Outcome::CutAtDrain, |()| outcome)
        }
        (None, _) => Outcome::CutAtDrain,
    };
    drop(reached);
    cut(&local, &client, outcome, &deadline).await;
    end(&local, client, protocol, outcome, accepted, &story);
}

/// A client whose connection was cut gets a reset, behind what it was sent.
async fn cut(local: &Local, client: &Client, outcome: Outcome, deadline: &Deadline) {
    if outcome == Outcome::CutAtDrain {
        let by = Some(local.ring.now() + CUT_PATIENCE);
        Box::pin(pass_reset_on(local, client.socket(), deadline, by)).await;
    }
}

/// Closes the client's connection and counts its one outcome.
fn end(
    local: &Local,
    client: Client,
    protocol: Protocol,
    outcome: Outcome,
    accepted: Instant,
    story: &Story,
) {
    story.log(local, &client, protocol, outcome, accepted);
    drop(client);
    local
        .metrics
        .borrow_mut()
        .record(protocol, Stage::Lifetime, accepted.elapsed());
    local.connection_ends(protocol, outcome);
}

/// Everything up to the relay, for which there is a backend in `reached` when it has come so far.
async fn connect(
    local: &Rc<Local>,
    client: &Client,
    protocol: Protocol,
    deadline: &Deadline,
    accepted: Instant,
    story: &mut Story,
    reached: &mut Option<Reached>,
) -> Result<(), Outcome> {
    admit::at_accept(local, client)?;
    deadline.set(accepted + local.limits.head_deadline);
    // A block of its own, so that the head with its name is gone before the next wait, unless
    // somebody is to be told of it.
    let (route, told, received) = {
        let reading = head::read_head(local, client, protocol);
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
                .is_ok_and(|route| route.tells_names() || Lease::is_wanted(route));
        let head = (is_told || Story::is_wanted()).then(|| Rc::new(head));
        story.set_head(head.as_ref());
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
    reach(local, &arrival, deadline, story, reached).await
}

/// Tells the client why, and makes sure that it can read it before the connection is closed.
pub(crate) async fn farewell(
    local: &Local,
    client: &Socket,
    protocol: Protocol,
    outcome: Outcome,
    deadline: &Deadline,
) {
    let answer = match protocol {
        Protocol::Tls => reply::alert(outcome),
        Protocol::Http => local.answers.of(outcome),
        Protocol::Tcp => None,
    };
    let Some(answer) = answer else {
        return;
    };
    if outcome.is_turned_away() {
        // What has come is read, so that closing does not reset the connection under the answer; what
        // is still to come is not waited for.
        let _ = client.recv(&mut local.buffer.borrow_mut());
        let _ = client.send(answer);
        return;
    }
    linger(local, client, answer, deadline).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that a task of this kind takes for as long as it lives.
    fn task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket, Protocol) -> F) -> usize {
        size_of::<F>()
    }

    fn http_task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket) -> F) -> usize {
        size_of::<F>()
    }

    /// Together with an operation in the ring and a deadline; there is neither a buffer nor a
    /// backend between two requests.
    #[test]
    fn a_client_between_two_requests_is_small() {
        let bytes = http_task_bytes(serve_http);
        assert!(
            bytes <= 816,
            "the task of an HTTP client takes {bytes} bytes"
        );
    }

    /// Together with two operations in the ring, a deadline and the executor's own header, an idle
    /// connection is to stay below 1,000 bytes of process memory.
    #[test]
    fn an_idle_connection_is_small() {
        let bytes = task_bytes(serve);
        assert!(bytes <= 592, "the task of a connection takes {bytes} bytes");
    }
}
