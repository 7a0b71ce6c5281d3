//! The requests of one client connection, one after the other: waits for the next one, has it answered,
//! and ends the connection when there is none.

use std::rc::Rc;
use std::time::Instant;

use super::answer::{AfterRequest, answer};
use super::client_end::{ClientStream, ClientWait};
use super::request::{Incoming, OwnResponse, Parsed, parse};
use super::session::Session;
use super::upgrade::h2c;
use crate::client::{
    AccessLogEntry, Client, admit, early_close_outcome, linger, read_proxy_header, send_all,
    send_error_response,
};
use crate::http::RequestReader;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::Signature;
use crate::refusal::Refusal;
use crate::ring::Deadline;
use crate::state::Local;
use crate::sys::is_transient;

/// Serves a client that was just accepted to its end.
pub(super) async fn serve_requests(
    local: &Rc<Local>,
    client: &Client,
    deadline: &Deadline,
    accepted: Instant,
    entry: &mut AccessLogEntry,
) -> Outcome {
    let mut session = Session::new(local, client, deadline, accepted);
    let mut stream = ClientStream::new(client.socket().clone(), Vec::new());
    if let Err(outcome) = admit::at_accept(local, client) {
        return refuse(&session, &stream, outcome).await;
    }
    if !local.proxy.from.is_empty() {
        deadline.set(accepted + local.limits.head_deadline);
        let reading = Box::pin(deadline.bound(read_proxy_header(local, client))).await;
        match reading.unwrap_or(Err(Outcome::HeadTimeout)) {
            Ok(received) => stream.push(&received),
            Err(outcome) => return refuse(&session, &stream, outcome).await,
        }
    }
    loop {
        let incoming = match next_request(&session, &mut stream, entry).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Outcome::Relayed,
            Err(Outcome::Refused(Refusal::Http2Preface))
                if local.http.h2c && session.requests == 0 =>
            {
                let relaying = Box::pin(h2c(&mut session, &mut stream, entry));
                return match relaying.await {
                    Ok(outcome) => outcome,
                    Err(outcome) => refuse(&session, &stream, outcome).await,
                };
            }
            Err(outcome) => return refuse(&session, &stream, outcome).await,
        };
        session.requests += 1;
        let after = match incoming {
            Incoming::Request(request) => {
                Box::pin(answer(&mut session, &mut stream, request, entry)).await
            }
            Incoming::OwnResponse(response) => {
                Box::pin(send_own_response(&session, &mut stream, response, entry)).await
            }
        };
        match after {
            AfterRequest::NextRequest => {}
            AfterRequest::Close => {
                close_behind_response(&session, &stream).await;
                return Outcome::Relayed;
            }
            AfterRequest::Refuse(outcome) => return refuse(&session, &stream, outcome).await,
            AfterRequest::Ended(outcome) => return outcome,
        }
    }
}

/// Sends the error response of the outcome, if it has one.
async fn refuse(session: &Session<'_>, stream: &ClientStream, outcome: Outcome) -> Outcome {
    let (local, deadline) = (session.local, session.deadline);
    Box::pin(send_error_response(
        local,
        &stream.socket,
        Protocol::Http,
        outcome,
        deadline,
    ))
    .await;
    outcome
}

/// Makes sure that the client has its last response before the connection is closed: closing with bytes
/// of the client unread would reset the connection and destroy the response on its way.
async fn close_behind_response(session: &Session<'_>, stream: &ClientStream) {
    if stream.has_unread || !stream.pending().is_empty() {
        let (local, deadline) = (session.local, session.deadline);
        Box::pin(linger(local, &stream.socket, &[], deadline)).await;
    }
}

/// Sends a response of the proxy's own, for which no backend is asked.
async fn send_own_response(
    session: &Session<'_>,
    stream: &mut ClientStream,
    response: OwnResponse,
    entry: &mut AccessLogEntry,
) -> AfterRequest {
    let (local, deadline) = (session.local, session.deadline);
    deadline.set(local.ring.now() + local.limits.response_deadline);
    entry.add_bytes(0, response.bytes.len() as u64);
    let sending = send_all(local, &stream.socket, &response.bytes);
    let Some(Ok(())) = deadline.bound(sending).await else {
        return AfterRequest::Ended(Outcome::ClientReset);
    };
    if response.persists {
        return AfterRequest::NextRequest;
    }
    // The body of the request may still be on its way.
    stream.has_unread = true;
    AfterRequest::Close
}

