//! Binds every address of the process. Waits a few seconds for one that is in use.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::config::{Config, Listener as Wanted};
use crate::protocol::Protocol;
use crate::sys::{BindError, Listener, PortOwner};
use crate::worker::Bound;

/// How long the start waits for all addresses that are in use, together. When a process is killed, its
/// parent learns of its end some milliseconds before the kernel closes its rings, and its listeners with
/// them. A supervisor that starts the next process at once is faster than that.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to bind.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Everything that the process listens on.
pub(super) struct Ports {
    pub admin: Option<Admin>,
    pub addresses: Vec<(Protocol, SocketAddr)>,
    /// The listeners of each core.
    pub by_core: Vec<Vec<Bound>>,
}

impl Ports {
    /// # Errors
    /// When an address cannot be bound. The text has cause and remedy, and the process that holds an
    /// address in use.
    pub(super) fn bind(config: &Config) -> Result<Ports, Box<dyn Error>> {
        let deadline = Instant::now() + BIND_TIMEOUT;
        let admin = config
            .admin
            .map(|address| bind_admin(config, address, deadline));
        let mut ports = Ports {
            admin: admin.transpose()?,
            addresses: Vec::new(),
            by_core: config.cores.iter().map(|_| Vec::new()).collect(),
        };
        for wanted in &config.listeners {
            ports.bind_group(wanted, config.cores.len(), deadline)?;
        }
        Ok(ports)
    }

    /// Binds one listener for each core.
    fn bind_group(
        &mut self,
        wanted: &Wanted,
        cores: usize,
        deadline: Instant,
    ) -> Result<(), Box<dyn Error>> {
        let bind = || Listener::bind_group(wanted.address, cores);
        let group = match bind_until(wanted.address, deadline, BindError::is_in_use, bind) {
            Err(error) if !wanted.required && error.lacks_family() => {
                tracing::info!(address = %wanted.address, "this machine has no IPv6: listening on IPv4 only");
                return Ok(());
            }
            Err(error) if error.is_in_use() => return Err(with_port_owner(&error, wanted.address)),
            group => group?,
        };
        self.addresses.push((wanted.protocol, group[0].address()));
        for (set, listener) in self.by_core.iter_mut().zip(group) {
            set.push(Bound {
                protocol: wanted.protocol,
                listener,
            });
        }
        Ok(())
    }
}

fn bind_admin(
    config: &Config,
    address: SocketAddr,
    deadline: Instant,
) -> Result<Admin, Box<dyn Error>> {
    let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let admin = match bind_until(address, deadline, is_in_use, || Admin::bind(address)) {
        Err(error) if is_in_use(&error) => return Err(with_port_owner(&error, address)),
        admin => admin?.with_hosts(config.admin_hosts.clone()),
    };
    Ok(if config.debug_faults {
        admin.with_faults()
    } else {
        admin
    })
}

/// Binds, and tries again while the address is in use, until the deadline.
fn bind_until<T, E>(
    address: SocketAddr,
    deadline: Instant,
    is_in_use: impl Fn(&E) -> bool,
    bind: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    let mut is_logged = false;
    loop {
        match bind() {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => {}
            result => return result,
        }
        if !is_logged {
            is_logged = true;
            tracing::warn!(
                %address,
                "the address is in use, perhaps by a process that is about to end: trying again for {} s",
                BIND_TIMEOUT.as_secs()
            );
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn with_port_owner(error: &dyn Error, address: SocketAddr) -> Box<dyn Error> {
    format!("{error}; {}", PortOwner::of(address)).into()
}
