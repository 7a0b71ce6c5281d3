//! The life of one connection, from accept to its one [`Outcome`]: read the head, look up the
//! name, connect to a backend, send it the head, relay. Each step is one function below, in that
//! order; whatever ends the connection early comes back as the outcome and is told to the client
//! in one place.

pub(crate) mod announce;
pub(crate) mod head;
pub(crate) mod listed;

use crate::client::Client;
use crate::dial::{LiveBackend, dial};
use crate::exchange;
use crate::local::Local;
use crate::metrics::{Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Relay, Relayed};
use crate::reply;
use crate::ring::Deadline;
use crate::route::{Host, Route};
use crate::sniff::Head;
use crate::sys::Socket;
use announce::announce;
use listed::Listed;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a refusal the client may take this long to finish sending and read the answer; closing
/// at once with its bytes unread would reset the connection and destroy the answer on its way.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);
/// A client that sends more than this after a refusal is not going to read the answer.
const FAREWELL_BYTES_MAX: usize = 256 * 1024;
/// As long a client may take all in all, while it takes something in each [`FAREWELL_DEADLINE`].
const LINGER_DEADLINE: Duration = Duration::from_secs(30);

/// Serves one accepted connection of the HTTP port, as [`serve`] does those of the TLS port. A task
/// of another kind, because between two requests it is smaller than one that relays.
pub async fn serve_http(local: Rc<Local>, client: Socket) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut story = Story::default();
    if Story::is_wanted() {
        let _ = client.peer();
    }
    let outcome = exchange::serve(&local, &client, &deadline, accepted, &mut story).await;
    end(&local, client, Protocol::Http, outcome, accepted, &story);
}

/// Serves one accepted connection, which was counted by [`Local::connection_begins`], to its end.
pub async fn serve(local: Rc<Local>, client: Socket, protocol: Protocol) {
    let client = Client::new(client);
    let accepted = Instant::now();
    let deadline = local.ring.deadline();
    let mut story = Story::default();
    if Story::is_wanted() {
        // Not left to the end, when the client has gone and its address with it.
        let _ = client.peer();
    }
    // Boxed, so that an idle connection does not hold the memory of steps long past.
    let connecting = connect(&local, &client, protocol, &deadline, accepted, &mut story);
    let connected = Box::pin(connecting).await;
    let outcome = match &connected {
        Ok(connected) => {
            let backend = connected.socket.clone();
            let mut relay = Relay::new(client.socket().clone(), backend, connected.head_sent);
            let mut relayed = relay.run(&local, protocol, &deadline).await;
            drop(relay);
            relayed.bytes_to_backend += connected.head_bytes as u64;
            story.relayed = Some(relayed);
            relayed.outcome
        }
        Err(outcome) => {
            Box::pin(farewell(
                &local,
                client.socket(),
                protocol,
                *outcome,
                &deadline,
            ))
            .await;
            *outcome
        }
    };
    drop(connected);
    end(&local, client, protocol, outcome, accepted, &story);
}

/// Closes the client's connection and counts its one outcome.
fn end(
    local: &Local,
    client: Client,
    protocol: Protocol,
    outcome: Outcome,
    accepted: Instant,
    story: &Story,
) {
    story.log(local, &client, protocol, outcome, accepted);
    drop(client);
    local
        .metrics
        .borrow_mut()
        .record(protocol, Stage::Lifetime, accepted.elapsed());
    local.connection_ends(protocol, outcome);
}

struct Connected {
    socket: Socket,
    /// Counts it for as long as it lives.
    _backend: LiveBackend,
    /// Ends with the connection.
    _listed: Option<Box<Listed>>,
    head_bytes: usize,
    head_sent: Instant,
}

