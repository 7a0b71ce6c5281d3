//! Connections that are no longer a sequence of requests: after 101, and HTTP/2 from its beginning.

use std::rc::Rc;

use super::backend::{head_of, with_proxy_header};
use super::client_end::{ClientEnd, Waited};
use super::pool::BackendConnection;
use super::session::Session;
use crate::client::{AccessLogEntry, LookupEntry, OpenConnection, admit, failure};
use crate::http::h2c::FirstRequest;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Relay, RelayParts};
use crate::ring::Deadline;
use crate::state::Local;
use crate::sys::is_transient;
use crate::upstream::{Attempts, RemovalWatch, dial};

/// Carries a whole HTTP/2 connection to the backend of its first request. The deadline is that of
/// the head.
pub(super) async fn h2c(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    end: &mut ClientEnd,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Outcome, Outcome> {
    let bytes_max = local.limits.request_head_bytes_max;
    let mut first = FirstRequest::default();
    let host = loop {
        let found = first.advance(end.pending(), bytes_max);
        match found.map_err(Outcome::Refused)? {
            Some(host) => break host,
            None => read_more(local, end, deadline).await?,
        }
    };
    let route = local.route(Protocol::Http, Some(&host))?;
    let _permit = admit::to_host(local, &route, Protocol::Http, Some(&host))?;
    entry.set_request(Some(&host));
    session.requests = 1;
    local.count(Counter::Requests);
    let mut attempts = Attempts::new(local);
    let client = session.client;
    let (upstream, _lookup_entry) = loop {
        let dialled = dial(
            local,
            &route,
            Protocol::Http,
            client,
            &mut attempts,
            deadline,
        )
        .await;
        let dialled = dialled.map_err(|outcome| {
            let (slot, attempts) = attempts.last_tried();
            let backend = failure::backend_text(&route, slot);
            entry.set_backend(backend.unwrap_or_default(), attempts);
            failure::note(
                local,
                outcome,
                || Some(host.to_string()),
                backend,
                attempts,
                None,
            )
        })?;
        entry.set_backend(dialled.backend.text(), dialled.attempts);
        let upstream = BackendConnection::fresh(dialled);
        let connection = OpenConnection {
            client,
            accepted: session.accepted,
            head: &head_of(Some(&host)),
            backend: upstream.backend.text(),
            backend_socket: &upstream.socket,
        };
        let lookup_entry = LookupEntry::new(local, &connection);
        let received = end.pending();
        let announced = with_proxy_header(local, client, &upstream, Some(&host), received, entry)?;
        let first = announced.as_deref().unwrap_or(received);
        match upstream.socket.send(first) {
            Ok(sent_bytes) => {
                let mut metrics = local.metrics.borrow_mut();
                metrics.count(Counter::BytesFromClients, sent_bytes as u64);
                metrics.count(Counter::CopiedBytes, sent_bytes as u64);
                entry.add_bytes(sent_bytes as u64, 0);
                *end = ClientEnd::new(end.socket.clone(), first[sent_bytes..].to_vec());
                break (upstream, lookup_entry);
            }
            Err(error) if is_transient(&error) => {
                *end = ClientEnd::new(end.socket.clone(), first.to_vec());
                break (upstream, lookup_entry);
            }
            // It has had none of it.
            Err(_) => {
                let outcome = Outcome::BackendUnreachable;
                upstream.backend.failed(local, outcome);
                attempts.goes_on(local, &upstream.backend, outcome);
            }
        }
    };
    let slot = upstream.backend.backend().slot();
    let removal = RemovalWatch::new(local, &route, Protocol::Http, Some(&host), slot);
    // A route that was replaced is not kept for as long as a tunnel may live.
    drop(route);
    Ok(tunnel(local, end, upstream, None, deadline, removal, entry).await)
}

async fn read_more(local: &Local, end: &mut ClientEnd, deadline: &Deadline) -> Result<(), Outcome> {
    if let Waited::TooLong = end.wait(local, deadline, false).await {
        return Err(Outcome::HeadTimeout);
    }
    let mut buffer = local.buffer.borrow_mut();
    match end.socket.recv(&mut buffer) {
        Ok(0) => Err(Outcome::ClientLeft),
        Ok(received) => {
            end.push(&buffer[..received]);
            Ok(())
        }
        Err(error) if is_transient(&error) => Ok(()),
        Err(_) => Err(Outcome::ClientLeft),
    }
}

/// From here on the connection is in another protocol, and everything is relayed. First what is
/// `unsent` of the backend's answer, where it has given one.
pub(super) async fn tunnel(
    local: &Rc<Local>,
    end: &mut ClientEnd,
    upstream: BackendConnection,
    unsent: Option<Vec<u8>>,
    deadline: &Deadline,
    removal: Option<Box<RemovalWatch>>,
    entry: &mut AccessLogEntry,
) -> Outcome {
    end.watch = None;
    let held = end.pending().to_vec();
    end.consume(held.len());
    let mut relay = Relay::new(RelayParts {
        client: end.socket.clone(),
        backend: upstream.socket,
        live: upstream.backend,
        removal,
        head_sent: local.ring.now(),
    });
    relay.carry_first(held, unsent);
    let relayed = relay.run(local, Protocol::Http, deadline).await;
    entry.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
    relayed.outcome
}
