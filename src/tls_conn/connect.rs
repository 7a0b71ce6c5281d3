//! From a complete head to a backend that has the head and answers. A TLS backend that closes instead, or
//! keeps silent, has cost nothing but time: the client has had no byte. So while the client has sent
//! nothing behind its hello, which is still in memory, the next backend gets the hello.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::race::{Candidate, Connected, Position, Race, WorkOrEvent};
use crate::client::{
    AccessLogEntry, Client, HeadWithProxy, LookupEntry, OpenConnection, send_counting,
    write_proxy_header,
};
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{FirstEvent, Relay, RelayParts};
use crate::ring::Deadline;
use crate::route::Route;
use crate::sniff::{Head, Sniff, Sniffer, is_hello_alone};
use crate::state::Local;
use crate::upstream::{Attempts, DialRequest, Dialled, LiveBackend, RemovalWatch, dial};

/// A client whose head is complete and whose route is known.
pub(super) struct RoutedClient<'c> {
    pub client: &'c Client,
    pub protocol: Protocol,
    pub accepted: Instant,
    pub route: Arc<Route>,
    /// The parsed head, where a PROXY header, the look-up table or a [`RemovalWatch`] needs it.
    pub kept_head: Option<Rc<Head>>,
    /// Every byte that the client has sent.
    pub received: Vec<u8>,
}

/// Tries one backend after the other until one answers, or none is left that might. That backend is put
/// into `connected`, also when it has failed meanwhile, since the relay passes on how it failed.
pub(super) async fn connect_to_backend(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
    connected: &mut Option<Connected>,
) -> Result<(), Outcome> {
    let mut attempts = Attempts::new(local);
    let candidate = match routed.protocol {
        Protocol::Tls => first_to_answer(local, routed, attempts, deadline, entry).await?,
        // The protocol is unknown, and the client may be the one that sends first. So a backend that
        // accepts counts as one that answers.
        Protocol::Http | Protocol::Tcp => {
            let sent = next_candidate(local, routed, &mut attempts, deadline, entry).await;
            let mut candidate =
                sent.map_err(|outcome| fail(local, routed, outcome, &attempts, entry))?;
            candidate.connected.relay.accept_is_answer(local);
            candidate
        }
    };
    let backend = candidate.connected.relay.live().text();
    entry.set_backend(backend, candidate.attempts);
    if let Some(id) = candidate.id {
        entry.set_id(id);
    }
    *connected = Some(candidate.connected);
    Ok(())
}

