//! Connections that do not stay a sequence of requests: after a 101 (Switching Protocols), and HTTP/2 in
//! clear text (h2c) from its beginning.

use std::sync::Arc;

use super::backend::{dial_request, head_of, with_proxy_header};
use super::client_end::{ClientStream, ClientWait};
use super::pool::BackendConnection;
use super::session::Session;
use crate::client::{AccessLogEntry, LookupEntry, OpenConnection, admit};
use crate::host::Host;
use crate::http::h2c::FirstRequest;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Relay, RelayParts};
use crate::route::Route;
use crate::state::Local;
use crate::sys::is_transient;
use crate::upstream::{Attempts, Dialled, RemovalWatch, dial};

/// Relays a whole HTTP/2 connection to the backend of its first request. The deadline that is set is
/// still that of the head.
pub(super) async fn h2c(
    session: &mut Session<'_>,
    stream: &mut ClientStream,
    entry: &mut AccessLogEntry,
) -> Result<Outcome, Outcome> {
    let local = session.local;
    let host = read_host(session, stream).await?;
    let route = local.route(Protocol::Http, Some(&host))?;
    let _permit = admit::to_host(local, &route, Protocol::Http, Some(&host))?;
    entry.set_request(Some(&host));
    session.requests = 1;
    local.count(Counter::Requests);
    let mut attempts = Attempts::new(local);
    let (upstream, _lookup_entry) = loop {
        let dialled = dial_host(session, &route, &host, &mut attempts, entry).await?;
        let upstream = BackendConnection::new(dialled);
        let connection = OpenConnection {
            client: session.client,
            accepted: session.accepted,
            head: &head_of(Some(&host)),
            backend: upstream.backend.text(),
            backend_socket: &upstream.socket,
        };
        let lookup_entry = LookupEntry::new(local, &connection);
        if send_received(session, stream, &upstream, &host, entry)? {
            break (upstream, lookup_entry);
        }
        let outcome = Outcome::BackendUnreachable;
        upstream.backend.record_failure(local, outcome);
        attempts.record_retry(local, &upstream.backend, outcome);
    };
    let slot = upstream.backend.backend().slot();
    let removal = RemovalWatch::new(local, &route, Protocol::Http, Some(&host), slot);
    // So that a tunnel, which may live long, does not keep a replaced route alive.
    drop(route);
    Ok(tunnel(session, stream, upstream, None, removal, entry).await)
}

/// Reads until the host of the first request is known.
async fn read_host(session: &Session<'_>, stream: &mut ClientStream) -> Result<Host, Outcome> {
    let local = session.local;
    let bytes_max = local.limits.request_head_bytes_max;
    let mut first = FirstRequest::default();
    loop {
        let found = first.advance(stream.pending(), bytes_max);
        if let Some(host) = found.map_err(Outcome::Refused)? {
            return Ok(host);
        }
        if let ClientWait::TimedOut = stream.wait(local, session.deadline, false).await {
            return Err(Outcome::HeadTimeout);
        }
        read_more(local, stream)?;
    }
}

fn read_more(local: &Local, stream: &mut ClientStream) -> Result<(), Outcome> {
    let mut buffer = local.buffer.borrow_mut();
    match stream.socket.recv(&mut buffer) {
        Err(error) if is_transient(&error) => Ok(()),
        Ok(0) | Err(_) => Err(Outcome::ClientLeft),
        Ok(received) => {
            stream.push(&buffer[..received]);
            Ok(())
        }
    }
}

async fn dial_host(
    session: &Session<'_>,
    route: &Arc<Route>,
    host: &Host,
    attempts: &mut Attempts,
    entry: &mut AccessLogEntry,
) -> Result<Dialled, Outcome> {
    let dialled = dial(dial_request(session, route), attempts).await;
    let dialled = dialled.map_err(|outcome| {
        let host = || Some(host.to_string());
        attempts.log_failure(session.local, route, outcome, host, entry)
    })?;
    entry.set_backend(dialled.backend.text(), dialled.attempts);
    Ok(dialled)
}

/// Sends a new backend what was received from the client. What the backend does not take yet stays in
/// `stream`. `false` when the connection has failed and the backend has nothing.
fn send_received(
    session: &Session<'_>,
    stream: &mut ClientStream,
    upstream: &BackendConnection,
    host: &Host,
    entry: &mut AccessLogEntry,
) -> Result<bool, Outcome> {
    let (local, client) = (session.local, session.client);
    let received = stream.pending();
    let with_proxy = with_proxy_header(local, client, upstream, Some(host), received, entry)?;
    let outgoing = with_proxy.as_deref().unwrap_or(received);
    let sent_bytes = match upstream.socket.send(outgoing) {
        Ok(sent_bytes) => {
            let mut metrics = local.metrics.borrow_mut();
            metrics.count(Counter::BytesFromClients, sent_bytes as u64);
            metrics.count(Counter::CopiedBytes, sent_bytes as u64);
            entry.add_bytes(sent_bytes as u64, 0);
            sent_bytes
        }
        Err(error) if is_transient(&error) => 0,
        Err(_) => return Ok(false),
    };
    *stream = ClientStream::new(stream.socket.clone(), outgoing[sent_bytes..].to_vec());
    Ok(true)
}

/// Relays the connection unread, since it speaks another protocol from here on. `unsent` is the part of
/// the backend's 101 that the client has not taken yet; `None` when the backend has not answered.
pub(super) async fn tunnel(
    session: &Session<'_>,
    stream: &mut ClientStream,
    upstream: BackendConnection,
    unsent: Option<Vec<u8>>,
    removal: Option<Box<RemovalWatch>>,
    entry: &mut AccessLogEntry,
) -> Outcome {
    let local = session.local;
    stream.watch = None;
    let pending = stream.pending().to_vec();
    stream.consume(pending.len());
    let mut relay = Relay::new(RelayParts {
        client: stream.socket.clone(),
        backend: upstream.socket,
        live: upstream.backend,
        removal,
        head_sent: local.ring.now(),
    });
    relay.carry_first(pending, unsent);
    let relayed = relay.run(local, Protocol::Http, session.deadline).await;
    entry.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
    relayed.outcome
}
