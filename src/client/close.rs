//! The last steps of a client's connection: an error response, a reset, the log line, the count.

use std::time::{Duration, Instant};

use super::access_log::AccessLogEntry;
use super::identity::Client;
use super::linger::linger;
use super::reset::pass_reset_on;
use crate::metrics::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::reply;
use crate::ring::Deadline;
use crate::state::Local;
use crate::sys::Socket;

/// How long a client that is cut has to acknowledge what it was sent.
pub(super) const CUT_PATIENCE: Duration = Duration::from_millis(500);

/// How a connection came to its end.
pub(crate) struct Ended<'e> {
    pub protocol: Protocol,
    pub outcome: Outcome,
    pub accepted: Instant,
    pub entry: &'e AccessLogEntry,
}

/// Resets the connection of a client that is cut, behind what it was sent.
pub(crate) async fn reset_if_cut(
    local: &Local,
    client: &Client,
    outcome: Outcome,
    deadline: &Deadline,
) {
    if outcome == Outcome::CutAtDrain {
        let by = Some(local.ring.now() + CUT_PATIENCE);
        Box::pin(pass_reset_on(local, client.socket(), deadline, by)).await;
    }
}

/// Closes the client's connection, logs it and counts its one outcome.
pub(crate) fn close(local: &Local, client: Client, ended: &Ended<'_>) {
    let Ended {
        protocol, outcome, ..
    } = *ended;
    let lifetime = ended.accepted.elapsed();
    ended.entry.log(local, &client, protocol, outcome, lifetime);
    drop(client);
    let mut metrics = local.metrics.borrow_mut();
    metrics.record(protocol, Stage::Lifetime, lifetime);
    drop(metrics);
    local.connection_ends(protocol, outcome);
}

/// Sends the error response or the alert of this outcome, if it has one, and makes sure that the client
/// can read it before the connection is closed.
pub(crate) async fn send_error_response(
    local: &Local,
    client: &Socket,
    protocol: Protocol,
    outcome: Outcome,
    deadline: &Deadline,
) {
    let answer = match protocol {
        Protocol::Tls => reply::alert(outcome),
        Protocol::Http => local.error_responses.of(outcome),
        Protocol::Tcp => None,
    };
    let Some(answer) = answer else {
        return;
    };
    if outcome.is_turned_away() {
        // A client over a limit is not waited for. What it has sent is read, because closing with
        // unread bytes would reset the connection and destroy the response.
        let _ = client.recv(&mut local.buffer.borrow_mut());
        let _ = client.send(answer);
        return;
    }
    linger(local, client, answer, deadline).await;
}