/// The next request. `None` when the client has finished between two requests, or the worker drains.
async fn next_request(
    session: &Session<'_>,
    stream: &mut ClientStream,
    entry: &mut AccessLogEntry,
) -> Result<Option<Incoming>, Outcome> {
    let (local, deadline) = (session.local, session.deadline);
    let mut reader = RequestReader::new(local.limits.request_head_bytes_max);
    let mut has_begun = !stream.pending().is_empty();
    let is_first = session.requests == 0;
    if is_first {
        deadline.set(session.accepted + local.limits.head_deadline);
        // Most clients have sent their request by the time they are accepted.
        stream.has_unread = true;
    } else if has_begun {
        deadline.set(local.ring.now() + local.limits.head_deadline);
    } else {
        deadline.set(local.ring.now() + local.limits.keep_alive_deadline);
    }
    if has_begun && let Some(incoming) = parse_pending(session, stream, &mut reader, entry)? {
        return Ok(Some(incoming));
    }
    loop {
        if !std::mem::take(&mut stream.has_unread) {
            let may_drain = !is_first && !has_begun;
            match stream.wait(local, deadline, may_drain).await {
                ClientWait::Readable => {}
                ClientWait::Draining => return Ok(None),
                ClientWait::TimedOut if may_drain => return Err(Outcome::KeepAliveTimeout),
                ClientWait::TimedOut => return Err(Outcome::HeadTimeout),
            }
        }
        let mut buffer = local.buffer.borrow_mut();
        let received = match stream.socket.recv(&mut buffer) {
            Err(error) if is_transient(&error) => continue,
            // A client that finishes or resets between two requests leaves nothing undone.
            Ok(0) | Err(_) if !is_first && !has_begun => return Ok(None),
            Ok(0) | Err(_) => return Err(early_close_outcome(session.client, stream.pending())),
            Ok(received) => received,
        };
        let received = &buffer[..received];
        if let Some(incoming) = parse_received(session, stream, &mut reader, received, entry)? {
            return Ok(Some(incoming));
        }
        if !has_begun {
            has_begun = true;
            if !is_first {
                deadline.set(local.ring.now() + local.limits.head_deadline);
            }
        }
    }
}

/// Parses what was just received, behind what is pending. `None` when more is needed.
fn parse_received(
    session: &Session<'_>,
    stream: &mut ClientStream,
    reader: &mut RequestReader,
    received: &[u8],
    entry: &mut AccessLogEntry,
) -> Result<Option<Incoming>, Outcome> {
    // A request that came in one piece, as most do, is not copied before it is rewritten.
    let incoming = if stream.pending().is_empty() {
        let parsed = parse(session, reader, received, entry);
        let used_bytes = match &parsed {
            Ok(Some(parsed)) => parsed.used_bytes,
            // All of it is pending: the beginning of a head, or of an HTTP/2 connection.
            Ok(None) | Err(_) => 0,
        };
        stream.push(&received[used_bytes..]);
        parsed.map(|parsed| parsed.map(|parsed| parsed.incoming))
    } else {
        stream.push(received);
        parse_pending(session, stream, reader, entry)
    };
    if !matches!(incoming, Err(Outcome::Refused(_))) || session.requests > 0 {
        return incoming;
    }
    // The sender of a PROXY header that is not trusted has an outcome of its own.
    match Signature::of(stream.pending()) {
        Signature::Present => Err(Outcome::Refused(Refusal::ProxyUntrusted)),
        Signature::Absent => incoming,
        Signature::Undecided => Ok(None),
    }
}

/// Parses the pending bytes. `None` when more are needed.
fn parse_pending(
    session: &Session<'_>,
    stream: &mut ClientStream,
    reader: &mut RequestReader,
    entry: &mut AccessLogEntry,
) -> Result<Option<Incoming>, Outcome> {
    let parsed = parse(session, reader, stream.pending(), entry)?;
    let Some(Parsed {
        incoming,
        used_bytes,
    }) = parsed
    else {
        return Ok(None);
    };
    stream.consume(used_bytes);
    Ok(Some(incoming))
}
