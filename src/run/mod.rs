//! Puts the process together: what is checked and bound before the first client, in which order, and
//! how the threads come to know each other.

mod broadcast;
mod descriptor_shares;
mod machine;
mod ports;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broadcast::Broadcast;
use descriptor_shares::DescriptorShares;
use machine::Obtained;
pub(crate) use machine::allowed;
use ports::Ports;

use crate::admin::{Admin, Reports};
use crate::config::{Config, Limits, Refused};
use crate::control::{Control, Ended, LatencyDir, SignalEvents};
use crate::log::{self, Log};
use crate::protocol::Protocol;
use crate::reply::ErrorResponses;
use crate::route::Update;
use crate::state::ConnectionBudget;
use crate::sync::{self, SyncHandle};
use crate::sys::{Socket, interface_addresses};
use crate::worker::{Bound, CoreConfig, Mailbox, StartError};

/// Between two log lines that say what the start waits for.
const WAITING_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the proxy until it is told to stop. `signals` were caught before anything else. `on_ready` is
/// called with the bound addresses once clients are served.
///
/// # Errors
/// Whatever keeps it from starting, with cause and remedy in its text.
pub(crate) fn run(
    config: Config,
    mut signals: SignalEvents,
    log: &Log,
    on_ready: impl FnOnce(&[(Protocol, SocketAddr)]),
) -> Result<Ended, Box<dyn Error>> {
    let obtained = Obtained::from_machine(&config)?;
    let latency_dir = config.latency_dir.as_deref().map(LatencyDir::open);
    let latency_dir = latency_dir
        .transpose()
        .map_err(|error| Refused(error.to_string()))?;
    let ports = Ports::bind(&config)?;
    let admin_address = ports.admin.as_ref().map(Admin::address).transpose()?;

    let broadcast = Arc::new(Mutex::new(Broadcast::new()));
    let sync = Arc::new(start_sync(&config, &ports.addresses, &broadcast)?);
    let reloading = sync.clone();
    let control = Control {
        drain: config.limits.drain,
        latency_dir,
        admin: ports.admin,
        reload: Box::new(move || reloading.reload()),
        reports: reports(&sync, log, config.lookup),
    };
    // The admin endpoint answers from here on: /ready and /status say what the start waits for.
    let control = control.start(&mut signals)?;
    wait_for_first_table(&sync)?;

    let core_config = core_config(&config, obtained);
    warn_of_settings(&config, &core_config.budget);
    let cores = start_cores(&config, ports.by_core, &core_config, &broadcast, &signals)?;
    signals.hold_stop();
    control.serve(Arc::new(cores));
    let ready = log::ready_line(config.log.format, &ports.addresses, admin_address);
    log::print_line(&ready);
    on_ready(&ports.addresses);
    let ended = control.join();
    sync.stop();
    Ok(ended)
}

/// Starts the thread that keeps the routing table. No backend may be where the proxy listens.
fn start_sync(
    config: &Config,
    listeners: &[(Protocol, SocketAddr)],
    broadcast: &Arc<Mutex<Broadcast>>,
) -> Result<SyncHandle, Box<dyn Error>> {
    let broadcast = broadcast.clone();
    let publish = move |update: Arc<Update>| {
        let mut broadcast = broadcast.lock().unwrap_or_else(PoisonError::into_inner);
        broadcast.publish(&update);
    };
    let mut settings = config.sync.clone();
    let policy = settings.backend_policy;
    settings.backend_policy = policy.with_listeners(listeners.to_vec(), interface_addresses()?);
    sync::start(settings, Box::new(publish)).map_err(|error| match error.kind() {
        // Routes that cannot be used are a mistake in the configuration.
        io::ErrorKind::InvalidInput => Refused(error.to_string()).into(),
        _ => error.into(),
    })
}

fn wait_for_first_table(sync: &SyncHandle) -> Result<(), Box<dyn Error>> {
    while !sync.wait_first_table(WAITING_LOG_INTERVAL) {
        if sync.has_ended() {
            return Err("the redis-sync thread ended before the first table; its last lines in the log say \
                why".into());
        }
        tracing::warn!("not ready: {}", sync.status().waits_for());
    }
    Ok(())
}

/// What all cores have in common. The descriptors that are free now are shared out for good.
fn core_config(config: &Config, obtained: Obtained) -> CoreConfig {
    let Obtained {
        open_files,
        unpaced,
        features,
    } = obtained;
    let cores = config.cores.len();
    let shares = DescriptorShares::of(open_files, cores, config.limits.pipes_per_core);
    let budget = ConnectionBudget::new(
        shares.connections,
        cores,
        config.limits.pool_per_core,
        &config.client_limits,
    );
    tracing::info!(
        cores = ?config.cores,
        kernel = %features,
        connections_max = budget.connections_max(),
        pipes_per_core = shares.pipes_per_core,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    CoreConfig {
        limits: Limits {
            pipes_per_core: shares.pipes_per_core,
            ..config.limits.clone()
        },
        http: Arc::new(config.http.clone()),
        error_responses: Arc::new(ErrorResponses::new(&config.http)),
        balance: config.balance,
        proxy: config.proxy.clone(),
        features,
        budget: Arc::new(budget),
        lookup: config.lookup,
        unpaced,
        looks_at_every_port: Socket::can_look_at_every_port(config.kernel_mask),
    }
}

/// Starts one core after the other, each with the listeners that were bound for it.
fn start_cores(
    config: &Config,
    listeners: Vec<Vec<Bound>>,
    core_config: &CoreConfig,
    broadcast: &Mutex<Broadcast>,
    signals: &SignalEvents,
) -> Result<Vec<Mailbox>, StartError> {
    let lock = || broadcast.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cores = Vec::new();
    for (processor, listeners) in config.cores.iter().zip(listeners) {
        // Locked for each core by itself: the sync thread may publish in between.
        let mut broadcast = lock();
        let core = broadcast.start_core(*processor, core_config, listeners, signals.reporter())?;
        cores.push(core);
    }
    lock().all_have_started();
    Ok(cores)
}

/// Logs a warning for each setting that is allowed and seldom meant.
fn warn_of_settings(config: &Config, budget: &ConnectionBudget) {
    if config.proxy.trusts_everybody() {
        tracing::warn!(
            "proxy-from lists every address, so that any client can claim any address in a PROXY header; \
             list the senders, unless a firewall keeps all others away"
        );
    }
    let max = config.client_limits.connections_max;
    if let Some(max) = max.filter(|max| max.get() as usize > budget.connections_max()) {
        tracing::warn!(
            "max-connections is {max}, but the limit of open files allows {} connections, beyond which \
             clients wait; raise LimitNOFILE= or ulimit -n, or lower max-connections",
            budget.connections_max()
        );
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
