//! What other threads may ask of the cores. A trait, so that stop, dumps and admin endpoint are tested
//! with plain threads in place of cores.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout_at;

use crate::lookup::Found;
use crate::metrics::CoreMetrics;
use crate::worker::{Command, CoreStatus, Dumped, Mailbox};

/// How long a core may take to answer. A healthy core answers as soon as it has handled the events at
/// hand. A dump lists those that did not answer; what they recorded is in the next one.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The running cores, by number. No call blocks: the answer comes through the channel of `reply`, or
/// never when the core has died. A core serves its requests in order.
pub(crate) trait Cores: Send + Sync {
    /// The number of each core that has not ended, always in the same order.
    fn numbers(&self) -> Vec<usize>;
    /// The core sends what it has recorded so far, and records into `fresh` from now on.
    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: UnboundedSender<Dumped>);
    fn status(&self, core: usize, reply: UnboundedSender<CoreStatus>);
    /// The core sends the connections whose source address, as the backend sees it, is `source`.
    fn lookup(&self, core: usize, source: SocketAddr, reply: UnboundedSender<Vec<Found>>);
    /// The core stops accepting. Its open connections go on.
    fn drain(&self, core: usize);
    /// The core panics, for tests.
    fn panic(&self, core: usize);
    /// The core cuts every connection, sends what it has recorded since the last dump, and ends.
    fn cut(&self, core: usize, reply: UnboundedSender<Dumped>);
}

/// The real cores, numbered by position.
impl Cores for Vec<Mailbox> {
    fn numbers(&self) -> Vec<usize> {
        (0..self.len())
            .filter(|core| !self[*core].is_gone())
            .collect()
    }

    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: UnboundedSender<Dumped>) {
        self[core].send(Command::Dump { fresh, reply });
    }

    fn status(&self, core: usize, reply: UnboundedSender<CoreStatus>) {
        self[core].send(Command::Status { reply });
    }

    fn lookup(&self, core: usize, source: SocketAddr, reply: UnboundedSender<Vec<Found>>) {
        self[core].send(Command::Lookup { source, reply });
    }

    fn drain(&self, core: usize) {
        self[core].send(Command::Drain);
    }

    fn panic(&self, core: usize) {
        self[core].send(Command::Panic);
    }

    fn cut(&self, core: usize, reply: UnboundedSender<Dumped>) {
        self[core].send(Command::Cut { reply });
    }
}

/// Asks all cores at the same time, with `ask`. The answers of those that take longer than `timeout` are
/// missing.
pub(crate) async fn ask_all<T>(
    cores: &dyn Cores,
    timeout: Duration,
    ask: impl Fn(usize, UnboundedSender<T>),
) -> Vec<T> {
    let deadline = tokio::time::Instant::now() + timeout;
    let (reply, mut answers) = unbounded_channel();
    for core in cores.numbers() {
        ask(core, reply.clone());
    }
    // Each core drops its sender with its answer, or when it dies: the wait ends with the last of them.
    drop(reply);
    let mut found = Vec::new();
    while let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await {
        found.push(answer);
    }
    found
}

/// The status of each core that answers, sorted by number.
pub(crate) async fn statuses(cores: &dyn Cores, timeout: Duration) -> Vec<CoreStatus> {
    let ask = |core, reply| cores.status(core, reply);
    let mut statuses = ask_all(cores, timeout, ask).await;
    statuses.sort_by_key(|status: &CoreStatus| status.core);
    statuses
}