/// Sends the head to one backend after the other, whenever the newest one is too slow or has closed,
/// until one of them answers. Slow ones stay in the race, since a late answer is better than none, and
/// the others may be no faster.
async fn first_to_answer(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    mut attempts: Attempts,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Candidate, Outcome> {
    // Early data (RFC 8446 section 2.3) may have been acted upon by the first backend that got it, so no
    // second one may get it.
    let mut may_retry = is_hello_alone(&routed.received);
    let mut race = Race::default();
    loop {
        if race.needs_candidate() {
            let connecting = next_candidate(local, routed, &mut attempts, deadline, entry);
            match race.beside(local, connecting).await {
                WorkOrEvent::Done(Ok(candidate)) => race.enter(candidate),
                WorkOrEvent::Done(Err(outcome)) => {
                    may_retry = false;
                    if !race.fall_back() {
                        return Err(fail(local, routed, outcome, &attempts, entry));
                    }
                }
                WorkOrEvent::Event(event) => match race.settle(local, &mut attempts, event) {
                    Some(candidate) => return Ok(candidate),
                    None => continue,
                },
            }
        }
        let route = &routed.route;
        let has_another = |attempts: &Attempts| may_retry && attempts.has_another(local, route);
        let event = race
            .next_event(local, &attempts, has_another, deadline)
            .await;
        let Some(event) = event else {
            if !has_another(&attempts) {
                return Err(Outcome::IdleTimeout);
            }
            race.open_to_another(local, &mut attempts);
            continue;
        };
        let is_last = || {
            event.position == Position::Newest && race.has_only_newest() && !has_another(&attempts)
        };
        match event.event {
            FirstEvent::BackendRemoved if is_last() => return Err(Outcome::BackendRemoved),
            // The relay passes on how it has ended.
            FirstEvent::BackendEnded(_) if is_last() => return Ok(race.into_newest()),
            _ => {}
        }
        if let Some(candidate) = race.settle(local, &mut attempts, event) {
            return Ok(candidate);
        }
        if race.needs_candidate() && !has_another(&attempts) {
            may_retry = false;
            race.fall_back();
        }
    }
}

/// Notes that no backend is left; the log says which one was tried last.
fn fail(
    local: &Local,
    routed: &RoutedClient<'_>,
    outcome: Outcome,
    attempts: &Attempts,
    entry: &mut AccessLogEntry,
) -> Outcome {
    // Parsed again, since most connections do not keep their parsed head.
    let host = || {
        if routed.protocol != Protocol::Tls {
            return None;
        }
        let mut sniffer = Sniffer::new(local.limits.hello_bytes_max);
        match sniffer.advance(&routed.received) {
            Sniff::Found(head) => head.name.map(|name| name.to_string()),
            _ => None,
        }
    };
    attempts.log_failure(local, &routed.route, outcome, host, entry)
}

/// Connects to the next backend and sends it the head. When the backend does not take the head, the one
/// after it is tried.
async fn next_candidate(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    attempts: &mut Attempts,
    deadline: &Deadline,
    entry: &mut AccessLogEntry,
) -> Result<Candidate, Outcome> {
    let protocol = routed.protocol;
    let request = DialRequest {
        local,
        route: &routed.route,
        protocol,
        client: routed.client,
        deadline,
    };
    loop {
        let began = Instant::now();
        let dialled = dial(request, attempts).await?;
        entry.set_backend(dialled.backend.text(), dialled.attempts);
        local
            .metrics
            .borrow_mut()
            .record(protocol, Stage::Connect, began.elapsed());
        let not_taken = match send_head(local, routed, dialled, deadline).await? {
            HeadSent::Taken(candidate) => return Ok(candidate),
            HeadSent::NotTaken(not_taken) => not_taken,
        };
        let NotTaken {
            backend,
            outcome,
            has_part,
        } = not_taken;
        // A retry does no harm when the backend has nothing to act upon: no byte at all, or a mere hello.
        let may_retry = !has_part || protocol == Protocol::Tls && is_hello_alone(&routed.received);
        backend.record_failure(local, outcome);
        if !may_retry {
            return Err(outcome);
        }
        attempts.record_retry(local, &backend, outcome);
    }
}

/// What came of sending the head to a connected backend.
#[expect(clippy::large_enum_variant, reason = "moved once, and not to the heap")]
enum HeadSent {
    Taken(Candidate),
    NotTaken(NotTaken),
}

/// A backend that accepted the connection and did not take the head.
struct NotTaken {
    backend: LiveBackend,
    outcome: Outcome,
    /// The backend may have a part of the head.
    has_part: bool,
}

/// Sends the head to a backend that was just connected to: as it was received, behind the PROXY header
/// where the backend expects one, and before anything else.
async fn send_head(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    dialled: Dialled,
    deadline: &Deadline,
) -> Result<HeadSent, Outcome> {
    // Entered before the backend has a byte, so that it can look the client up as soon as it has one.
    let lookup_entry = lookup_entry(local, routed, &dialled);
    let removal = removal_watch(local, routed, &dialled);
    let with_proxy = with_proxy_header(local, routed, &dialled)?;
    let outgoing = with_proxy
        .as_ref()
        .map_or(&routed.received, |with_proxy| &with_proxy.bytes);
    deadline.set(local.ring.now() + local.limits.head_deadline);
    // Counted through a reference, since the deadline may end the sending within the head.
    let mut sent_bytes = 0;
    let sending = send_counting(local, &dialled.socket, outgoing, &mut sent_bytes);
    let outcome = match deadline.bound(sending).await {
        Some(Ok(())) => None,
        Some(Err(_)) => Some(Outcome::BackendUnreachable),
        None => Some(Outcome::BackendTimeout),
    };
    if let Some(outcome) = outcome {
        return Ok(HeadSent::NotTaken(NotTaken {
            backend: dialled.backend,
            outcome,
            has_part: sent_bytes > 0,
        }));
    }
    let head_sent = Instant::now();
    let head_bytes = routed.received.len();
    {
        let mut metrics = local.metrics.borrow_mut();
        metrics.count(Counter::BytesFromClients, head_bytes as u64);
        metrics.count(Counter::CopiedBytes, outgoing.len() as u64);
    }
    let relay = Relay::new(RelayParts {
        client: routed.client.socket().clone(),
        backend: dialled.socket,
        live: dialled.backend,
        removal,
        head_sent,
    });
    Ok(HeadSent::Taken(Candidate {
        connected: Connected {
            relay,
            _lookup_entry: lookup_entry,
            head_bytes,
        },
        head_sent: local.ring.now(),
        attempts: dialled.attempts,
        id: with_proxy.map(|with_proxy| with_proxy.id),
    }))
}

fn lookup_entry(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    dialled: &Dialled,
) -> Option<Box<LookupEntry>> {
    let connection = OpenConnection {
        client: routed.client,
        accepted: routed.accepted,
        head: routed.kept_head.as_deref()?,
        backend: dialled.backend.text(),
        backend_socket: &dialled.socket,
    };
    LookupEntry::new(local, &connection)
}

fn removal_watch(
    local: &Rc<Local>,
    routed: &RoutedClient<'_>,
    dialled: &Dialled,
) -> Option<Box<RemovalWatch>> {
    let head = routed.kept_head.as_deref();
    let name = head.and_then(|head| head.name.as_ref());
    let slot = dialled.backend.backend().slot();
    RemovalWatch::new(local, &routed.route, routed.protocol, name, slot)
}

fn with_proxy_header(
    local: &Local,
    routed: &RoutedClient<'_>,
    dialled: &Dialled,
) -> Result<Option<HeadWithProxy>, Outcome> {
    let Some(version) = dialled.backend.delivery().proxy else {
        return Ok(None);
    };
    let head = routed.kept_head.as_deref();
    write_proxy_header(local, routed.client, version, head, &routed.received).map(Some)
}
