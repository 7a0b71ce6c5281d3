//! Puts the process together: what is checked and bound before the first client, in which order,
//! and how the threads come to know each other.

mod ports;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::Ports;

use crate::admin::{Admin, Reports};
use crate::config::{Config, Limits, Machine, Refused};
use crate::control::{Control, CoreReporter, Ended, LatencyDir, SignalEvents};
use crate::log::{self, Log};
use crate::protocol::Protocol;
use crate::reply::ErrorResponses;
use crate::route::{Table, Update};
use crate::state::ConnectionBudget;
use crate::sync::{self, SyncHandle};
use crate::sys::{Limited, Socket, own_addresses, raise_limit};
use crate::worker::{self, Bound, Command, CoreConfig, LOCKED_MEMORY_PER_CORE_BYTES, Mailbox};
use crate::{preflight, ring};

/// Descriptors kept back for Redis, DNS, the admin endpoint, the snapshot and active checks, of which one
/// without a descriptor says nothing.
const DESCRIPTORS_RESERVED: usize = 64;
/// Of the free descriptors pipes get one in so many at most: a bulk direction without a pipe is
/// copied, a connection without a descriptor is refused.
const PIPES_SHARE: usize = 4;
/// How long between two lines that say what the start waits for.
const WAITING_IS_SAID_EVERY: Duration = Duration::from_secs(10);

/// The newest table and the cores that are told of every change. A core that starts gets the table
/// and joins the list in one step, so that it misses nothing.
#[derive(Default)]
struct Broadcast {
    table: Table,
    mailboxes: Vec<Mailbox>,
}

impl Broadcast {
    fn publish(&mut self, update: &Arc<Update>) {
        self.table.apply(update);
        for mailbox in &self.mailboxes {
            mailbox.send(Command::Table(update.clone()));
        }
    }
}