/// Everything up to the relay.
async fn connect(
    local: &Rc<Local>,
    client: &Client,
    protocol: Protocol,
    deadline: &Deadline,
    accepted: Instant,
    story: &mut Story,
) -> Result<Connected, Outcome> {
    deadline.set(accepted + local.limits.head_deadline);
    // A block of its own, so that the head with its name is gone before the next wait, unless
    // somebody is to be told of it.
    let (route, told, mut received) = {
        let reading = head::read_head(local, client, protocol);
        let (head, received) = deadline
            .bound(reading)
            .await
            .ok_or(Outcome::HeadTimeout)??;
        let head_complete = Instant::now();
        let route = find_route(local, protocol, &head);
        let mut metrics = local.metrics.borrow_mut();
        metrics.record(protocol, Stage::Head, head_complete - accepted);
        metrics.record(protocol, Stage::Route, head_complete.elapsed());
        let is_told =
            local.lookup.is_some() || route.as_ref().is_ok_and(|route| route.tells_names());
        let head = (is_told || Story::is_wanted()).then(|| Rc::new(head));
        story.set_head(head.as_ref());
        let route = route?;
        let told = head.filter(|_| is_told);
        (route, told, received)
    };
    let routed = Instant::now();
    let dialled = dial(local, &route, protocol, client, deadline).await?;
    let connected = Instant::now();
    story.set_backend(dialled.backend.text(), dialled.attempts);
    let spent = connected - routed;
    local
        .metrics
        .borrow_mut()
        .record(protocol, Stage::Connect, spent);
    // Before the backend has a byte, so that it can ask as soon as it knows of the client.
    let listed = told.as_deref().and_then(|head| {
        Listed::new(
            local,
            client,
            &dialled.socket,
            &dialled.backend,
            head,
            accepted,
        )
    });
    let head_bytes = received.len();
    if let Some(version) = dialled.backend.delivery().proxy {
        let announced = announce(local, client, version, told.as_deref(), &received)?;
        story.set_id(announced.id);
        received = announced.bytes;
    }
    drop(told);
    send_head(local, &dialled.socket, &received, deadline).await?;
    {
        let mut metrics = local.metrics.borrow_mut();
        metrics.count(Counter::BytesToBackend, head_bytes as u64);
        metrics.count(Counter::CopiedBytes, received.len() as u64);
    }
    Ok(Connected {
        socket: dialled.socket,
        _backend: dialled.backend,
        _listed: listed,
        head_bytes,
        head_sent: connected,
    })
}

/// The route of the name, or of the protocol's default.
fn find_route(local: &Local, protocol: Protocol, head: &Head) -> Result<Arc<Route>, Outcome> {
    let table = local.table.borrow();
    let named = head.name.as_ref().and_then(|name| table.lookup(name));
    match (named.or_else(|| table.default_route(protocol)), &head.name) {
        (Some(route), _) => Ok(route.clone()),
        (None, Some(_)) => Err(Outcome::UnknownName),
        (None, None) => Err(Outcome::NoName),
    }
}

/// Replays what was received, verbatim, before anything else goes to the backend.
async fn send_head(
    local: &Local,
    backend: &Socket,
    mut received: &[u8],
    deadline: &Deadline,
) -> Result<(), Outcome> {
    deadline.set(local.ring.now() + local.limits.head_deadline);
    while !received.is_empty() {
        match backend.send(received) {
            Ok(sent) => received = &received[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = deadline.bound(local.ring.writable(backend)).await;
                if writable.is_none() {
                    return Err(Outcome::BackendTimeout);
                }
            }
            Err(_) => return Err(Outcome::BackendUnreachable),
        }
    }
    Ok(())
}

