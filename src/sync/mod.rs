//! The redis-sync thread: keeps the one full routing table true and sends each core what changed.
//! It alone talks to Redis and to DNS, reads the routes file and keeps the snapshot. While Redis is
//! away the last known table serves.

mod connection;
mod expiry;
mod feed;
mod follow;
mod hold;
mod keys;
mod limits;
mod names;
mod probe;
mod rejected;
mod reply;
mod resolve;
mod snapshot;
mod spellings;
mod standing;
mod static_routes;
mod status;
mod truth;
mod watch;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connection::Dialer;
use follow::Follower;
use static_routes::Routes;
use status::Shared;
pub(crate) use status::SyncStatus;
pub use status::{Mode, RedisState};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
pub(crate) use truth::Publish;
use truth::Truth;
use watch::Keeper;

use crate::config::{RedisSettings, SyncSettings};
use crate::route::Backend;

const THREAD_NAME: &str = "redis-sync";

/// How long the thread waits at its end for name look-ups of the system that hang.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// What the end of the process leaves it for the snapshot, which takes milliseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it has ended.
const STOP_LOOK: Duration = Duration::from_millis(2);

enum Command {
    Reload,
    Stop,
}

/// The running thread. Dropping the handle stops it, without waiting.
pub struct SyncHandle {
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is checked before anything runs.
struct Checked {
    routes: Routes,
    dialer: Option<Dialer>,
}

/// Checks static routes, routes file, Redis URL and CA file without asking anyone. Gives back the
/// members of all static routes.
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
        dialer: settings
            .redis
            .as_ref()
            .map(Dialer::new)
            .transpose()
            .map_err(invalid)?,
    })
}

/// Asks Redis once for what the thread will need of it, and says how changes would be noticed.
///
/// # Errors
/// Cause and remedy, for an operator; never the URL.
pub fn try_redis(settings: &RedisSettings) -> Result<String, String> {
    let dialer = Dialer::new(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}; raise the limit of open files"))?;
    let mode = runtime.block_on(dialer.try_out());
    runtime.shutdown_timeout(LAST_WAIT);
    let (mode, is_cluster) = mode.map_err(|loss| format!("{loss}; {}", loss.remedy()))?;
    let said = format!("answers; changes are noticed by {}", mode.name());
    Ok(match is_cluster {
        true => format!("{said}; {}", standing::CLUSTER),
        false => said,
    })
}

/// Starts the thread. `publish` is called on it with every version of the table, in order.
///
/// # Errors
/// As [`check`], and those of starting a thread with its runtime.
pub fn start(settings: SyncSettings, publish: Publish) -> io::Result<SyncHandle> {
    let checked = checked(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shared = Arc::new(Shared::default());
    let (commands, receiver) = unbounded_channel();
    let thread = std::thread::Builder::new()
        .name(THREAD_NAME.into())
        .spawn({
            let ended = Ended(Arc::clone(&shared));
            move || {
                run(&runtime, settings, checked, publish, &ended.0, receiver);
                runtime.shutdown_timeout(LAST_WAIT);
            }
        })?;
    Ok(SyncHandle {
        shared,
        commands,
        thread: Mutex::new(Some(thread)),
    })
}

/// Tells those who wait that the thread has ended, by a panic too.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

impl SyncHandle {
    /// Waits until there is a table to serve with: Redis was read, or no Redis is configured, or Redis
    /// did not answer and a snapshot or static routes have to do. False when `timeout` passed first or
    /// the thread has ended.
    pub fn wait_first_table(&self, timeout: Option<Duration>) -> bool {
        self.shared.wait_ready(timeout)
    }

    /// Reads the routes file and the system's DNS configuration again.
    pub fn reload(&self) {
        // A thread that has ended has nothing to reload.
        let _ = self.commands.send(Command::Reload);
    }

    /// Whether the thread is gone, which before [`SyncHandle::stop`] only a panic brings about. The
    /// last published table serves on.
    pub fn has_ended(&self) -> bool {
        self.shared.has_ended()
    }

    pub fn status(&self) -> SyncStatus {
        self.shared.status()
    }

    /// The backends that some route has.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.shared.roster.backends()
    }

    /// Saves the snapshot and ends the thread; returns when it has ended, or leaves it behind when its
    /// disk hangs.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        let Some(thread) = self.thread.lock().expect("no holder panics").take() else {
            return;
        };
        let deadline = Instant::now() + STOP_PATIENCE;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the redis-sync thread does not end and is left behind; if its disk hangs, the snapshot is that of before"
                );
                return;
            }
            std::thread::sleep(STOP_LOOK);
        }
        if thread.join().is_err() {
            tracing::error!(
                "the redis-sync thread had panicked; please report it with the lines before"
            );
        }
    }
}

fn run(
    runtime: &Runtime,
    settings: SyncSettings,
    checked: Checked,
    publish: Publish,
    shared: &Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) {
    let settings = Rc::new(settings);
    let mut truth = Truth::new(&settings, Arc::clone(shared), publish);
    truth.set_static(&checked.routes);
    tracing::info!(
        static_routes = checked.routes.len(),
        redis = checked.dialer.as_ref().map(Dialer::address),
        snapshot = settings
            .snapshot
            .as_ref()
            .map(|path| path.display().to_string()),
        "redis-sync started"
    );
    truth.publish();
    let truth = Rc::new(RefCell::new(truth));
    let reload_names = Rc::new(Notify::new());
    let last_answer = Rc::new(Cell::new(Instant::now()));
    let mut keeper = Keeper::new(
        Rc::clone(&truth),
        Rc::clone(&settings),
        Rc::clone(&reload_names),
        Rc::clone(&last_answer),
    );
    let names = resolve::keep_asking(Rc::clone(&truth), Rc::clone(&settings), reload_names);
    let following = async {
        match checked.dialer {
            Some(dialer) => {
                Follower::new(truth, settings, dialer, last_answer)
                    .run()
                    .await
            }
            None => {
                truth.borrow_mut().set_first_table();
                std::future::pending().await
            }
        }
    };
    // One task, so that a panic in any part ends the thread and is seen.
    runtime.block_on(async {
        tokio::select! {
            () = keeper.serve(&mut commands) => {}
            never = names => match never {},
            never = following => match never {},
        }
        keeper.finish().await;
    });
}
