//! Plain threads in place of cores, for tests: they record what a test tells them to, and answer as cores
//! do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::mpsc::UnboundedSender;

use super::ask::Cores;
use crate::lookup::Found;
use crate::metrics::{CoreMetrics, Counter, Stage};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::worker::{CoreStatus, Dumped};

type Job = Box<dyn FnOnce(&mut State) + Send>;

struct State {
    metrics: Box<CoreMetrics>,
    live: usize,
    listening: bool,
}

struct Thread {
    jobs: Sender<Job>,
    stalled: Arc<AtomicBool>,
}

pub(crate) struct CoreThreads {
    threads: Mutex<BTreeMap<usize, Thread>>,
    numbers: Vec<usize>,
}

impl CoreThreads {
    pub(crate) fn start(numbers: &[usize]) -> Arc<CoreThreads> {
        let threads = numbers.iter().map(|core| {
            let (jobs, received) = unbounded::<Job>();
            let stalled = Arc::new(AtomicBool::new(false));
            let waiting = stalled.clone();
            std::thread::spawn(move || {
                let mut state = State {
                    metrics: Box::default(),
                    live: 0,
                    listening: true,
                };
                for job in received {
                    while waiting.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    job(&mut state);
                }
            });
            (*core, Thread { jobs, stalled })
        });
        Arc::new(CoreThreads {
            threads: Mutex::new(threads.collect()),
            numbers: numbers.to_vec(),
        })
    }

    fn run(&self, core: usize, job: impl FnOnce(&mut State) + Send + 'static) {
        if let Some(thread) = self.threads.lock().unwrap().get(&core) {
            thread.jobs.send(Box::new(job)).unwrap();
        }
    }

    /// The core accepts connections, each of which connects to a backend in 5 ms.
    pub(crate) fn accept(&self, core: usize, connections: usize) {
        self.run(core, move |state| {
            state.live += connections;
            state.metrics.count(Counter::Accepted, connections as u64);
            for _ in 0..connections {
                let span = Duration::from_millis(5);
                state.metrics.record(Protocol::Tls, Stage::Connect, span);
            }
        });
    }

    /// Connections end without an error.
    pub(crate) fn finish(&self, core: usize, connections: usize) {
        self.run(core, move |state| state.end(connections, Outcome::Relayed));
    }

    /// While `stalled`, the core answers nothing.
    pub(crate) fn stall(&self, core: usize, stalled: bool) {
        let threads = self.threads.lock().unwrap();
        threads[&core].stalled.store(stalled, Ordering::Release);
    }

    /// The core never answers again.
    pub(crate) fn kill(&self, core: usize) {
        self.threads.lock().unwrap().remove(&core);
    }
}

impl State {
    fn end(&mut self, connections: usize, outcome: Outcome) {
        self.live -= connections;
        for _ in 0..connections {
            self.metrics.outcome(Protocol::Tls, outcome);
        }
    }
}

impl Cores for CoreThreads {
    fn numbers(&self) -> Vec<usize> {
        self.numbers.clone()
    }

    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: UnboundedSender<Dumped>) {
        self.run(core, move |state| {
            let metrics = std::mem::replace(&mut state.metrics, fresh);
            let _ = reply.send(Dumped { core, metrics });
        });
    }

    fn status(&self, core: usize, reply: UnboundedSender<CoreStatus>) {
        self.run(core, move |state| {
            let _ = reply.send(CoreStatus {
                core,
                table_version: 7,
                live: state.live,
                ring_operations: 1,
                deadlines: state.live,
                pipes_idle: 0,
                pipes_out: 0,
                backends_idle: 0,
                listening: state.listening,
            });
        });
    }

    fn lookup(&self, core: usize, _: SocketAddr, reply: UnboundedSender<Vec<Found>>) {
        self.run(core, move |_| {
            let _ = reply.send(Vec::new());
        });
    }

    fn drain(&self, core: usize) {
        self.run(core, |state| state.listening = false);
    }

    fn panic(&self, core: usize) {
        self.kill(core);
    }

    fn cut(&self, core: usize, reply: UnboundedSender<Dumped>) {
        self.run(core, move |state| {
            state.end(state.live, Outcome::CutAtDrain);
            let metrics = std::mem::take(&mut state.metrics);
            let _ = reply.send(Dumped { core, metrics });
        });
        self.kill(core);
    }
}
