//! From a route to a connected backend: choose, connect within a deadline, and on failure go to
//! another backend while the head is still in hand.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::attempts::{Attempts, Next};
use super::live::LiveBackend;
use super::queue::wait_for_place;
use super::source;
use crate::client::Client;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Deadline, Operation, has_failed};
use crate::route::{Address, Route};
use crate::state::Local;
use crate::sys::{ForeignSource, Socket, SocketAddress};

/// Whether the client has reset the connection is looked at from so far into an attempt on: most are
/// over well before this, and a watch costs as much as a wait.
const CLIENT_WATCHED_AFTER: Duration = Duration::from_millis(20);

/// A connected backend. Its live count falls when this is dropped.
pub(crate) struct Dialled {
    pub socket: Socket,
    pub address: Address,
    pub backend: LiveBackend,
    pub attempts: u32,
}

/// Connects to one of the route's backends: at most `connect_attempts` attempts of `attempts`, each
/// within the connect deadline and all within the backend deadline, never the same address twice.
/// Backends that want to be connected to from an address that cannot be had are passed over and are
/// no attempt. `deadline` is the connection's own.
pub(crate) async fn dial(
    local: &Local,
    route: &Arc<Route>,
    protocol: Protocol,
    client: &Client,
    attempts: &mut Attempts,
    deadline: &Deadline,
) -> Result<Dialled, Outcome> {
    while attempts.may_try(local) {
        let (mut backend, address) = match attempts.next(local, route, protocol, client) {
            Next::Backend(backend, address) => (backend, address),
            Next::Full => {
                wait_for_place(local, route, protocol, client, attempts, deadline).await?;
                continue;
            }
            Next::Nothing => break,
        };
        let wanted = backend.delivery().source;
        let source = match source::foreign_source(local, wanted, &address, client) {
            Ok(source) => source,
            Err(Outcome::ClientReset) => return Err(Outcome::ClientReset),
            Err(outcome) => {
                attempts.skip(outcome, &backend);
                continue;
            }
        };
        let attempt = attempts.begin();
        local.count(Counter::ConnectAttempts);
        let patience = if attempts.has_another(local, route) {
            backend.patience(local.limits.connect_deadline)
        } else {
            local.limits.connect_deadline
        };
        let ends = local.ring.now() + patience;
        let ends = ends.min(attempts.ends());
        backend.start_pending(local.ring.now());
        match connect(local, &address, source, client, deadline, ends).await {
            Ok(socket) => {
                // What is sent to an HTTP backend comes in pieces from the start.
                if protocol == Protocol::Http {
                    socket.set_nodelay();
                }
                // A TLS backend has more to show than that its kernel accepts.
                if protocol != Protocol::Tls {
                    backend.finish_pending(local.ring.now());
                }
                return Ok(Dialled {
                    socket,
                    address,
                    backend,
                    attempts: attempt,
                });
            }
            // Nobody waits for the backend any more, which is no fault of it.
            Err(Failed {
                outcome: Outcome::ClientReset,
                ..
            }) => return Err(Outcome::ClientReset),
            Err(Failed { outcome, error }) => {
                local.count(Counter::ConnectFailures);
                tracing::debug!(core = local.core, backend = backend.text(), attempt, outcome = outcome.name(), %error, "connect failed");
                match outcome {
                    Outcome::SourceForbidden | Outcome::SourceRefused => {
                        local.warn_once(outcome, backend.text());
                    }
                    Outcome::BackendUnreachable | Outcome::BackendTimeout => {
                        backend.failed(local, outcome);
                    }
                    _ => {}
                }
                attempts.record_failure(outcome);
                if is_exhaustion(&error) {
                    break;
                }
            }
        }
    }
    Err(attempts.outcome(local))
}

/// One attempt that came to nothing, and how the connection ends if it was the last.
struct Failed {
    outcome: Outcome,
    error: io::Error,
}

async fn connect(
    local: &Local,
    address: &Address,
    source: Option<ForeignSource>,
    client: &Client,
    deadline: &Deadline,
    ends: Instant,
) -> Result<Socket, Failed> {
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
        // A route that does not let the source through, such as 127.0.0.1 to another machine.
        Err(error) if source.is_some() && error.kind() == io::ErrorKind::InvalidInput => {
            let outcome = Outcome::SourceRefused;
            Err(Failed { outcome, error })
        }
        Err(error) => Err(error.into()),
    }
}

/// No future, so that no task keeps the memory of a kernel-ready address.
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

/// The machine has nothing left for any connection, so another backend is no way out.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
