//! The redis-sync thread: keeps the routing table equal to what Redis has, and sends every change to the
//! cores. Only this thread talks to Redis and to DNS, reads the routes file and writes the snapshot. While
//! Redis does not answer, the last known table stays in use.

mod dns_cache;
mod fuzz;
mod housekeeper;
mod redis_client;
mod rejected_entries;
mod resolver;
mod routing_state;
mod snapshot;
mod static_routes;
mod status;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use fuzz::fuzz_routes_file;
use housekeeper::{Command, Housekeeper};
use redis_client::{CLUSTER_NODE, Connector, SyncLoop};
pub(crate) use routing_state::Publish;
use routing_state::RoutingState;
use static_routes::Routes;
use status::SharedStatus;
pub(crate) use status::SyncStatus;
pub use status::{ChangeDetection, RedisState};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::{RedisSettings, SyncSettings};
use crate::route::Backend;

const THREAD_NAME: &str = "redis-sync";

/// How long the thread waits at its end for look-ups of the system's resolver that hang.
const RUNTIME_TIMEOUT: Duration = Duration::from_millis(200);

/// How long the end of the process waits for the thread, which writes the snapshot; that takes
/// milliseconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks whether the thread has ended.
const STOP_POLL: Duration = Duration::from_millis(2);

/// The running thread. Dropping the handle stops it, without waiting.
pub struct SyncHandle {
    status: Arc<SharedStatus>,
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The parts of the settings that can be wrong, checked.
struct Checked {
    routes: Routes,
    connector: Option<Connector>,
}

/// Checks static routes, routes file, Redis URL and CA file. Asks neither Redis nor DNS. Gives back the
/// members and options of all static routes.
///
/// # Errors
/// `InvalidInput` with a line for each mistake: place, cause and remedy.
pub(crate) fn check(settings: &SyncSettings) -> io::Result<Vec<String>> {
    let checked = checked(settings)?;
    Ok(checked.routes.into_values().flatten().collect())
}

fn checked(settings: &SyncSettings) -> io::Result<Checked> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
    let routes = static_routes::load(settings);
    Ok(Checked {
        routes: routes.map_err(|mistakes| invalid(mistakes.to_string()))?,
        connector: settings
            .redis
            .as_ref()
            .map(Connector::new)
            .transpose()
            .map_err(invalid)?,
    })
}

/// Tries once the commands that the thread needs of Redis. Says how changes would be noticed.
///
/// # Errors
/// Cause and remedy, for an operator; never the URL.
pub fn try_redis(settings: &RedisSettings) -> Result<String, String> {
    let connector = Connector::new(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}; raise the limit of open files"))?;
    let probed = runtime.block_on(connector.probe());
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    let probed = probed.map_err(|error| format!("{error}; {}", error.remedy()))?;
    let found = format!(
        "answers; changes are noticed by {}",
        probed.detection.name()
    );
    Ok(if probed.is_cluster_node {
        format!("{found}; {CLUSTER_NODE}")
    } else {
        found
    })
}

/// Starts the thread. `publish` is called on it with every version of the table, in order.
///
/// # Errors
/// Those of [`check`], and those of starting a thread with its runtime.
pub fn start(settings: SyncSettings, publish: Publish) -> io::Result<SyncHandle> {
    let checked = checked(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = Arc::new(SharedStatus::default());
    let (sender, commands) = unbounded_channel();
    let sync = SyncThread {
        settings,
        checked,
        publish,
        commands,
        status: Arc::clone(&status),
    };
    let ended = EndedOnDrop(Arc::clone(&status));
    let thread = std::thread::Builder::new()
        .name(THREAD_NAME.into())
        .spawn(move || {
            let _ended = ended;
            sync.run(&runtime);
            runtime.shutdown_timeout(RUNTIME_TIMEOUT);
        })?;
    Ok(SyncHandle {
        status,
        commands: sender,
        thread: Mutex::new(Some(thread)),
    })
}

/// Notes that the thread has ended, also when it panics.
struct EndedOnDrop(Arc<SharedStatus>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

impl SyncHandle {
    /// Waits until there is a table to start with: Redis was read, or no Redis is configured, or Redis did
    /// not answer and the snapshot or the static routes are used. False when `timeout` passed first or the
    /// thread has ended.
    pub fn wait_first_table(&self, timeout: Duration) -> bool {
        self.status.wait_ready(timeout)
    }

    /// Reads the routes file and the system's DNS configuration again.
    pub fn reload(&self) {
        // A thread that has ended has nothing to reload.
        let _ = self.commands.send(Command::Reload);
    }

    /// Whether the thread has ended. Before [`SyncHandle::stop`] only a panic ends it; the last published
    /// table stays in use.
    pub fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    pub fn status(&self) -> SyncStatus {
        self.status.status()
    }

    /// The backends that some route has.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.status.backends.backends()
    }

    /// Writes the snapshot and ends the thread. Returns when the thread has ended, or after
    /// [`STOP_TIMEOUT`] when its disk hangs.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        let Some(thread) = self.thread.lock().expect("no holder panics").take() else {
            return;
        };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the redis-sync thread does not end, the process ends without it; if its disk hangs, \
                    the snapshot on disk is the previous one"
                );
                return;
            }
            std::thread::sleep(STOP_POLL);
        }
        if thread.join().is_err() {
            tracing::error!(
                "the redis-sync thread had panicked; please report it with the log lines before"
            );
        }
    }
}

/// What the thread is started with.
struct SyncThread {
    settings: SyncSettings,
    checked: Checked,
    publish: Publish,
    commands: UnboundedReceiver<Command>,
    status: Arc<SharedStatus>,
}

impl SyncThread {
    fn run(self, runtime: &Runtime) {
        let SyncThread {
            settings,
            checked: Checked { routes, connector },
            publish,
            mut commands,
            status,
        } = self;
        let mut state = RoutingState::new(&settings, status, publish);
        state.set_static(&routes);
        tracing::info!(
            static_routes = routes.len(),
            server.address = connector.as_ref().map(Connector::server_address),
            server.port = connector.as_ref().and_then(Connector::server_port),
            snapshot = settings
                .snapshot
                .as_ref()
                .map(|path| path.display().to_string()),
            "redis-sync started"
        );
        state.publish();
        if connector.is_none() {
            state.set_first_table();
        }
        let state = Rc::new(RefCell::new(state));
        let settings = Rc::new(settings);
        let reload_names = Rc::new(Notify::new());
        let last_answer = Rc::new(Cell::new(Instant::now()));
        let mut housekeeper = Housekeeper::new(
            Rc::clone(&state),
            Rc::clone(&settings),
            Rc::clone(&reload_names),
            Rc::clone(&last_answer),
        );
        let names = resolver::resolve_names(Rc::clone(&state), Rc::clone(&settings), reload_names);
        let redis = async {
            match connector {
                Some(connector) => {
                    SyncLoop::new(state, settings, connector, last_answer)
                        .run()
                        .await
                }
                None => std::future::pending().await,
            }
        };
        // All parts are one task, so that a panic in any of them ends the thread and is noticed.
        runtime.block_on(async {
            tokio::select! {
                () = housekeeper.serve(&mut commands) => {}
                never = names => match never {},
                never = redis => match never {},
            }
            housekeeper.finish().await;
        });
    }
}
