//! From a complete head to a backend that has it and answers. A TLS backend that closes or keeps
//! silent instead has made nothing but the client wait, who has not had a byte; so while the client
//! has sent its hello alone, which is still in hand, another backend gets it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::race::{Asked, Meanwhile, Race, Reached, Who};
use crate::client::{
    AccessLogEntry, Client, LookupEntry, failure, send_counting, write_proxy_header,
};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Begun, Relay};
use crate::ring::Deadline;
use crate::route::Route;
use crate::sniff::{Head, Sniff, Sniffer, is_hello_alone};
use crate::state::Local;
use crate::upstream::{Attempts, Dialled, LiveBackend, RemovalWatch, dial};

/// A client whose head is complete.
pub(super) struct Arrival<'c> {
    pub client: &'c Client,
    pub protocol: Protocol,
    pub accepted: Instant,
    pub route: Arc<Route>,
    /// For those who are to be told of it.
    pub told: Option<Rc<Head>>,
    /// Every byte that came.
    pub received: Vec<u8>,
}

/// Goes from backend to backend until one answers, or none is left that might. The one that does is in
/// `place`, also when it fails then, since the relay passes on how.
pub(super) async fn reach(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
    place: &mut Option<Reached>,
) -> Result<(), Outcome> {
    let mut attempts = Attempts::new(local);
    let asked = match arrival.protocol {
        Protocol::Tls => first_to_answer(local, arrival, attempts, deadline, entry).await?,
        // Who speaks first is not known here: to have accepted is all that can be told.
        Protocol::Http | Protocol::Tcp => {
            let handed_over = hand_over(local, arrival, &mut attempts, deadline, entry).await;
            let mut asked =
                handed_over.map_err(|outcome| fail(local, arrival, outcome, &attempts, entry))?;
            asked.reached.relay.accepted(local);
            asked
        }
    };
    entry.set_backend(asked.reached.relay.live().text(), asked.attempts);
    if let Some(id) = asked.id {
        entry.set_id(id);
    }
    *place = Some(asked.reached);
    Ok(())
}

