//! A client connection on the HTTP port: one request after the other, each routed by its own host, each
//! sent on whichever connection its backend has idle.
//!
//! One task owns the client's socket and, while a request is under way, one backend's. A connection to
//! a backend goes back to the worker's pool only when the whole request was sent, the response ended
//! where its head said, and nothing else came. After any doubt it is closed, so that no response can
//! reach the client of another request.

mod answer;
mod backend;
mod client_end;
mod exchange;
mod pool;
mod request;
mod request_loop;
mod session;
mod upgrade;

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

pub(crate) use pool::sweep_idle;

use crate::client::{self, AccessLogEntry, Client, Ended, until_cut};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::state::Local;
use crate::sys::Socket;

/// Serves one accepted connection, which was counted by [`Local::connection_begins`], to its end. Its
/// task is of another type than that of a TLS connection, because it is smaller between two requests
/// than a task that relays.
pub(crate) async fn serve(local: Rc<Local>, client: Socket) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut entry = AccessLogEntry::default();
    if AccessLogEntry::is_wanted() {
        // RequestSummary for now: once the client has gone, the kernel no longer knows its address.
        let _ = client.peer();
    }
    let outcome = {
        let serving = pin!(request_loop::serve_requests(
            &local, &client, &deadline, accepted, &mut entry
        ));
        until_cut(&local, &deadline, serving).await
    };
    let outcome = outcome.unwrap_or(Outcome::CutAtDrain);
    client::reset_if_cut(&local, &client, outcome, &deadline).await;
    let ended = Ended {
        protocol: Protocol::Http,
        outcome,
        accepted,
        entry: &entry,
    };
    client::close(&local, client, &ended);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket) -> F) -> usize {
        size_of::<F>()
    }

    /// All that a client holds between two requests is this task, an operation in the ring and a
    /// deadline: neither a buffer nor a connection to a backend.
    #[test]
    fn a_client_between_two_requests_is_small() {
        let bytes = task_bytes(serve);
        assert!(
            bytes <= 816,
            "the task of an HTTP client takes {bytes} bytes"
        );
    }
}