/// Tells the client why, and makes sure that it can read it before the connection is closed.
pub async fn farewell(
    local: &Local,
    client: &Socket,
    protocol: Protocol,
    outcome: Outcome,
    deadline: &Deadline,
) {
    let answer = match protocol {
        Protocol::Tls => reply::alert(outcome),
        Protocol::Http => local.answers.of(outcome),
        Protocol::Tcp => None,
    };
    let Some(mut answer) = answer else {
        return;
    };
    deadline.set(local.ring.now() + FAREWELL_DEADLINE);
    while !answer.is_empty() {
        match client.send(answer) {
            Ok(sent) => answer = &answer[sent..],
            // Earlier answers may still be under way, and a page of the operator's may be large.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline.bound(local.ring.writable(client)).await.is_none() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    client.shutdown_write();
    read_to_end_in_time(local, client, deadline).await;
}

/// Lets the client finish sending, so that it can read what it was sent last. One that still takes
/// what is under way has longer, for closing upon its unread bytes would destroy that.
pub async fn read_to_end_in_time(local: &Local, client: &Socket, deadline: &Deadline) {
    let end = local.ring.now() + LINGER_DEADLINE;
    loop {
        let under_way = client.unacknowledged();
        deadline.set(local.ring.now() + FAREWELL_DEADLINE);
        let reading = deadline.bound(read_to_end(local, client)).await;
        if let Some(Sent::Everything) = reading {
            return;
        }
        if let Some(Sent::TooMuch) = reading
            && client.unacknowledged() > 0
        {
            // Its time is not over, though its bytes are.
            deadline.passed().await;
        }
        if client.unacknowledged() >= under_way || local.ring.now() >= end {
            return;
        }
    }
}

/// What a client did that was let finish.
enum Sent {
    /// It has finished or failed.
    Everything,
    TooMuch,
}

/// Reads and forgets until the client has finished, failed or sent too much.
async fn read_to_end(local: &Local, client: &Socket) -> Sent {
    let mut left = FAREWELL_BYTES_MAX;
    loop {
        let read = client.recv(&mut local.buffer.borrow_mut());
        match read {
            Ok(bytes) if bytes > 0 && bytes < left => left -= bytes,
            Ok(bytes) if bytes > 0 => return Sent::TooMuch,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = local.ring.readable(client).await;
            }
            _ => return Sent::Everything,
        }
    }
}

/// What the log says of a connection, gathered only when the log is that talkative.
#[derive(Default)]
pub struct Story {
    /// Apart, because most connections live without it.
    details: Option<Box<Details>>,
    relayed: Option<Relayed>,
}

#[derive(Default)]
struct Details {
    head: Option<Rc<Head>>,
    /// By which the backend's log knows the connection; empty when it does not.
    id: Box<str>,
    backend: Box<str>,
    attempts: u32,
    requests: u32,
}

impl Story {
    pub fn is_wanted() -> bool {
        tracing::enabled!(target: "pointsman::connection", tracing::Level::DEBUG)
    }

    /// Where to note what is to be said, if anything is.
    fn details(&mut self) -> Option<&mut Details> {
        Story::is_wanted().then(|| &mut **self.details.get_or_insert_default())
    }

    fn set_head(&mut self, head: Option<&Rc<Head>>) {
        if let Some(details) = self.details() {
            details.head = head.cloned();
        }
    }

    pub fn set_id(&mut self, id: Box<str>) {
        if let Some(details) = self.details() {
            details.id = id;
        }
    }

    /// The host of the last request; nothing where it was not asked for.
    pub fn set_request(&mut self, name: Option<&Host>) {
        let Some(details) = self.details() else {
            return;
        };
        details.requests += 1;
        if let Some(name) = name {
            details.head = Some(Rc::new(Head {
                name: Some(name.clone()),
                ..Head::default()
            }));
        }
    }

    /// The last backend; no attempts when the connection to it was there already.
    pub fn set_backend(&mut self, text: &str, attempts: u32) {
        if let Some(details) = self.details() {
            details.backend = text.into();
            details.attempts = attempts;
        }
    }

    fn log(
        &self,
        local: &Local,
        client: &Client,
        protocol: Protocol,
        outcome: Outcome,
        accepted: Instant,
    ) {
        if !Story::is_wanted() {
            return;
        }
        let nothing = Details::default();
        let details = self.details.as_deref().unwrap_or(&nothing);
        let head = details.head.as_deref();
        let name = head.and_then(|head| head.name.as_ref());
        let backend = Some(&*details.backend).filter(|backend| !backend.is_empty());
        tracing::debug!(
            target: "pointsman::connection",
            core = local.core,
            protocol = protocol.name(),
            client = client.address().map(tracing::field::display),
            via = client.via().map(tracing::field::display),
            id = Some(&*details.id).filter(|id| !id.is_empty()),
            name = name.map_or("-", |name| name.as_str()),
            alpn = head.map_or("", |head| &head.alpn),
            ech = head.is_some_and(|head| head.ech),
            backend = backend.unwrap_or("-"),
            attempts = details.attempts,
            requests = details.requests,
            to_backend_bytes = self.relayed.map_or(0, |relayed| relayed.bytes_to_backend),
            to_client_bytes = self.relayed.map_or(0, |relayed| relayed.bytes_to_client),
            lifetime_us = accepted.elapsed().as_micros() as u64,
            "{}", outcome.name()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that a task of this kind takes for as long as it lives.
    fn task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket, Protocol) -> F) -> usize {
        size_of::<F>()
    }

    fn http_task_bytes<F: Future>(_: impl FnOnce(Rc<Local>, Socket) -> F) -> usize {
        size_of::<F>()
    }

    /// Together with an operation in the ring and a deadline; there is neither a buffer nor a
    /// backend between two requests.
    #[test]
    fn a_client_between_two_requests_is_small() {
        let bytes = http_task_bytes(serve_http);
        assert!(
            bytes <= 800,
            "the task of an HTTP client takes {bytes} bytes"
        );
    }

    /// Together with two operations in the ring, a deadline and the executor's own header, an idle
    /// connection is to stay below 1,000 bytes of process memory.
    #[test]
    fn an_idle_connection_is_small() {
        let bytes = task_bytes(serve);
        assert!(bytes <= 560, "the task of a connection takes {bytes} bytes");
    }
}
