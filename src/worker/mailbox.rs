//! How other threads talk to a core: a channel of commands and an eventfd that wakes it. A core
//! answers on the channel that came with the command and never waits for anybody.

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

/// What a core can be told.
pub(crate) enum Command {
    /// The routing table changed.
    Table(Arc<Update>),
    /// Give back what was measured so far and go on with `fresh`.
    Dump {
        fresh: Box<CoreMetrics>,
        reply: UnboundedSender<Dumped>,
    },
    /// Say how it stands.
    Status { reply: UnboundedSender<CoreStatus> },
    /// Say whose connections a backend sees come from this address.
    Lookup {
        source: SocketAddr,
        reply: UnboundedSender<Vec<Found>>,
    },
    /// Wake the task of this number; see [`Local::callable_task`].
    Wake(usize),
    /// Accept nothing new.
    Drain,
    /// End now, whatever is still open, and give back what was measured.
    Cut { reply: UnboundedSender<Dumped> },
    /// Panic, to show what becomes of the process. Sent only where `--debug-faults` allows it.
    Panic,
}

/// What one core measured since its last dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub core: usize,
    pub metrics: Box<CoreMetrics>,
}

/// How one core stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreStatus {
    pub core: usize,
    pub table_version: u64,
    /// Connections accepted and not yet ended.
    pub live: usize,
    /// Operations the kernel has: one per waiting direction, accept loop and mailbox.
    pub ring_operations: usize,
    pub deadlines: usize,
    pub pipes_idle: usize,
    pub pipes_out: usize,
    /// Connections to backends that wait for their next request.
    pub backends_idle: usize,
    /// Whether it still accepts.
    pub listening: bool,
}

/// Sends commands to one core. A clone reaches the same core.
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

    /// Whether the core will never answer again.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Delivers the command and wakes the core. A core that has ended takes no notice.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Wakes the core's task of this number, from any thread.
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
