//! How the process ends: the cores stop accepting, open connections may finish until the drain deadline,
//! those that are left are cut, and one log line counts all of it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::signals::Event;
use crate::admin::ProcessState;
use crate::cores::{ANSWER_TIMEOUT, statuses};
use crate::metrics::{CoreMetrics, Counter};
use crate::outcome::Outcome;
use crate::protocol::Protocol;

/// Between two polls of whether the last connection has ended. Each poll wakes every core once.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// How long the cores may take to cut their connections and end. For half a second of it they wait for
/// peers to acknowledge what they were sent last.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the process goes on after a core has failed. The other cores need it to accept what is in
/// the queues of their listeners, and to answer what they accepted last.
const FAILURE_DRAIN: Duration = Duration::from_millis(1500);

/// How the process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Connections that were open at the signal to stop and finished before the deadline.
    pub finished: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Whether a core failed, which is why the process ended.
    pub failed: bool,
}

impl Ended {
    /// 0 when every connection finished, 3 when some were cut, 1 when a core failed.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Ended { failed: true, .. } => 1,
            Ended { cut: 0, .. } => 0,
            Ended { .. } => 3,
        }
    }
}

/// The stop of the process.
pub(super) struct Stop<'a> {
    process: &'a ProcessState,
    drain: Duration,
}

/// What a poll of all cores found.
struct Progress {
    /// Open connections of clients.
    live: u64,
    /// Whether every core has answered, and none accepts or has a connection left.
    is_done: bool,
}

impl<'a> Stop<'a> {
    pub(super) fn new(process: &'a ProcessState, drain: Duration) -> Stop<'a> {
        Stop { process, drain }
    }

    /// Stops accepting, waits for open connections until the drain deadline or a second signal, and
    /// cuts those that are left. `dump` is called on SIGUSR1.
    pub(super) async fn drain(&mut self, events: &mut Receiver<Event>, dump: impl Fn()) -> Ended {
        let deadline = Instant::now() + self.drain;
        self.process.draining.set(true);
        let cores = self.process.cores();
        for core in cores.numbers() {
            cores.drain(core);
        }
        let mut progress = self.poll().await;
        let open = progress.live;
        let deadline_s = self.drain.as_secs_f64();
        tracing::info!(live = open, deadline_s, "stopping: no longer accepting");
        while !progress.is_done {
            let now = Instant::now();
            if now >= deadline && progress.live == 0 {
                // Only listeners are left, which wait for late clients: nothing is cut.
                return self.end(open, 0).await;
            }
            if now >= deadline {
                return self
                    .cut(open, progress.live, "the drain deadline passed")
                    .await;
            }
            match timeout(POLL_INTERVAL.min(deadline - now), events.recv()).await {
                Ok(Some(Event::Stop)) => {
                    return self.cut(open, progress.live, "a second signal came").await;
                }
                Ok(Some(Event::CoreFailed { core, cause })) => {
                    return self.core_failed(core, &cause).await;
                }
                Ok(Some(Event::Dump)) => dump(),
                Ok(Some(Event::Reload)) | Err(_) => {}
                Ok(None) => {
                    unreachable!("the thread that takes signals holds a sender")
                }
            }
            progress = self.poll().await;
        }
        self.end(open, 0).await
    }

    /// A core has failed. The process ends, for a supervisor to start it again, once the queues of all
    /// listeners are empty.
    pub(super) async fn core_failed(&mut self, core: usize, cause: &str) -> Ended {
        tracing::error!(
            core,
            cause,
            "a core failed; the process ends, start it again"
        );
        self.process.draining.set(true);
        let cores = self.process.cores();
        for core in cores.numbers() {
            cores.drain(core);
        }
        let deadline = Instant::now() + FAILURE_DRAIN;
        let mut progress = self.poll().await;
        let open = progress.live;
        while !progress.is_done && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
            progress = self.poll().await;
        }
        let ended = self.cut(open, progress.live, "a core failed").await;
        Ended {
            failed: true,
            ..ended
        }
    }

    async fn cut(&self, open: u64, live: u64, cause: &str) -> Ended {
        tracing::warn!(live, "cutting connections: {cause}");
        self.end(open, live).await
    }

    /// Ends the cores and logs what became of the connections. `open` of them were open at the signal
    /// to stop, `live` at the last poll.
    async fn end(&self, open: u64, live: u64) -> Ended {
        let collector = &self.process.collector;
        let complete = collector.cut(CUT_TIMEOUT).await;
        // Connections may have finished since the last poll, so the cores' own count is the right one,
        // unless a core no longer answers.
        let cut = if complete {
            collector.with_total(cut_at_drain)
        } else {
            live
        };
        let finished = open.saturating_sub(cut);
        let uptime_s = collector.uptime().as_secs();
        collector.with_total(|total| {
            tracing::info!(
                finished,
                cut,
                uptime_s,
                accepted = total.counter(Counter::Accepted),
                ended = total.ended(),
                outcomes = outcomes(total),
                "stopped"
            );
        });
        Ended {
            finished,
            cut,
            failed: false,
        }
    }

    async fn poll(&self) -> Progress {
        let cores = self.process.cores();
        let answers = statuses(&*cores, ANSWER_TIMEOUT).await;
        let idle = answers.iter().all(|core| !core.listening && core.live == 0);
        Progress {
            live: answers.iter().map(|core| core.live as u64).sum(),
            is_done: idle && answers.len() == cores.numbers().len(),
        }
    }
}

fn cut_at_drain(total: &CoreMetrics) -> u64 {
    let of = |protocol| total.outcome_count(protocol, Outcome::CutAtDrain);
    Protocol::ALL.into_iter().map(of).sum()
}

/// The outcomes that happened, such as `tls relayed 5, http unknown_name 2`.
fn outcomes(metrics: &CoreMetrics) -> String {
    let mut text = String::new();
    for protocol in Protocol::ALL {
        for outcome in Outcome::all() {
            let count = metrics.outcome_count(protocol, outcome);
            if count > 0 {
                let comma = if text.is_empty() { "" } else { ", " };
                write!(
                    text,
                    "{comma}{} {} {count}",
                    protocol.name(),
                    outcome.name()
                )
                .expect("a String takes everything");
            }
        }
    }
    text
}
