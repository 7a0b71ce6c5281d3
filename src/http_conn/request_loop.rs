//! The requests of one client connection, one after the other: waits for the next one, has it answered,
//! and ends the connection when there is none.

use std::rc::Rc;
use std::time::Instant;

use super::answer::{Answered, answer};
use super::client_end::{ClientEnd, Waited};
use super::request::{Parsed, Request, parse};
use super::session::Session;
use super::upgrade::h2c;
use crate::client::{
    AccessLogEntry, Client, admit, early_close_outcome, linger, read_proxy_header, send_all,
    send_error_response,
};
use crate::http::RequestReader;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::begins_with_signature;
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
    let mut session = Session::new(local, client, accepted);
    let mut end = ClientEnd::new(client.socket().clone(), Vec::new());
    if let Err(outcome) = admit::at_accept(local, client) {
        return refuse(local, &end, outcome, deadline).await;
    }
    if !local.proxy.from.is_empty() {
        deadline.set(accepted + local.limits.head_deadline);
        let reading = Box::pin(deadline.bound(read_proxy_header(local, client))).await;
        match reading.unwrap_or(Err(Outcome::HeadTimeout)) {
            Ok(received) => end.push(&received),
            Err(outcome) => return refuse(local, &end, outcome, deadline).await,
        }
    }
    loop {
        let request = match next_request(local, &session, &mut end, deadline, entry).await {
            Ok(Next::Request(request)) => request,
            Ok(Next::Answer(answer, goes_on)) => {
                session.requests += 1;
                deadline.set(local.ring.now() + local.limits.response_deadline);
                let sending = Box::pin(send_all(local, &end.socket, &answer));
                entry.add_bytes(0, answer.len() as u64);
                let Some(Ok(())) = deadline.bound(sending).await else {
                    return Outcome::ClientReset;
                };
                if goes_on {
                    continue;
                }
                // A body may still be on its way.
                end.has_spoken = true;
                leave(local, &end, deadline).await;
                return Outcome::Relayed;
            }
            Ok(Next::Over) => return Outcome::Relayed,
            Err(Outcome::Refused(Refusal::Http2Preface))
                if local.http.h2c && session.requests == 0 =>
            {
                let carried = h2c(local, &mut session, &mut end, deadline, entry);
                return match Box::pin(carried).await {
                    Ok(outcome) => outcome,
                    Err(outcome) => refuse(local, &end, outcome, deadline).await,
                };
            }
            Err(outcome) => return refuse(local, &end, outcome, deadline).await,
        };
        session.requests += 1;
        let answered = answer(local, &mut session, &mut end, request, deadline, entry);
        match Box::pin(answered).await {
            Answered::NextRequest => {}
            Answered::Close => {
                leave(local, &end, deadline).await;
                return Outcome::Relayed;
            }
            Answered::Refused(outcome) => return refuse(local, &end, outcome, deadline).await,
            Answered::Over(outcome) => return outcome,
        }
    }
}

async fn refuse(local: &Local, end: &ClientEnd, outcome: Outcome, deadline: &Deadline) -> Outcome {
    Box::pin(send_error_response(
        local,
        &end.socket,
        Protocol::Http,
        outcome,
        deadline,
    ))
    .await;
    outcome
}

/// Closing with bytes of the client unread would destroy the answer on its way.
async fn leave(local: &Local, end: &ClientEnd, deadline: &Deadline) {
    if end.has_spoken || !end.pending().is_empty() {
        Box::pin(linger(local, &end.socket, &[], deadline)).await;
    }
}

/// What the client's connection goes on with.
enum Next {
    Request(Request),
    /// The proxy answers by itself, and says whether the connection goes on.
    Answer(Vec<u8>, bool),
    /// The client has finished between two requests, or the core drains.
    Over,
}

/// The next request.
async fn next_request(
    local: &Local,
    session: &Session<'_>,
    end: &mut ClientEnd,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Next, Outcome> {
    let mut reader = RequestReader::new(local.limits.request_head_bytes_max);
    let mut has_begun = !end.pending().is_empty();
    let is_first = session.requests == 0;
    if is_first {
        deadline.set(session.accepted + local.limits.head_deadline);
        // Most clients have sent their request by the time they are accepted.
        end.has_spoken = true;
    } else if has_begun {
        deadline.set(local.ring.now() + local.limits.head_deadline);
    } else {
        deadline.set(local.ring.now() + local.limits.keep_alive_deadline);
    }
    if has_begun {
        let parsed = parse(local, session, &mut reader, end.pending(), entry);
        if let Some(next) = take_in(end, parsed?) {
            return Ok(next);
        }
    }
    loop {
        if !std::mem::take(&mut end.has_spoken) {
            let may_drain = !is_first && !has_begun;
            match end.wait(local, deadline, may_drain).await {
                Waited::Readable => {}
                Waited::Draining => return Ok(Next::Over),
                Waited::TooLong if may_drain => return Err(Outcome::KeepAliveTimeout),
                Waited::TooLong => return Err(Outcome::HeadTimeout),
            }
        }
        let mut buffer = local.buffer.borrow_mut();
        let received = match end.socket.recv(&mut buffer) {
            Ok(0) if is_first || has_begun => {
                return Err(early_close_outcome(session.client, end.pending()));
            }
            Ok(0) => return Ok(Next::Over),
            Ok(received) => received,
            Err(error) if is_transient(&error) => continue,
            // A client that resets between two requests leaves nothing undone.
            Err(_) if is_first || has_begun => {
                return Err(early_close_outcome(session.client, end.pending()));
            }
            Err(_) => return Ok(Next::Over),
        };
        // A request that came in one piece, as most do, is never copied before it is written anew.
        let parsed = if end.pending().is_empty() {
            let received = &buffer[..received];
            let parsed = parse(local, session, &mut reader, received, entry);
            let used = match &parsed {
                Ok(Parsed::Request(_, used) | Parsed::Answer(_, used, _)) => *used,
                Ok(Parsed::More) => 0,
                // Of an HTTP/2 connection all of this goes on.
                Err(_) => 0,
            };
            end.push(&received[used..]);
            parsed.map(Parsed::without_use)
        } else {
            end.push(&buffer[..received]);
            parse(local, session, &mut reader, end.pending(), entry)
        };
        // An untrusted sender of a PROXY header is told apart from a client that speaks no HTTP.
        let parsed = match parsed {
            Err(Outcome::Refused(_)) if is_first => match begins_with_signature(end.pending()) {
                Some(true) => Err(Outcome::Refused(Refusal::ProxyUntrusted)),
                Some(false) => parsed,
                None => Ok(Parsed::More),
            },
            _ => parsed,
        };
        let next = take_in(end, parsed?);
        if let Some(next) = next {
            return Ok(next);
        }
        if !has_begun {
            has_begun = true;
            if !is_first {
                deadline.set(local.ring.now() + local.limits.head_deadline);
            }
        }
    }
}

/// Takes what was parsed out of what is pending; `None`: more is needed.
fn take_in(end: &mut ClientEnd, parsed: Parsed) -> Option<Next> {
    match parsed {
        Parsed::More => None,
        Parsed::Request(request, used) => {
            end.consume(used);
            Some(Next::Request(request))
        }
        Parsed::Answer(answer, used, goes_on) => {
            end.consume(used);
            Some(Next::Answer(answer, goes_on))
        }
    }
}
