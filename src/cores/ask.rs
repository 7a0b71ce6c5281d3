//! What the control thread asks of the cores. A trait, so that drain, dump and admin endpoint are
//! tested against threads that are no proxies.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout_at;

use crate::lookup::Found;
use crate::metrics::CoreMetrics;
use crate::worker::{Command, CoreStatus, Dumped, Mailbox};

/// How long a core may take to answer. A healthy one answers within its turn; the rest are named
/// in the dump and caught up with later.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The running cores, by number. Every request is sent and not waited for; an answer comes through
/// the channel, or never when the core has died. Requests to one core are served in order.
pub(crate) trait Cores: Send + Sync {
    /// The number of each core that is not gone, in an order that does not change.
    fn numbers(&self) -> Vec<usize>;
    /// The core takes `fresh` in place of what it recorded so far and sends that back.
    fn dump(&self, core: usize, fresh: Box<CoreMetrics>, reply: UnboundedSender<Dumped>);
    fn status(&self, core: usize, reply: UnboundedSender<CoreStatus>);
    /// Whose connections a backend sees come from `source`.
    fn lookup(&self, core: usize, source: SocketAddr, reply: UnboundedSender<Vec<Found>>);
    /// The core stops accepting and goes on with what it has.
    fn drain(&self, core: usize);
    /// The core panics.
    fn panic(&self, core: usize);
    /// The core ends every connection at once, each as cut, sends what it recorded since the last
    /// dump, and is gone.
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

/// Asks every core at once by `ask`; what those say that do not answer within `timeout` is missing.
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
    // When every core has answered or died, nobody holds the channel and the wait ends early.
    drop(reply);
    let mut found = Vec::new();
    while let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await {
        found.push(answer);
    }
    found
}

/// How the cores stand, by their numbers.
pub(crate) async fn statuses(cores: &dyn Cores, timeout: Duration) -> Vec<CoreStatus> {
    let ask = |core, reply| cores.status(core, reply);
    let mut statuses = ask_all(cores, timeout, ask).await;
    statuses.sort_by_key(|status: &CoreStatus| status.core);
    statuses
}
