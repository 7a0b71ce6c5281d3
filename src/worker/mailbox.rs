//! How other threads talk to a worker: a channel of commands, and an eventfd that wakes it. The worker
//! answers on the channel that came with the command, and waits for nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task;

use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::lookup::Found;
use crate::metrics::CoreMetrics;
use crate::route::Update;
use crate::state::Local;
use crate::sys::Waker;

/// A command to a worker.
pub(crate) enum Command {
    /// Apply this change to the routing table.
    Table(Arc<Update>),
    /// Send the metrics so far and go on with `fresh` ones.
    Dump {
        fresh: Box<CoreMetrics>,
        reply: UnboundedSender<Dumped>,
    },
    /// Send the worker's status.
    Status { reply: UnboundedSender<CoreStatus> },
    /// Send the connections that a backend sees come from this address.
    Lookup {
        source: SocketAddr,
        reply: UnboundedSender<Vec<Found>>,
    },
    /// Wake the task of this number; see [`Local::callable_task`].
    Wake(usize),
    /// Begin the drain.
    Drain,
    /// Cut all connections, end, and send the metrics.
    Cut { reply: UnboundedSender<Dumped> },
    /// Panic, for tests. Sent only where `--debug-faults` allows it.
    Panic,
}

/// The metrics of one worker since its last dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub core: usize,
    pub metrics: Box<CoreMetrics>,
}

/// The status of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreStatus {
    pub core: usize,
    pub table_version: u64,
    /// Open client connections.
    pub live: usize,
    /// Operations that the kernel holds: one per waiting direction, accept loop and mailbox.
    pub ring_operations: usize,
    pub deadlines: usize,
    pub pipes_idle: usize,
    pub pipes_out: usize,
    /// Idle connections to backends.
    pub backends_idle: usize,
    /// Whether it still accepts connections.
    pub listening: bool,
}

/// Sends commands to one worker. A clone reaches the same worker.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    commands: Sender<Command>,
    waker: Waker,
    is_gone: Arc<AtomicBool>,
}

impl Mailbox {
    pub(super) fn new(
        commands: Sender<Command>,
        waker: Waker,
        is_gone: Arc<AtomicBool>,
    ) -> Mailbox {
        Mailbox {
            commands,
            waker,
            is_gone,
        }
    }

    /// Whether the worker has failed and will never answer again.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Delivers the command and wakes the worker. One that has ended ignores it.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// A waker for the worker's task of this number, for any thread.
    pub(super) fn task_waker(&self, task: usize) -> task::Waker {
        let mailbox = self.clone();
        task::Waker::from(Arc::new(TaskWaker { mailbox, task }))
    }
}

struct TaskWaker {
    mailbox: Mailbox,
    task: usize,
}

impl task::Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.send(Command::Wake(self.task));
    }
}

pub(super) fn dump(local: &Local, fresh: Box<CoreMetrics>) -> Dumped {
    Dumped {
        core: local.core,
        metrics: local.metrics.replace(fresh),
    }
}

pub(super) fn lookup(local: &Local, source: SocketAddr) -> Vec<Found> {
    let table = local.lookup.as_ref();
    table.map_or_else(Vec::new, |table| {
        table.borrow().find(source, local.ring.now())
    })
}

pub(super) fn status(local: &Local) -> CoreStatus {
    let pipes = local.pipes.borrow();
    CoreStatus {
        core: local.core,
        table_version: local.table.borrow().version(),
        live: local.live(),
        ring_operations: local.ring.operations(),
        deadlines: local.ring.deadlines(),
        pipes_idle: pipes.idle(),
        pipes_out: pipes.out(),
        backends_idle: local.idle.borrow().len(),
        listening: local.listening.get() > 0,
    }
}