/// Gives the head to one backend after the other, each time the last one was too slow or has closed,
/// until one of them answers. Those that keep silent stay, since the slowest that answers is better
/// than none, and others may be no quicker.
async fn first_to_answer(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    mut attempts: Attempts,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Asked, Outcome> {
    // Early data (RFC 8446 section 2.3) may have been acted upon, and must not be twice.
    let mut may_go_on = is_hello_alone(&arrival.received);
    let mut race = Race::default();
    loop {
        if race.has_nobody() {
            let handing_over = hand_over(local, arrival, &mut attempts, deadline, entry);
            match race.meanwhile(local, handing_over).await {
                Meanwhile::Done(Ok(asked)) => race.enter(asked),
                Meanwhile::Done(Err(outcome)) => {
                    may_go_on = false;
                    race.fall_back()
                        .ok_or_else(|| fail(local, arrival, outcome, &attempts, entry))?;
                }
                Meanwhile::Heard(who, begun) => match race.settle(local, &mut attempts, who, begun)
                {
                    Some(asked) => return Ok(asked),
                    None => continue,
                },
            }
        }
        let route = &arrival.route;
        let has_another = |attempts: &Attempts| may_go_on && attempts.has_another(local, route);
        match race.listen(local, &attempts, has_another, deadline).await {
            None if !has_another(&attempts) => return Err(Outcome::IdleTimeout),
            None => race.goes_on(local, &mut attempts),
            Some((Who::Current, Begun::Removed)) if race.is_alone() && !has_another(&attempts) => {
                return Err(Outcome::BackendRemoved);
            }
            // The relay passes on how it has ended.
            Some((Who::Current, Begun::Unanswered(_)))
                if race.is_alone() && !has_another(&attempts) =>
            {
                return Ok(race.leave_it());
            }
            Some((who, begun)) => {
                if let Some(asked) = race.settle(local, &mut attempts, who, begun) {
                    return Ok(asked);
                }
                if race.has_nobody() && !has_another(&attempts) {
                    may_go_on = false;
                    race.fall_back();
                }
            }
        }
    }
}

/// No backend is left: the log says which was the last.
fn fail(
    local: &Local,
    arrival: &Arrival<'_>,
    outcome: Outcome,
    attempts: &Attempts,
    entry: &mut AccessLogEntry,
) -> Outcome {
    let (slot, attempts) = attempts.last_tried();
    let backend = failure::backend_text(&arrival.route, slot);
    entry.set_backend(backend.unwrap_or_default(), attempts);
    // Kept only where somebody is to be told of it, and read again here.
    let host = || {
        if arrival.protocol != Protocol::Tls {
            return None;
        }
        let mut sniffer = Sniffer::new(local.limits.hello_bytes_max);
        match sniffer.advance(&arrival.received) {
            Sniff::Found(head) => head.name.map(|name| name.to_string()),
            _ => None,
        }
    };
    failure::note(local, outcome, host, backend, attempts, None)
}

/// Connects to the next backend and gives it the head; to another one when it does not take that.
async fn hand_over(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    attempts: &mut Attempts,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Asked, Outcome> {
    loop {
        let routed = Instant::now();
        let dialled = dial(
            local,
            &arrival.route,
            arrival.protocol,
            arrival.client,
            attempts,
            deadline,
        )
        .await?;
        entry.set_backend(dialled.backend.text(), dialled.attempts);
        local
            .metrics
            .borrow_mut()
            .record(arrival.protocol, Stage::Connect, routed.elapsed());
        match give_head(local, arrival, dialled, deadline).await? {
            Ok(asked) => return Ok(asked),
            Err(NotTaken {
                backend,
                outcome,
                has_any,
            }) => {
                // Nobody can have acted upon what nobody has, nor upon a hello.
                let may_go_on = !has_any
                    || arrival.protocol == Protocol::Tls && is_hello_alone(&arrival.received);
                backend.failed(local, outcome);
                if !may_go_on {
                    return Err(outcome);
                }
                attempts.goes_on(local, &backend, outcome);
            }
        }
    }
}

/// A backend that accepted and did not take the head.
struct NotTaken {
    backend: LiveBackend,
    outcome: Outcome,
    /// It may have a part of it.
    has_any: bool,
}

/// Gives the head to a backend that was just connected, verbatim and before anything else.
async fn give_head(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    dialled: Dialled,
    deadline: &Deadline,
) -> Result<Result<Asked, NotTaken>, Outcome> {
    let Arrival {
        client, protocol, ..
    } = *arrival;
    let head = arrival.told.as_deref();
    // Before the backend has a byte, so that it can ask as soon as it knows of the client.
    let lookup_entry = head.and_then(|head| {
        LookupEntry::new(
            local,
            client,
            &dialled.socket,
            dialled.backend.text(),
            head,
            arrival.accepted,
        )
    });
    let removal = RemovalWatch::new(
        local,
        &arrival.route,
        protocol,
        head.and_then(|head| head.name.as_ref()),
        dialled.backend.backend().slot(),
    );
    let announced = match dialled.backend.delivery().proxy {
        Some(version) => Some(write_proxy_header(
            local,
            client,
            version,
            head,
            &arrival.received,
        )?),
        None => None,
    };
    let outgoing = announced
        .as_ref()
        .map_or(&arrival.received, |announced| &announced.bytes);
    deadline.set(local.ring.now() + local.limits.head_deadline);
    let mut sent_bytes = 0;
    let sending = send_counting(local, &dialled.socket, outgoing, &mut sent_bytes);
    let outcome = match deadline.bound(sending).await {
        Some(Ok(())) => None,
        Some(Err(_)) => Some(Outcome::BackendUnreachable),
        None => Some(Outcome::BackendTimeout),
    };
    if let Some(outcome) = outcome {
        return Ok(Err(NotTaken {
            backend: dialled.backend,
            outcome,
            has_any: sent_bytes > 0,
        }));
    }
    let head_sent = Instant::now();
    let head_bytes = arrival.received.len();
    {
        let mut metrics = local.metrics.borrow_mut();
        metrics.count(Counter::BytesToBackend, head_bytes as u64);
        metrics.count(Counter::CopiedBytes, outgoing.len() as u64);
    }
    let socket = client.socket().clone();
    let backend = dialled.backend;
    Ok(Ok(Asked {
        reached: Reached {
            relay: Relay::new(socket, dialled.socket, backend, removal, head_sent),
            _lookup_entry: lookup_entry,
            head_bytes,
        },
        since: local.ring.now(),
        attempts: dialled.attempts,
        id: announced.map(|announced| announced.id),
    }))
}
