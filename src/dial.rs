//! From a route to a connected backend: choose, connect within a deadline, and on failure go to
//! another backend while the head is still in hand.

mod source;

use crate::client::Client;
use crate::local::Local;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::ring::{Deadline, Operation};
use crate::route::{Address, Backend, Delivery, Route};
use crate::sys::{ForeignSource, Socket, SocketAddress};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// A connected backend. Its live count on this core falls when this is dropped.
pub struct Dialled {
    pub socket: Socket,
    pub address: Address,
    pub backend: LiveBackend,
    pub attempts: u32,
}

/// Counts one live connection of a backend for as long as it exists.
pub struct LiveBackend {
    local: Rc<Local>,
    backend: Arc<Backend>,
}

impl LiveBackend {
    pub fn new(local: &Rc<Local>, backend: Arc<Backend>) -> LiveBackend {
        local.chooser.borrow_mut().opened(backend.slot());
        LiveBackend {
            local: local.clone(),
            backend,
        }
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How it is told who its client is.
    pub fn delivery(&self) -> Delivery {
        self.backend.delivery()
    }

    /// The member as the operator wrote it.
    pub fn text(&self) -> &str {
        self.backend.text()
    }
}

impl Drop for LiveBackend {
    fn drop(&mut self) {
        self.local.chooser.borrow_mut().closed(self.backend.slot());
    }
}

/// Connects to one of the route's backends: at most `connect_attempts` attempts, each within the
/// connect deadline, never the same address twice. Backends that want to be connected to from an
/// address that cannot be had are passed over and are no attempt. `deadline` is the connection's
/// own.
pub async fn dial(
    local: &Rc<Local>,
    route: &Route,
    protocol: Protocol,
    client: &Client,
    deadline: &Deadline,
) -> Result<Dialled, Outcome> {
    dial_first(local, route, None, protocol, client, deadline).await
}

/// As [`dial`], beginning with a backend that was chosen already.
pub async fn dial_first(
    local: &Rc<Local>,
    route: &Route,
    first: Option<Arc<Backend>>,
    protocol: Protocol,
    client: &Client,
    deadline: &Deadline,
) -> Result<Dialled, Outcome> {
    let mut tried = Tried {
        first,
        ..Tried::default()
    };
    let mut worst = Outcome::NoAddress;
    let mut attempts = 0;
    let mut unfit = None;
    while attempts < local.limits.connect_attempts {
        let Some((backend, address)) = tried.next(local, route, protocol) else {
            break;
        };
        let wanted = backend.delivery().source;
        let source = match source::foreign_source(local, wanted, &address, client) {
            Ok(source) => source,
            Err(Outcome::ClientReset) => return Err(Outcome::ClientReset),
            Err(outcome) => {
                if attempts == 0 {
                    worst = outcome;
                    unfit = Some(backend);
                }
                continue;
            }
        };
        attempts += 1;
        local.count(Counter::ConnectAttempts);
        let backend = LiveBackend::new(local, backend);
        deadline.set(local.ring.now() + local.limits.connect_deadline);
        match connect(local, &address, source, deadline).await {
            Ok(socket) => {
                return Ok(Dialled {
                    socket,
                    address,
                    backend,
                    attempts,
                });
            }
            Err(Failed { outcome, error }) => {
                local.count(Counter::ConnectFailures);
                tracing::debug!(core = local.core, backend = backend.text(), attempt = attempts, outcome = outcome.name(), %error, "connect failed");
                if matches!(outcome, Outcome::SourceForbidden | Outcome::SourceRefused) {
                    local.warn_once(outcome, backend.text());
                }
                worst = outcome;
                if is_exhaustion(&error) {
                    break;
                }
            }
        }
    }
    if let (Outcome::SourceFamily, Some(backend)) = (worst, unfit) {
        local.warn_once(worst, backend.text());
    }
    Err(worst)
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
    deadline: &Deadline,
) -> Result<Socket, Failed> {
    let (socket, connecting) = start_connect(local, address, source)?;
    let connected = match deadline.bound(connecting).await {
        Some(connected) => connected,
        None => Err(io::ErrorKind::TimedOut.into()),
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
) -> Result<(Socket, Operation), Failed> {
    let address = SocketAddress::new(address)?;
    let socket = Socket::to_connect(&address, local.unpaced)?;
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

/// What one connection has tried so far.
#[derive(Default)]
struct Tried {
    /// Chosen already, and to be tried before any other.
    first: Option<Arc<Backend>>,
    slots: Vec<u32>,
    /// Backends with several addresses (DNS names), and what of theirs was tried.
    several: Vec<Several>,
}

/// The addresses of one backend, from a random one on, each once.
struct Several {
    backend: Arc<Backend>,
    first: usize,
    tried: usize,
}

impl Tried {
    /// The next backend that was not tried yet; when all were, further addresses of those that
    /// have several.
    fn next(
        &mut self,
        local: &Local,
        route: &Route,
        protocol: Protocol,
    ) -> Option<(Arc<Backend>, Address)> {
        loop {
            let chosen = self.first.take();
            let chosen = chosen.or_else(|| local.chooser.borrow_mut().choose(route, &self.slots));
            let Some(backend) = chosen else { break };
            self.slots.push(backend.slot());
            let count = backend.address_count();
            let first = if count > 1 {
                fastrand::usize(..count)
            } else {
                0
            };
            if let Some(address) = backend.address(protocol, first) {
                if count > 1 {
                    self.several.push(Several {
                        backend: backend.clone(),
                        first,
                        tried: 1,
                    });
                }
                return Some((backend, address));
            }
        }
        let several = self
            .several
            .iter_mut()
            .find(|several| several.tried < several.backend.address_count())?;
        let address = several
            .backend
            .address(protocol, several.first + several.tried)?;
        several.tried += 1;
        Some((several.backend.clone(), address))
    }
}
