//! The control thread: signals, dumps of what was measured, the admin endpoint, and the end of the
//! process. It talks to the cores by messages only and is never waited for by one. Nothing on it
//! blocks: it waits for sockets and answers in tasks, each with a deadline, and files are written
//! on threads that it leaves behind when they hang.

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
    /// Given to open connections once the process is told to stop.
    pub drain: Duration,
    /// `None`: a dump goes to the log.
    pub latency_dir: Option<LatencyDir>,
    pub admin: Option<Admin>,
    /// Called on SIGHUP; must not wait.
    pub reload: Box<dyn Fn() + Send>,
    pub reports: Reports,
}

/// The running control thread.
pub(crate) struct ControlThread {
    cores: watch::Sender<Arc<dyn Cores>>,
    thread: JoinHandle<Ended>,
}

impl ControlThread {
    /// From now on the proxy is ready, and signals are obeyed.
    pub(crate) fn serve(&self, cores: Arc<dyn Cores>) {
        self.cores.send_replace(cores);
    }

    /// Returns when the process was told to stop and every connection has ended.
    pub(crate) fn join(self) -> Ended {
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Control {
    /// Serves the admin endpoint from now on, on a thread of its own, and obeys signals once there
    /// are cores.
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
            // The start failed, and the process is about to end.
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
