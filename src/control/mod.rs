//! The control thread: it obeys signals, serves the admin endpoint, writes latency dumps and ends the
//! process. It sends messages to the cores, and no core ever waits for it. Nothing blocks the thread:
//! each of its tasks waits with a deadline, and each dump is written by a thread of its own, which is
//! abandoned when the disk hangs.

mod dumps;
mod latency_dir;
mod signals;
mod stop;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dumps::Dumps;
pub(crate) use latency_dir::LatencyDir;
use signals::Event;
pub(crate) use signals::{CoreReporter, SignalEvents};
pub(crate) use stop::Ended;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use crate::admin::{Admin, ProcessState, Reports};
use crate::cores::Cores;
use crate::worker::Mailbox;

/// What the control thread needs from the rest of the process.
pub(crate) struct Control {
    /// How long open connections may go on after the signal to stop.
    pub drain: Duration,
    /// Where SIGUSR1 writes its files; `None`: the table goes to the log.
    pub latency_dir: Option<LatencyDir>,
    pub admin: Option<Admin>,
    /// Called on SIGHUP. Must not block.
    pub reload: Box<dyn Fn() + Send>,
    pub reports: Reports,
}

/// The running control thread.
pub(crate) struct ControlThread {
    cores: watch::Sender<Arc<dyn Cores>>,
    thread: JoinHandle<Ended>,
}

impl ControlThread {
    /// Hands over the running cores. From now on the process is ready and obeys signals.
    pub(crate) fn serve(&self, cores: Arc<dyn Cores>) {
        self.cores.send_replace(cores);
    }

    /// Waits until the process was told to stop and every connection has ended.
    pub(crate) fn join(self) -> Ended {
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Control {
    /// Starts the thread. It serves the admin endpoint at once, and obeys signals as soon as
    /// [`ControlThread::serve`] has given it the cores.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(self, signals: &mut SignalEvents) -> io::Result<ControlThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let none: Arc<dyn Cores> = Arc::new(Vec::<Mailbox>::new());
        let (cores, of_thread) = watch::channel(none);
        let events = signals.take_events();
        let thread = std::thread::Builder::new()
            .name(String::from("control"))
            .spawn(move || LocalSet::new().block_on(&runtime, self.run(of_thread, events)))?;
        Ok(ControlThread { cores, thread })
    }

    async fn run(
        self,
        mut cores: watch::Receiver<Arc<dyn Cores>>,
        mut events: Receiver<Event>,
    ) -> Ended {
        let process = Rc::new(ProcessState::new(cores.clone(), self.reports));
        if let Some(admin) = self.admin {
            spawn_local(admin.serve(process.clone()));
        }
        if cores.changed().await.is_err() {
            // The start of the process has failed, so that no cores will come.
            return Ended::default();
        }
        let dumps = Dumps::start(process.collector.clone(), self.latency_dir);
        let mut stop = stop::Stop::new(&process, self.drain);
        let ended = loop {
            match events.recv().await {
                Some(Event::Dump) => dumps.request(),
                Some(Event::Reload) => {
                    tracing::info!("reading routes again");
                    (self.reload)();
                }
                Some(Event::Stop) => break stop.drain(&mut events, || dumps.request()).await,
                Some(Event::CoreFailed { core, cause }) => {
                    break stop.core_failed(core, &cause).await;
                }
                None => unreachable!("the thread that takes signals holds a sender"),
            }
        };
        dumps.end().await;
        ended
    }
}

#[cfg(test)]
mod tests;
