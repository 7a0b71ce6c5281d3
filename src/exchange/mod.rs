//! The life of a client connection on the HTTP port: one request after the other, each routed by
//! its own host, each on whichever connection its backend has idle.
//!
//! One task owns the client's socket and, while a request is under way, one backend's. A backend's
//! connection goes back to the core's pool only when the response has ended where its head said,
//! the whole request was sent, and nothing else has come; after any doubt it is closed, so that no
//! response can reach another request's client.

mod body;
mod carry;
mod client_end;
mod idle;
mod order;

pub use idle::{IdlePool, keep as keep_idle};

use crate::conn::{Story, farewell, read_to_end_in_time};
use crate::dial::dial_first;
use crate::http::h2c::first_host;
use crate::http::{Hop, RequestReader};
use crate::local::Local;
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::Relay;
use crate::ring::Deadline;
use crate::route::Backend;
use crate::sniff::Refusal;
use crate::sys::Socket;
use body::is_transient;
use carry::{Carry, Finish};
use client_end::ClientEnd;
use idle::Upstream;
use order::{Order, Understood, understand};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// What a connection remembers from one request to the next.
pub struct Session {
    client: Socket,
    accepted: Instant,
    requests: u32,
    hop: Cell<Option<Hop>>,
    /// The route of the last request and the backend that had it.
    last: Option<(u64, Arc<Backend>)>,
    /// A backend's connection that is this client's alone.
    bound: Option<Box<Upstream>>,
}

/// Serves a client that was just accepted to its end; `received` was read from it before.
pub async fn serve(
    local: &Rc<Local>,
    client: &Socket,
    received: Vec<u8>,
    deadline: &Deadline,
    accepted: Instant,
    story: &mut Story,
) -> Outcome {
    let mut session = Session {
        client: client.clone(),
        accepted,
        requests: 0,
        hop: Cell::new(None),
        last: None,
        bound: None,
    };
    let mut end = ClientEnd::new(client.clone(), received);
    loop {
        let order = match next_order(local, &session, &mut end, deadline).await {
            Ok(Next::Order(order)) => order,
            Ok(Next::Answer(answer, goes_on)) => {
                session.requests += 1;
                if send_all(local, &end.socket, &answer, deadline)
                    .await
                    .is_err()
                {
                    return Outcome::ClientReset;
                }
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
                let carried = h2c(local, &mut session, &mut end, deadline, story);
                return match Box::pin(carried).await {
                    Ok(outcome) => outcome,
                    Err(outcome) => refuse(local, &end, outcome, deadline).await,
                };
            }
            Err(outcome) => return refuse(local, &end, outcome, deadline).await,
        };
        session.requests += 1;
        story.set_request(order.name.as_deref());
        let answered = answer(local, &mut session, &mut end, order, deadline, story);
        match Box::pin(answered).await {
            Ok(true) => {}
            Ok(false) => {
                leave(local, &end, deadline).await;
                return Outcome::Relayed;
            }
            Err(Ended::Refused(outcome)) => return refuse(local, &end, outcome, deadline).await,
            Err(Ended::Over(outcome)) => return outcome,
        }
    }
}

/// A connection that ends with this request.
enum Ended {
    /// The client is still to be told.
    Refused(Outcome),
    Over(Outcome),
}

