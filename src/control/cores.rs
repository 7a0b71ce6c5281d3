//! What the control thread asks of the cores. A trait, so that drain, dump and admin endpoint are
//! tested against threads that are no proxies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use crate::core::{Command, CoreStatus, Dumped, Mailbox};
use crate::lookup::Found;
use crate::metrics::CoreMetrics;

/// The running cores, by number. Every request is sent and not waited for; an answer comes through
/// the channel, or never when the core has died. Requests to one core are served in order.
pub trait Cores: Send + Sync {
    /// The number of each core, in an order that does not change.
    fn numbers(&self) -> Vec<usize>;
    /// The core takes `fresh` in place of what it recorded so far and sends that back.
    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: Sender<Dumped>);
    fn status(&self, core: usize, reply: Sender<CoreStatus>);
    /// Whose connections a backend sees come from `source`.
    fn lookup(&self, core: usize, source: SocketAddr, reply: Sender<Vec<Found>>);
    /// The core stops accepting and goes on with what it has.
    fn drain(&self, core: usize);
    /// The core panics.
    fn panic(&self, core: usize);
    /// The core ends every connection at once, each as cut, sends what it recorded since the last
    /// dump, and is gone.
    fn cut(&self, core: usize, reply: Sender<Dumped>);
}

/// The real cores, numbered by position.
impl Cores for Vec<Mailbox> {
    fn numbers(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: Sender<Dumped>) {
        self[core].send(Command::Dump { fresh, reply });
    }

    fn status(&self, core: usize, reply: Sender<CoreStatus>) {
        self[core].send(Command::Status { reply });
    }

    fn lookup(&self, core: usize, source: SocketAddr, reply: Sender<Vec<Found>>) {
        self[core].send(Command::Lookup { source, reply });
    }

    fn drain(&self, core: usize) {
        self[core].send(Command::Drain);
    }

    fn panic(&self, core: usize) {
        self[core].send(Command::Panic);
    }

    fn cut(&self, core: usize, reply: Sender<Dumped>) {
        self[core].send(Command::Cut { reply });
    }
}

/// Asks every core at once; those that do not answer within `timeout` are missing.
pub(super) fn statuses(cores: &dyn Cores, timeout: Duration) -> Vec<CoreStatus> {
    let deadline = Instant::now() + timeout;
    let numbers = cores.numbers();
    let (reply, answers) = unbounded();
    for core in &numbers {
        cores.status(*core, reply.clone());
    }
    // When every core has answered or died, nobody holds the channel and the wait ends early.
    drop(reply);
    let mut statuses = Vec::with_capacity(numbers.len());
    while let Ok(status) = answers.recv_deadline(deadline) {
        statuses.push(status);
    }
    statuses.sort_by_key(|status: &CoreStatus| status.core);
    statuses
}
