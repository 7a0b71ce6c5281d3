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
mod run;
mod tunnel;
mod upstream;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use carry::{Carry, Finish};
use client_end::ClientEnd;
pub(crate) use idle::{IdlePool, keep as keep_idle};
use idle::{Owner, Upstream};
use order::{Order, Understood, understand};
use tunnel::{h2c, tunnel};
use upstream::{head_of, introduce, upstream};

use crate::client::Client;
use crate::conn::head::{left, read_front};
use crate::conn::linger::linger;
use crate::conn::listed::Listed;
use crate::conn::send::send_all;
use crate::conn::{Story, admit, failure, farewell};
use crate::http::{Hop, RequestReader};
use crate::lease::Lease;
use crate::local::Local;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::begins_with_signature;
use crate::refusal::Refusal;
use crate::ring::Deadline;
use crate::route::Backend;
use crate::sys::is_transient;

/// What a connection remembers from one request to the next.
pub(crate) struct Session<'c> {
    client: &'c Client,
    accepted: Instant,
    requests: u32,
    hop: Cell<Option<Hop>>,
    /// The route of the last request and the backend that had it.
    last: Option<(u64, Arc<Backend>)>,
    /// Of connections to backends that are this client's alone.
    owner: Owner<'c>,
}

/// Serves a client that was just accepted to its end.
pub(crate) async fn serve(
    local: &Rc<Local>,
    client: &Client,
    deadline: &Deadline,
    accepted: Instant,
    story: &mut Story,
) -> Outcome {
    let mut session = Session {
        client,
        accepted,
        requests: 0,
        hop: Cell::new(None),
        last: None,
        owner: Owner::new(local),
    };
    let mut end = ClientEnd::new(client.socket().clone(), Vec::new());
    if let Err(outcome) = admit::at_accept(local, client) {
        return refuse(local, &end, outcome, deadline).await;
    }
    if !local.proxy.from.is_empty() {
        deadline.set(accepted + local.limits.head_deadline);
        let introduced = Box::pin(deadline.bound(read_front(local, client))).await;
        match introduced.unwrap_or(Err(Outcome::HeadTimeout)) {
            Ok(received) => end.push(&received),
            Err(outcome) => return refuse(local, &end, outcome, deadline).await,
        }
    }
    loop {
        let order = match next_order(local, &session, &mut end, deadline, story).await {
            Ok(Next::Order(order)) => order,
            Ok(Next::Answer(answer, goes_on)) => {
                session.requests += 1;
                deadline.set(local.ring.now() + local.limits.response_deadline);
                let sending = Box::pin(send_all(local, &end.socket, &answer));
                story.add_bytes(0, answer.len() as u64);
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
                let carried = h2c(local, &mut session, &mut end, deadline, story);
                return match Box::pin(carried).await {
                    Ok(outcome) => outcome,
                    Err(outcome) => refuse(local, &end, outcome, deadline).await,
                };
            }
            Err(outcome) => return refuse(local, &end, outcome, deadline).await,
        };
        session.requests += 1;
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
        Box::pin(linger(local, &end.socket, &[], deadline)).await;
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
    session: &Session<'_>,
    end: &mut ClientEnd,
    deadline: &Deadline,
    story: &mut Story,
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
        let understood = understand(local, session, &mut reader, end.pending(), story);
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
            Ok(0) if is_first || has_begun => return Err(left(session.client, end.pending())),
            Ok(0) => return Ok(Next::Over),
            Ok(received) => received,
            Err(error) if is_transient(&error) => continue,
            // A client that resets between two requests leaves nothing undone.
            Err(_) if is_first || has_begun => return Err(left(session.client, end.pending())),
            Err(_) => return Ok(Next::Over),
        };
        // A request that came in one piece, as most do, is never copied before it is written anew.
        let understood = if end.pending().is_empty() {
            let received = &buffer[..received];
            let understood = understand(local, session, &mut reader, received, story);
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
            understand(local, session, &mut reader, end.pending(), story)
        };
        // Who may not introduce a client, and does, is told apart from who speaks no HTTP.
        let understood = match understood {
            Err(Outcome::Refused(_)) if is_first => match begins_with_signature(end.pending()) {
                Some(true) => Err(Outcome::Refused(Refusal::ProxyUntrusted)),
                Some(false) => understood,
                None => Ok(Understood::More),
            },
            _ => understood,
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
    let waited = poll_fn(|context| {
        if Pin::new(&mut *watch).poll(context).is_ready() {
            return Poll::Ready(Waited::Readable);
        }
        if may_drain && let Some(leaves) = local.idle_leaves_at(deadline) {
            if local.ring.now() >= leaves {
                return Poll::Ready(Waited::Draining);
            }
            deadline.set_no_later(leaves);
        }
        deadline.poll_passed(context).map(|()| Waited::TooLong)
    })
    .await;
    if let Waited::Readable = waited {
        end.watch = None;
    }
    waited
}

/// The client is to be told, and the log says of which backend.
fn failed(
    local: &Local,
    outcome: Outcome,
    order: &Order,
    upstream: &Upstream,
    attempts: u32,
    rule: Option<&'static str>,
) -> Ended {
    let backend = Some(upstream.backend.text());
    let outcome = failure::note(
        local,
        outcome,
        || order.host_text(),
        backend,
        attempts,
        rule,
    );
    Ended::Refused(outcome)
}

/// Has one request answered. `false`: the connection ends with this answer.
async fn answer(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    end: &mut ClientEnd,
    mut order: Order,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<bool, Ended> {
    let may_go_on = session.requests < local.limits.requests_per_connection_max;
    // What came whole can be sent again.
    let is_whole = order.rest.is_done();
    let mut may_reuse = true;
    let mut round = None;
    let mut plain = None;
    loop {
        // Each backend is introduced to the client in its own way.
        if let Some(plain) = plain.take() {
            order.outgoing = plain;
        }
        let upstream = upstream(
            local, session, &order, may_reuse, &mut round, deadline, story,
        );
        let mut upstream = upstream.await.map_err(Ended::Refused)?;
        let was_reused = upstream.reused;
        if was_reused {
            local.count(Counter::BackendsReused);
        } else {
            let name = order.name.as_deref();
            let outgoing = introduce(
                local,
                session.client,
                &upstream,
                name,
                &order.outgoing,
                story,
            );
            if let Some(outgoing) = outgoing.map_err(Ended::Refused)? {
                plain = Some(std::mem::replace(&mut order.outgoing, outgoing));
            }
        }
        let _listed = local.lookup.as_ref().and_then(|_| {
            let head = head_of(order.name.as_deref());
            let (socket, backend) = (&upstream.socket, &upstream.backend);
            Listed::new(
                local,
                session.client,
                socket,
                backend,
                &head,
                session.accepted,
            )
        });
        let lease = Lease::new(
            local,
            &order.route,
            Protocol::Http,
            order.name.as_deref(),
            upstream.backend.backend().slot(),
        );
        let mut carry = Carry::new(
            local,
            end,
            &mut upstream,
            &mut order,
            may_go_on,
            lease.as_deref(),
        );
        let finish = match carry.begin(deadline) {
            Some(finish) => finish,
            None => poll_fn(|context| carry.poll(deadline, context)).await,
        };
        let rule = carry.rule;
        story.set_rule(rule);
        let (to_backend, to_client) = carry.finish();
        story.add_bytes(to_backend, to_client);
        if finish.is_answer() {
            upstream.backend.answered(local);
            if let Some(round) = &mut round {
                round.answered(local, upstream.backend.backend());
            }
        }
        // None where an idle connection was there.
        let attempts = round.as_ref().map_or(0, |round| round.last_tried().1);
        let refused = |outcome| failed(local, outcome, &order, &upstream, attempts, rule);
        match finish {
            Finish::Answered {
                client_goes_on,
                backend_goes_on,
            } => {
                session.last = Some((order.route.id(), upstream.backend.backend().clone()));
                if backend_goes_on {
                    upstream.reused = true;
                    let max = order.route.connections_max(upstream.backend.backend());
                    idle::put(local, upstream, &session.owner, order.host_key, max);
                }
                return Ok(client_goes_on);
            }
            Finish::Upgraded(unsent) => {
                // It counts for as long as it lives; a route that was replaced is not kept that long.
                let _place = order.place.take();
                drop(order);
                let outcome =
                    tunnel(local, end, upstream, Some(unsent), deadline, lease, story).await;
                return Err(Ended::Over(outcome));
            }
            // Where asking twice is no harm.
            Finish::Unanswered { unsent } if unsent || is_whole && order.idempotent => {
                may_reuse = false;
                if was_reused {
                    // It closed an idle connection while the request was on its way: a fresh one is
                    // asked.
                    local.count(Counter::RequestsRetried);
                } else {
                    // A fresh one did the same: another backend is asked, and if that answers, the
                    // first is to blame.
                    let another = round
                        .as_mut()
                        .filter(|round| round.has_another(local, &order.route));
                    let Some(round) = another else {
                        return Err(refused(Outcome::BackendClosed));
                    };
                    round.unanswered(local, &upstream.backend, Outcome::BackendClosed);
                }
            }
            Finish::Unanswered { .. } => return Err(refused(Outcome::BackendClosed)),
            Finish::Removed if is_whole && order.idempotent => {
                order.route = match local.route(Protocol::Http, order.name.as_deref()) {
                    Ok(route) => route,
                    Err(_) => return Err(Ended::Refused(Outcome::BackendRemoved)),
                };
                local.count(Counter::WentRound);
                round = None;
            }
            Finish::Removed => return Err(Ended::Refused(Outcome::BackendRemoved)),
            Finish::Refused(outcome) => return Err(refused(outcome)),
            Finish::CutOff(outcome) => {
                // A client that reads until the end must not take this for it.
                end.socket.abort_on_close();
                return Err(Ended::Over(outcome));
            }
        }
    }
}