async fn refuse(local: &Local, end: &ClientEnd, outcome: Outcome, deadline: &Deadline) -> Outcome {
    Box::pin(farewell(
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
        end.socket.shutdown_write();
        Box::pin(read_to_end_in_time(local, &end.socket, deadline)).await;
    }
}

/// What the client's connection goes on with.
enum Next {
    Order(Order),
    /// The proxy answers by itself, and says whether the connection goes on.
    Answer(Vec<u8>, bool),
    /// The client has finished between two requests, or the core drains.
    Over,
}

/// The next request.
async fn next_order(
    local: &Local,
    session: &Session,
    end: &mut ClientEnd,
    deadline: &Deadline,
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
        let understood = understand(local, session, &mut reader, end.pending());
        if let Some(next) = take_in(end, understood?) {
            return Ok(next);
        }
    }
    loop {
        if !std::mem::take(&mut end.has_spoken) {
            let may_drain = !is_first && !has_begun;
            match wait(local, end, deadline, may_drain).await {
                Waited::Readable => {}
                Waited::Draining => return Ok(Next::Over),
                Waited::TooLong if may_drain => return Err(Outcome::KeepAliveTimeout),
                Waited::TooLong => return Err(Outcome::HeadTimeout),
            }
        }
        let mut buffer = local.buffer.borrow_mut();
        let received = match end.socket.recv(&mut buffer) {
            Ok(0) if is_first || has_begun => return Err(Outcome::ClientLeft),
            Ok(0) => return Ok(Next::Over),
            Ok(received) => received,
            Err(error) if is_transient(&error) => continue,
            // A client that resets between two requests leaves nothing undone.
            Err(_) if is_first || has_begun => return Err(Outcome::ClientLeft),
            Err(_) => return Ok(Next::Over),
        };
        // A request that came in one piece, as most do, is never copied before it is written anew.
        let understood = if end.pending().is_empty() {
            let received = &buffer[..received];
            let understood = understand(local, session, &mut reader, received);
            let used = match &understood {
                Ok(Understood::Order(_, used) | Understood::Answer(_, used, _)) => *used,
                Ok(Understood::More) => 0,
                // Of an HTTP/2 connection all of this goes on.
                Err(_) => 0,
            };
            end.push(&received[used..]);
            understood.map(Understood::without_use)
        } else {
            end.push(&buffer[..received]);
            understand(local, session, &mut reader, end.pending())
        };
        let next = take_in(end, understood?);
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

/// Takes what was understood out of what is pending; `None`: more is needed.
fn take_in(end: &mut ClientEnd, understood: Understood) -> Option<Next> {
    match understood {
        Understood::More => None,
        Understood::Order(order, used) => {
            end.consume(used);
            Some(Next::Order(order))
        }
        Understood::Answer(answer, used, goes_on) => {
            end.consume(used);
            Some(Next::Answer(answer, goes_on))
        }
    }
}

enum Waited {
    Readable,
    Draining,
    TooLong,
}

async fn wait(local: &Local, end: &mut ClientEnd, deadline: &Deadline, may_drain: bool) -> Waited {
    let watch = end
        .watch
        .get_or_insert_with(|| local.ring.readable(&end.socket));
    let mut idle = may_drain.then(|| local.idle_client());
    let waited = poll_fn(|context| {
        if Pin::new(&mut *watch).poll(context).is_ready() {
            return Poll::Ready(Waited::Readable);
        }
        if let Some(idle) = &mut idle
            && idle.poll_drain(context).is_ready()
        {
            return Poll::Ready(Waited::Draining);
        }
        deadline.poll_passed(context).map(|()| Waited::TooLong)
    })
    .await;
    if let Waited::Readable = waited {
        end.watch = None;
    }
    waited
}

/// Has one request answered. `false`: the connection ends with this answer.
async fn answer(
    local: &Rc<Local>,
    session: &mut Session,
    end: &mut ClientEnd,
    mut order: Order,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<bool, Ended> {
    let may_go_on = session.requests < local.limits.requests_per_connection_max;
    // What came whole can be sent again.
    let is_whole = order.rest.is_done();
    let mut may_reuse = true;
    loop {
        let upstream = upstream(local, session, &order, may_reuse, deadline, story);
        let mut upstream = upstream.await.map_err(Ended::Refused)?;
        let was_reused = upstream.reused;
        if was_reused {
            local.count(Counter::BackendsReused);
        }
        let mut carry = Carry::new(local, end, &mut upstream, &mut order, may_go_on);
        let finish = match carry.begin(deadline) {
            Some(finish) => finish,
            None => poll_fn(|context| carry.poll(deadline, context)).await,
        };
        carry.finish();
        match finish {
            Finish::Answered {
                client_goes_on,
                backend_goes_on,
            } => {
                session.last = Some((order.route.id(), upstream.backend.backend().clone()));
                if backend_goes_on {
                    upstream.reused = true;
                    match upstream.is_bound {
                        true => session.bound = Some(Box::new(upstream)),
                        false => idle::put(local, upstream),
                    }
                }
                return Ok(client_goes_on);
            }
            Finish::Upgraded => {
                let outcome = tunnel(local, end, &upstream, deadline).await;
                return Err(Ended::Over(outcome));
            }
            // The backend closed an idle connection while the request was on its way: a fresh one
            // is asked, where asking twice is no harm.
            Finish::Unanswered { unsent }
                if was_reused && is_whole && (unsent || order.idempotent) =>
            {
                local.count(Counter::RequestsRetried);
                may_reuse = false;
            }
            Finish::Unanswered { .. } => return Err(Ended::Refused(Outcome::BackendClosed)),
            Finish::Refused(outcome) => return Err(Ended::Refused(outcome)),
            Finish::CutOff(outcome) => {
                // A client that reads until the end must not take this for it.
                end.socket.abort_on_close();
                return Err(Ended::Over(outcome));
            }
        }
    }
}

/// A connection to a backend of the order's route: the client's own, the last one's idle one, that
/// of another one, or a new one.
async fn upstream(
    local: &Rc<Local>,
    session: &mut Session,
    order: &Order,
    may_reuse: bool,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<Upstream, Outcome> {
    let route = &order.route;
    let serves = |backend: &Arc<Backend>| {
        let slot = backend.slot();
        route.backends().iter().any(|other| other.slot() == slot)
    };
    let bound = session.bound.take();
    if let Some(bound) = bound
        && may_reuse
        && serves(bound.backend.backend())
    {
        return Ok(*bound);
    }
    let last = session.last.take();
    let last = last
        .filter(|(id, _)| *id == route.id())
        .map(|(_, last)| last);
    let first = match last {
        Some(last) => Some(last),
        None => local.chooser.borrow_mut().choose(route, &[]),
    };
    if may_reuse
        && let Some(first) = &first
        && let Some(upstream) = idle::take(local, first.slot())
    {
        story.set_backend(upstream.backend.text(), 0);
        return Ok(upstream);
    }
    let began = Instant::now();
    let dialled = dial_first(local, route, first, Protocol::Http, deadline).await?;
    local
        .metrics
        .borrow_mut()
        .record(Protocol::Http, Stage::Connect, began.elapsed());
    story.set_backend(dialled.backend.text(), dialled.attempts);
    Ok(Upstream::fresh(dialled))
}

/// Carries a whole HTTP/2 connection to the backend of its first request. The deadline is that of
/// the head.
async fn h2c(
    local: &Rc<Local>,
    session: &mut Session,
    end: &mut ClientEnd,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<Outcome, Outcome> {
    let bytes_max = local.limits.request_head_bytes_max;
    let host = loop {
        match first_host(end.pending(), bytes_max).map_err(Outcome::Refused)? {
            Some(host) => break host,
            None => read_more(local, end, deadline).await?,
        }
    };
    let route = order::route(local, Some(&host))?;
    if Story::is_wanted() {
        story.set_request(Some(&host));
    }
    session.requests = 1;
    local.count(Counter::Requests);
    let dialled = dial_first(local, &route, None, Protocol::Http, deadline).await?;
    story.set_backend(dialled.backend.text(), dialled.attempts);
    let upstream = Upstream::fresh(dialled);
    Ok(tunnel(local, end, &upstream, deadline).await)
}

async fn read_more(local: &Local, end: &mut ClientEnd, deadline: &Deadline) -> Result<(), Outcome> {
    if let Waited::TooLong = wait(local, end, deadline, false).await {
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

/// From here on the connection is in another protocol, and everything is relayed.
async fn tunnel(
    local: &Rc<Local>,
    end: &mut ClientEnd,
    upstream: &Upstream,
    deadline: &Deadline,
) -> Outcome {
    end.watch = None;
    let held = end.pending().to_vec();
    end.consume(held.len());
    if let Err(outcome) = send_all(local, &upstream.socket, &held, deadline).await {
        return outcome;
    }
    local
        .metrics
        .borrow_mut()
        .count(Counter::BytesToBackend, held.len() as u64);
    let backend = upstream.socket.clone();
    let mut relay = Relay::new(end.socket.clone(), backend, local.ring.now());
    relay.run(local, Protocol::Http, deadline).await.outcome
}

async fn send_all(
    local: &Local,
    to: &Socket,
    mut bytes: &[u8],
    deadline: &Deadline,
) -> Result<(), Outcome> {
    deadline.set(local.ring.now() + local.limits.response_deadline);
    while !bytes.is_empty() {
        match to.send(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = deadline.bound(local.ring.writable(to)).await;
                writable.ok_or(Outcome::ResponseTimeout)?.ok();
            }
            Err(_) => return Err(Outcome::BackendReset),
        }
    }
    Ok(())
}
