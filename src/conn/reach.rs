//! From a complete head to a backend that has it and answers. A TLS backend that closes or keeps
//! silent instead has made nothing but the client wait, who has not had a byte; so while the client
//! has sent its hello alone, which is still in hand, another backend gets it.

use super::Story;
use super::announce::announce;
use super::listed::Listed;
use super::send::send_all;
use crate::client::Client;
use crate::dial::{Round, dial};
use crate::lease::Lease;
use crate::local::Local;
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Begun, Relay};
use crate::ring::Deadline;
use crate::route::Route;
use crate::sniff::{Head, is_hello_alone};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

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

/// A backend that has the head, and has mostly begun to answer.
pub(super) struct Reached {
    pub relay: Relay,
    /// Ends with the connection.
    _listed: Option<Box<Listed>>,
    pub head_bytes: usize,
}

/// Goes from backend to backend until one answers, or none is left that might. The one that does is in
/// `place`, also when it fails then, since the relay passes on how.
pub(super) async fn reach(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    deadline: &Deadline,
    story: &mut Story,
    place: &mut Option<Reached>,
) -> Result<(), Outcome> {
    let mut round = Round::new(local);
    // Early data (RFC 8446 section 2.3) may have been acted upon, and must not be twice.
    let is_tls = arrival.protocol == Protocol::Tls;
    let may_go_round = is_tls && is_hello_alone(&arrival.received);
    let mut is_last = false;
    let mut since = local.ring.now();
    loop {
        let handed_over = hand_over(local, arrival, &mut round, deadline, story).await;
        let reached = match (handed_over, &mut *place) {
            // Only now is the one before given up.
            (Ok(reached), _) => {
                since = local.ring.now();
                place.insert(reached)
            }
            // One that keeps silent is better than none: it is waited for again.
            (Err(_), Some(silent)) => {
                is_last = true;
                silent
            }
            (Err(outcome), None) => return Err(outcome),
        };
        if !is_tls {
            // Who speaks first is not known here: to have accepted is all that can be told.
            reached.relay.accepted(local);
            return Ok(());
        }
        let has_another =
            |round: &Round| may_go_round && !is_last && round.has_another(local, &arrival.route);
        match reached
            .answer(
                local,
                arrival.protocol,
                &round,
                since,
                has_another,
                deadline,
            )
            .await
        {
            Begun::Answered => {
                round.answered(local, reached.relay.live().backend());
                return Ok(());
            }
            Begun::ClientWentOn => return Ok(()),
            Begun::Silent if !has_another(&round) => {
                *place = None;
                return Err(Outcome::IdleTimeout);
            }
            Begun::Silent => {
                round.unanswered(local, reached.relay.live(), Outcome::BackendTimeout);
            }
            Begun::Unanswered(_) if !has_another(&round) => return Ok(()),
            Begun::Unanswered(outcome) => {
                round.unanswered(local, reached.relay.live(), outcome);
                reached.relay.give_up(local);
                *place = None;
            }
            // No fault of its own.
            Begun::Removed if has_another(&round) => {
                local.count(Counter::WentRound);
                reached.relay.give_up(local);
                *place = None;
            }
            Begun::Removed => {
                *place = None;
                return Err(Outcome::BackendRemoved);
            }
        }
    }
}

impl Reached {
    /// Waits for the first byte: while another backend may have it, as long as a connect may take,
    /// otherwise as long as a connection may be idle. It has had the head since `since`.
    async fn answer(
        &mut self,
        local: &Local,
        protocol: Protocol,
        round: &Round,
        since: Instant,
        has_another: impl Fn(&Round) -> bool,
        deadline: &Deadline,
    ) -> Begun {
        if has_another(round) {
            let ends = local.ring.now() + self.relay.live().patience(local);
            deadline.set(ends.min(round.ends()));
            let begun = self.relay.begin(local, protocol, deadline).await;
            if begun != Begun::Silent || has_another(round) {
                return begun;
            }
        }
        deadline.set(since + local.limits.idle_deadline);
        self.relay.begin(local, protocol, deadline).await
    }
}

/// Connects to the next backend and gives it the head.
async fn hand_over(
    local: &Rc<Local>,
    arrival: &Arrival<'_>,
    round: &mut Round,
    deadline: &Deadline,
    story: &mut Story,
) -> Result<Reached, Outcome> {
    let Arrival {
        client, protocol, ..
    } = *arrival;
    let routed = Instant::now();
    let dialled = dial(local, &arrival.route, protocol, client, round, deadline).await?;
    story.set_backend(dialled.backend.text(), dialled.attempts);
    let spent = routed.elapsed();
    local
        .metrics
        .borrow_mut()
        .record(protocol, Stage::Connect, spent);
    let head = arrival.told.as_deref();
    // Before the backend has a byte, so that it can ask as soon as it knows of the client.
    let listed = head.and_then(|head| {
        Listed::new(
            local,
            client,
            &dialled.socket,
            &dialled.backend,
            head,
            arrival.accepted,
        )
    });
    let lease = Lease::new(
        local,
        &arrival.route,
        protocol,
        head.and_then(|head| head.name.as_ref()),
        dialled.backend.backend().slot(),
    );
    let announced = match dialled.backend.delivery().proxy {
        Some(version) => {
            let announced = announce(local, client, version, head, &arrival.received)?;
            story.set_id(announced.id);
            Some(announced.bytes)
        }
        None => None,
    };
    let outgoing = announced.as_deref().unwrap_or(&arrival.received);
    // Verbatim, before anything else goes to the backend.
    deadline.set(local.ring.now() + local.limits.head_deadline);
    let sent = deadline
        .bound(send_all(local, &dialled.socket, outgoing))
        .await;
    sent.ok_or(Outcome::BackendTimeout)?
        .map_err(|_| Outcome::BackendUnreachable)?;
    let head_sent = Instant::now();
    let head_bytes = arrival.received.len();
    {
        let mut metrics = local.metrics.borrow_mut();
        metrics.count(Counter::BytesToBackend, head_bytes as u64);
        metrics.count(Counter::CopiedBytes, outgoing.len() as u64);
    }
    let socket = client.socket().clone();
    Ok(Reached {
        relay: Relay::new(socket, dialled.socket, dialled.backend, lease, head_sent),
        _listed: listed,
        head_bytes,
    })
}
