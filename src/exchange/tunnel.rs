//! Connections that are no longer a sequence of requests: after 101, and HTTP/2 from its beginning.

use std::rc::Rc;

use super::client_end::ClientEnd;
use super::idle::Upstream;
use super::upstream::{head_of, introduce};
use super::{Session, Waited, wait};
use crate::conn::listed::Listed;
use crate::conn::{Story, admit, failure};
use crate::dial::{Round, dial};
use crate::http::h2c::FirstRequest;
use crate::lease::Lease;
use crate::local::Local;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::Relay;
use crate::ring::Deadline;
use crate::sys::is_transient;

/// Carries a whole HTTP/2 connection to the backend of its first request. The deadline is that of
/// the head.
pub(super) async fn h2c(
    local: &Rc<Local>,
    session: &mut Session<'_>,
    end: &mut ClientEnd,
    deadline: &Deadline,
    story: &mut Story,
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
    let _place = admit::to_host(local, &route, Protocol::Http, Some(&host))?;
    story.set_request(Some(&host));
    session.requests = 1;
    local.count(Counter::Requests);
    let mut round = Round::new(local);
    let client = session.client;
    let (upstream, _listed) = loop {
        let dialled = dial(local, &route, Protocol::Http, client, &mut round, deadline).await;
        let dialled = dialled.map_err(|outcome| {
            let (slot, attempts) = round.last_tried();
            let backend = failure::backend_text(&route, slot);
            story.set_backend(backend.unwrap_or_default(), attempts);
            failure::note(
                local,
                outcome,
                || Some(host.to_string()),
                backend,
                attempts,
                None,
            )
        })?;
        story.set_backend(dialled.backend.text(), dialled.attempts);
        let upstream = Upstream::fresh(dialled);
        let listed = Listed::new(
            local,
            client,
            &upstream.socket,
            &upstream.backend,
            &head_of(Some(&host)),
            session.accepted,
        );
        let received = end.pending();
        let introduced = introduce(local, client, &upstream, Some(&host), received, story)?;
        let first = introduced.as_deref().unwrap_or(received);
        match upstream.socket.send(first) {
            Ok(sent_bytes) => {
                let mut metrics = local.metrics.borrow_mut();
                metrics.count(Counter::BytesToBackend, sent_bytes as u64);
                metrics.count(Counter::CopiedBytes, sent_bytes as u64);
                story.add_bytes(sent_bytes as u64, 0);
                *end = ClientEnd::new(end.socket.clone(), first[sent_bytes..].to_vec());
                break (upstream, listed);
            }
            Err(error) if is_transient(&error) => {
                *end = ClientEnd::new(end.socket.clone(), first.to_vec());
                break (upstream, listed);
            }
            // It has had none of it.
            Err(_) => {
                let outcome = Outcome::BackendUnreachable;
                upstream.backend.failed(local, outcome);
                round.goes_on(local, &upstream.backend, outcome);
            }
        }
    };
    let slot = upstream.backend.backend().slot();
    let lease = Lease::new(local, &route, Protocol::Http, Some(&host), slot);
    // A route that was replaced is not kept for as long as a tunnel may live.
    drop(route);
    Ok(tunnel(local, end, upstream, None, deadline, lease, story).await)
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

/// From here on the connection is in another protocol, and everything is relayed. First what is
/// `unsent` of the backend's answer, where it has given one.
pub(super) async fn tunnel(
    local: &Rc<Local>,
    end: &mut ClientEnd,
    upstream: Upstream,
    unsent: Option<Vec<u8>>,
    deadline: &Deadline,
    lease: Option<Box<Lease>>,
    story: &mut Story,
) -> Outcome {
    end.watch = None;
    let held = end.pending().to_vec();
    end.consume(held.len());
    let mut relay = Relay::new(
        end.socket.clone(),
        upstream.socket,
        upstream.backend,
        lease,
        local.ring.now(),
    );
    relay.carry_first(held, unsent);
    let relayed = relay.run(local, Protocol::Http, deadline).await;
    story.add_bytes(relayed.bytes_to_backend, relayed.bytes_to_client);
    relayed.outcome
}