/// Runs the proxy until it is told to stop. `signals` were caught before anything else; `on_ready`
/// is called with the bound addresses once clients are served.
///
/// # Errors
/// Whatever keeps it from starting, with cause and remedy in its text.
pub(crate) fn run(
    config: Config,
    mut signals: SignalEvents,
    log: &Log,
    on_ready: impl FnOnce(&[(Protocol, SocketAddr)]),
) -> Result<Ended, Box<dyn Error>> {
    let open_files = raise_limit(Limited::OpenFiles, 0)?;
    preflight::try_descriptors(&config, open_files)?;
    preflight::try_threads(&config)?;
    let unpaced = preflight::congestion(&config.backend_congestion)?;
    let lockable = raise_limit(
        Limited::LockedMemory,
        LOCKED_MEMORY_PER_CORE_BYTES * config.cores.len() as u64,
    )?;
    if lockable < LOCKED_MEMORY_PER_CORE_BYTES {
        return Err(worker::StartError::LockedMemory { lockable }.into());
    }
    let features = ring::probe(config.kernel_mask)?;
    let latency_dir = config
        .latency_dir
        .as_deref()
        .map(LatencyDir::open)
        .transpose()
        .map_err(|error| Refused(error.to_string()))?;
    let Ports {
        admin,
        addresses,
        sets: mut bound,
    } = Ports::bind(&config)?;
    let admin_address = admin.as_ref().map(Admin::address).transpose()?;

    let broadcast = Arc::new(Mutex::new(Broadcast::default()));
    let publisher = broadcast.clone();
    let publish = move |update: Arc<Update>| {
        publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .publish(&update);
    };
    let mut sync_settings = config.sync.clone();
    sync_settings.backend_policy = sync_settings
        .backend_policy
        .with_listeners(addresses.clone(), own_addresses()?);
    let sync = sync::start(sync_settings, Box::new(publish)).map_err(of_start)?;
    let sync = Arc::new(sync);
    let reloading = sync.clone();
    let control = Control {
        drain: config.limits.drain,
        latency_dir,
        admin,
        reload: Box::new(move || reloading.reload()),
        reports: reports(&sync, log, config.lookup),
    };
    // From the first moment on, so that who waits for the first table can see why.
    let control = control.start(&mut signals)?;
    while !sync.wait_first_table(Some(WAITING_IS_SAID_EVERY)) {
        if sync.has_ended() {
            return Err("the redis-sync thread ended before the first table; its last lines in the log say why".into());
        }
        tracing::warn!(
            "not ready: Redis does not answer, and there is neither a snapshot nor a static route; start Redis, or add --snapshot or --routes"
        );
    }

    let shares = Shares::of(open_files, config.cores.len(), config.limits.pipes_per_core);
    let budget = Arc::new(ConnectionBudget::new(
        shares.descriptors,
        config.cores.len(),
        config.limits.pool_per_core,
        &config.client_limits,
    ));
    tracing::info!(
        cores = ?config.cores,
        kernel = %features,
        connections_max = budget.connections_max(),
        pipes_per_core = shares.pipes_per_core,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    if config.proxy.trusts_everybody() {
        tracing::warn!(
            "proxy-from lists every address, so whoever reaches the port may claim to be anybody; name the senders, unless a firewall keeps all others away"
        );
    }
    if let Some(max) = config.client_limits.connections_max
        && max.get() as usize > budget.connections_max()
    {
        tracing::warn!(
            "max-connections is {max} and the limit of open files leaves room for {}, at which clients wait; raise LimitNOFILE= or ulimit -n, or lower max-connections",
            budget.connections_max()
        );
    }
    let core_config = CoreConfig {
        limits: Limits {
            pipes_per_core: shares.pipes_per_core,
            ..config.limits.clone()
        },
        http: Arc::new(config.http.clone()),
        answers: Arc::new(ErrorResponses::new(&config.http)),
        balance: config.balance,
        proxy: config.proxy.clone(),
        features,
        budget,
        lookup: config.lookup,
        unpaced,
        looks_at_every_port: Socket::can_look_at_every_port(config.kernel_mask),
    };
    let mut mailboxes = Vec::new();
    for (index, processor) in config.cores.iter().enumerate() {
        let listeners = bound
            .pop()
            .expect("one set of listeners was bound per core");
        let mailbox = start_core(
            index,
            *processor,
            &core_config,
            listeners,
            &broadcast,
            signals.reporter(),
        )?;
        mailboxes.push(mailbox);
    }
    signals.hold_stop();
    control.serve(Arc::new(mailboxes));
    log::print_line(&log::ready_line(
        config.log.format,
        &addresses,
        admin_address,
    ));
    on_ready(&addresses);
    let ended = control.join();
    sync.stop();
    Ok(ended)
}

/// Whose fault it is: wrong routes are the operator's.
fn of_start(error: io::Error) -> Box<dyn Error> {
    match error.kind() {
        io::ErrorKind::InvalidInput => Refused(error.to_string()).into(),
        _ => error.into(),
    }
}

/// Starts one core with the newest table, and makes sure that it hears of the next.
fn start_core(
    index: usize,
    processor: usize,
    config: &CoreConfig,
    listeners: Vec<Bound>,
    broadcast: &Mutex<Broadcast>,
    reporter: CoreReporter,
) -> Result<Mailbox, worker::StartError> {
    let mut broadcast = broadcast.lock().unwrap_or_else(PoisonError::into_inner);
    let mailbox = worker::start(
        index,
        processor,
        config.clone(),
        listeners,
        broadcast.table.clone(),
        Box::new(move |cause| reporter.core_failed(index, cause)),
    )?;
    broadcast.mailboxes.push(mailbox.clone());
    Ok(mailbox)
}

/// How the descriptors of the process are shared out. Each connection and each pipe needs two; what
/// is open at this moment and what the cores and the other threads are going to open stays out of
/// the count.
struct Shares {
    /// For clients, backends and idle connections.
    descriptors: usize,
    pipes_per_core: usize,
}

impl Shares {
    fn of(open_files: u64, cores: usize, pipes_per_core_max: usize) -> Shares {
        const PER_CORE: usize = 16;
        let open_now = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
        let taken = open_now + cores * PER_CORE + DESCRIPTORS_RESERVED;
        let free = usize::try_from(open_files)
            .unwrap_or(usize::MAX)
            .saturating_sub(taken);
        let pipes_per_core = (free / PIPES_SHARE / 2 / cores).min(pipes_per_core_max);
        Shares {
            descriptors: free - pipes_per_core * cores * 2,
            pipes_per_core,
        }
    }
}

fn reports(sync: &Arc<SyncHandle>, log: &Log, lookup: bool) -> Reports {
    let (of_status, of_backends) = (sync.clone(), sync.clone());
    Reports {
        sync: Box::new(move || of_status.status()),
        backends: Box::new(move || of_backends.backends()),
        lookup,
        dropped_lines: Box::new(log.dropped_lines()),
    }
}

/// What this machine allows, as the configuration is checked against it.
pub(crate) fn machine() -> Machine {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    Machine {
        allowed_cores: allowed.into_iter().map(|core| core.id).collect(),
    }
}
