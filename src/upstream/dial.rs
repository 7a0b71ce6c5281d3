//! From a route to a connected backend: choose one, connect within a deadline, and when that fails retry
//! on the next backend while the client's head is still in memory.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::attempts::{Attempts, Next};
use super::dial_request::DialRequest;
use super::live::LiveBackend;
use super::queue::wait_for_slot;
use super::source;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Operation, has_failed};
use crate::route::{Address, Route};
use crate::state::Local;
use crate::sys::{ForeignSource, Socket, SocketAddress};

/// From when on within an attempt it is watched whether the client resets its connection. Most attempts
/// have ended well before, and a watch costs as much as a wait.
const CLIENT_WATCHED_AFTER: Duration = Duration::from_millis(20);

/// A connected backend.
pub(crate) struct Dialled {
    pub socket: Socket,
    pub address: Address,
    pub backend: LiveBackend,
    /// How many attempts there were, this one included.
    pub attempts: u32,
}

/// Connects to one of the route's backends. It makes at most as many attempts as `connect_attempts`
/// leaves, each within the connect deadline and all within the backend deadline, never twice to the same
/// address. A backend that wants a source address which cannot be had is skipped, which is no attempt.
pub(crate) async fn dial(
    request: DialRequest<'_>,
    attempts: &mut Attempts,
) -> Result<Dialled, Outcome> {
    let DialRequest {
        local,
        route,
        protocol,
        client,
        ..
    } = request;
    while attempts.may_try(local) {
        let (mut backend, address) = match attempts.next(local, route, protocol, client) {
            Next::Attempt(backend, address) => (backend, address),
            Next::Full => {
                wait_for_slot(request, attempts).await?;
                continue;
            }
            Next::Nothing => break,
        };
        let wanted = backend.delivery().source;
        let source = match source::foreign_source(local, wanted, &address, client) {
            Ok(source) => source,
            Err(Outcome::ClientReset) => return Err(Outcome::ClientReset),
            Err(outcome) => {
                attempts.record_skip(outcome, &backend);
                continue;
            }
        };
        let attempt = attempts.count_attempt();
        local.count(Counter::ConnectAttempts);
        let ends = attempt_ends(local, route, attempts, &backend);
        backend.start_pending(local.ring.now());
        match connect(request, &address, source, ends).await {
            Ok(socket) => return Ok(dialled(request, socket, address, backend, attempt)),
            // That the client has gone is no failure of the backend.
            Err(Failed {
                outcome: Outcome::ClientReset,
                ..
            }) => return Err(Outcome::ClientReset),
            Err(failed) => {
                note_failed(local, &backend, attempt, &failed);
                attempts.record_failure(failed.outcome);
                if is_exhaustion(&failed.error) {
                    break;
                }
            }
        }
    }
    Err(attempts.outcome(local))
}

/// When an attempt to connect to this backend takes too long.
fn attempt_ends(
    local: &Local,
    route: &Route,
    attempts: &Attempts,
    backend: &LiveBackend,
) -> Instant {
    let deadline = local.limits.connect_deadline;
    let patience = if attempts.has_another(local, route) {
        backend.patience(deadline)
    } else {
        deadline
    };
    attempts.ends().min(local.ring.now() + patience)
}

fn dialled(
    request: DialRequest<'_>,
    socket: Socket,
    address: Address,
    mut backend: LiveBackend,
    attempts: u32,
) -> Dialled {
    // An HTTP backend is sent small pieces from the start.
    if request.protocol == Protocol::Http {
        socket.set_nodelay();
    }
    // That its kernel accepts says little of a TLS backend, which is expected to answer the hello, too.
    if request.protocol != Protocol::Tls {
        backend.finish_pending(request.local.ring.now());
    }
    Dialled {
        socket,
        address,
        backend,
        attempts,
    }
}

/// An attempt that has failed.
struct Failed {
    /// How the connection ends when no other attempt follows.
    outcome: Outcome,
    error: io::Error,
}

/// Logs and counts a failed attempt, also against the backend where it is to blame.
fn note_failed(local: &Local, backend: &LiveBackend, attempt: u32, failed: &Failed) {
    let Failed { outcome, error } = failed;
    local.count(Counter::ConnectFailures);
    tracing::debug!(
        core = local.core,
        backend = backend.text(),
        attempt,
        outcome = outcome.name(),
        %error,
        "connect failed"
    );
    match outcome {
        Outcome::SourceForbidden | Outcome::SourceRefused => {
            local.warn_once(*outcome, backend.text());
        }
        Outcome::BackendUnreachable | Outcome::BackendTimeout => {
            backend.record_failure(local, *outcome);
        }
        _ => {}
    }
}

async fn connect(
    request: DialRequest<'_>,
    address: &Address,
    source: Option<ForeignSource>,
    ends: Instant,
) -> Result<Socket, Failed> {
    let DialRequest {
        local,
        client,
        deadline,
        ..
    } = request;
    let (socket, mut connecting) = start_connect(local, address, source)?;
    deadline.set(ends.min(local.ring.now() + CLIENT_WATCHED_AFTER));
    let mut client_watch = None;
    let connected = poll_fn(|context| {
        if let Poll::Ready(connected) = Pin::new(&mut connecting).poll(context) {
            return Poll::Ready(Some(connected));
        }
        while deadline.poll_passed(context).is_ready() {
            if local.ring.now() >= ends {
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            client_watch = Some(local.ring.failed(client.socket()));
            deadline.set(ends);
        }
        if has_failed(&mut client_watch, context) {
            return Poll::Ready(None);
        }
        Poll::Pending
    });
    let Some(connected) = connected.await else {
        return Err(Failed {
            outcome: Outcome::ClientReset,
            error: io::ErrorKind::ConnectionReset.into(),
        });
    };
    match connected {
        Ok(_) => Ok(socket),
        // The kernel has no route from the source, such as from 127.0.0.1 to another machine.
        Err(error) if source.is_some() && error.kind() == io::ErrorKind::InvalidInput => {
            let outcome = Outcome::SourceRefused;
            Err(Failed { outcome, error })
        }
        Err(error) => Err(error.into()),
    }
}

/// Not an `async fn`, so that no task keeps the memory of the address as the kernel takes it.
fn start_connect(
    local: &Local,
    address: &Address,
    source: Option<ForeignSource>,
) -> Result<(Socket, Operation<io::Result<()>>), Failed> {
    let address = SocketAddress::new(address)?;
    let socket = Socket::to_connect(&address, local.unpaced, local.looks_at_every_port)?;
    if let Some(source) = source {
        socket.connect_from(source).map_err(|error| Failed {
            outcome: source::refused(&error),
            error,
        })?;
    }
    let connecting = local.ring.connect(&socket, address);
    Ok((socket, connecting))
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        let outcome = match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => Outcome::OutOfResources,
            _ if is_exhaustion(&error) => Outcome::OutOfResources,
            _ if error.kind() == io::ErrorKind::TimedOut => Outcome::BackendTimeout,
            _ => Outcome::BackendUnreachable,
        };
        Failed { outcome, error }
    }
}

/// Whether the machine has run out of something that every connection needs, so that another backend
/// would not help.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
