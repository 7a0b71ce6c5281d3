//! The control thread: signals, dumps of what was measured, the admin endpoint, and the end of the
//! process. It talks to the cores by messages only and is never waited for by one.

mod admin;
mod backend_pages;
mod client_page;
mod collector;
mod cores;
#[cfg(test)]
mod double;
mod latency_dir;
mod pages;
mod signals;
mod stop;
mod sync_pages;

pub use admin::Admin;
pub use cores::Cores;
pub use latency_dir::LatencyDir;
pub use signals::{CoreReporter, SignalEvents};
pub use stop::Ended;

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::metrics::{Dump, write_table};
use crate::route::Backend;
use crate::sync::SyncStatus;
use collector::Collector;
use signals::Event;

/// How long a core may take to answer. A healthy one answers within its turn; the rest are named
/// in the dump and caught up with later.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// What the control thread needs from the rest of the process.
pub struct Control {
    pub cores: Arc<dyn Cores>,
    /// Given to open connections once the process is told to stop.
    pub drain: Duration,
    /// `None`: a dump goes to the log.
    pub latency_dir: Option<LatencyDir>,
    pub admin: Option<Admin>,
    /// Called on SIGHUP; must not wait.
    pub reload: Box<dyn Fn() + Send>,
    pub reports: Reports,
}

/// Answers that the admin endpoint gets from other threads; none may wait for long.
pub struct Reports {
    /// How the sync thread stands.
    pub sync: Box<dyn Fn() -> SyncStatus + Send + Sync>,
    /// The backends of the table.
    pub backends: Box<dyn Fn() -> Vec<Arc<Backend>> + Send + Sync>,
    /// Whether every core has its first routing table.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the cores keep what a look-up asks for.
    pub lookup: bool,
    /// Log lines that nobody read in time.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What the threads of this module share.
struct Shared {
    cores: Arc<dyn Cores>,
    collector: Mutex<Collector>,
    draining: AtomicBool,
    reports: Reports,
}

impl Shared {
    /// A panic while the sums are held leaves them consistent enough to go on counting.
    fn collector(&self) -> MutexGuard<'_, Collector> {
        self.collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Serves signals and the admin endpoint on this thread and two of its own until the process
    /// is told to stop, and returns when every connection has ended.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn run(self, signals: &SignalEvents) -> io::Result<Ended> {
        signals.hold_stop();
        let shared = Arc::new(Shared {
            collector: Mutex::new(Collector::new(self.cores.clone())),
            cores: self.cores,
            draining: AtomicBool::new(false),
            reports: self.reports,
        });
        if let Some(admin) = self.admin {
            admin.serve(shared.clone())?;
        }
        let dumps = start_dumping(shared.clone(), self.latency_dir)?;
        let mut stop = stop::Stop::new(&shared, self.drain);
        for event in signals.events() {
            match event {
                Event::Dump => request(&dumps),
                Event::Reload => {
                    tracing::info!("reading routes again");
                    (self.reload)();
                }
                Event::Stop => {
                    return Ok(stop.drain(signals.events(), || request(&dumps)));
                }
                Event::CoreFailed { core, cause } => return Ok(stop.core_failed(core, &cause)),
            }
        }
        unreachable!("the signals hold a sender of their own channel")
    }
}

/// Asks for one dump. Requests that come while one waits are the same request.
fn request(dumps: &Sender<()>) {
    let _ = dumps.try_send(());
}

/// Dumps on a thread of its own: a disk that hangs must not keep the process from stopping.
fn start_dumping(shared: Arc<Shared>, latency_dir: Option<LatencyDir>) -> io::Result<Sender<()>> {
    let (requests, requested): (_, Receiver<()>) = bounded(1);
    std::thread::Builder::new()
        .name(String::from("latency-dump"))
        .spawn(move || {
            for () in requested {
                let mut collector = shared.collector();
                let written = collector.dump(ANSWER_TIMEOUT, |dump| match &latency_dir {
                    Some(directory) => {
                        let page = directory.write(dump)?;
                        tracing::info!(file = %page.display(), "latencies dumped");
                        Ok(())
                    }
                    None => log_table(dump),
                });
                if let Err(error) = written {
                    tracing::error!(
                        %error,
                        "latencies could not be dumped and are kept for the next SIGUSR1; make room or let this user write into latency-dir"
                    );
                }
            }
        })?;
    Ok(requests)
}

fn log_table(dump: &Dump<'_>) -> io::Result<()> {
    let mut page = Vec::new();
    write_table(&mut page, dump)?;
    for line in String::from_utf8_lossy(&page).lines() {
        if !line.is_empty() {
            tracing::info!("{line}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
