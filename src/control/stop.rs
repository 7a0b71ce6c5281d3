//! How the process ends: the cores stop accepting, open connections get their time, what is left
//! is cut, and one line says how it went.

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

/// Between two looks at whether the last connection has ended. Each look wakes every core once.
const LOOK: Duration = Duration::from_millis(25);

/// How long the cores may take to end. What they cut has half a second of it to acknowledge what it was
/// sent.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// After a core has failed: as long as listeners need to take what is in their queues, and a little for
/// those that came in last.
const FAILURE_DRAIN: Duration = Duration::from_millis(1500);

/// How the process came to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Connections that were open when stopping began and finished by themselves.
    pub finished: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Whether a core failed.
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

/// The end of one process.
pub(super) struct Stop<'a> {
    process: &'a ProcessState,
    drain: Duration,
}

/// One look at all cores.
struct Look {
    live: u64,
    /// Every core answered, none accepts and none has a connection left.
    done: bool,
}

impl<'a> Stop<'a> {
    pub(super) fn new(process: &'a ProcessState, drain: Duration) -> Stop<'a> {
        Stop { process, drain }
    }

    /// Stops accepting, waits for open connections until the deadline or a second signal, cuts
    /// what is left. `dump` is called for SIGUSR1 meanwhile.
    pub(super) async fn drain(&mut self, events: &mut Receiver<Event>, dump: impl Fn()) -> Ended {
        let deadline = Instant::now() + self.drain;
        self.process.draining.set(true);
        let cores = self.process.cores();
        for core in cores.numbers() {
            cores.drain(core);
        }
        let first = self.look().await;
        let deadline_s = self.drain.as_secs_f64();
        tracing::info!(
            live = first.live,
            deadline_s,
            "stopping: no longer accepting"
        );
        let mut look = first;
        let open = look.live;
        while !look.done {
            let now = Instant::now();
            if now >= deadline && look.live == 0 {
                // Listeners that linger for late clients are no reason to speak of cutting.
                return self.end(open, 0).await;
            }
            if now >= deadline {
                return self.cut(open, look.live, "the drain deadline passed").await;
            }
            match timeout(LOOK.min(deadline - now), events.recv()).await {
                Ok(Some(Event::Stop)) => {
                    return self.cut(open, look.live, "a second signal came").await;
                }
                Ok(Some(Event::CoreFailed { core, cause })) => {
                    return self.core_failed(core, &cause).await;
                }
                Ok(Some(Event::Dump)) => dump(),
                Ok(Some(Event::Reload)) | Err(_) => {}
                Ok(None) => {
                    unreachable!("the signals hold a sender of their own channel")
                }
            }
            look = self.look().await;
        }
        self.end(open, 0).await
    }

    /// A core has failed: all are stopped, for a supervisor to start them again, as soon as nobody is in
    /// the queue of a listener.
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
        let ends = Instant::now() + FAILURE_DRAIN;
        let mut look = self.look().await;
        let open = look.live;
        while !look.done && Instant::now() < ends {
            tokio::time::sleep(LOOK).await;
            look = self.look().await;
        }
        let ended = self.cut(open, look.live, "a core failed").await;
        Ended {
            failed: true,
            ..ended
        }
    }

    async fn cut(&self, open: u64, live: u64, why: &str) -> Ended {
        tracing::warn!(live, "cutting connections: {why}");
        self.end(open, live).await
    }

    /// Ends the cores and says how it went. `live` connections are about to be cut.
    async fn end(&self, open: u64, live: u64) -> Ended {
        let collector = &self.process.collector;
        let complete = collector.cut(CUT_TIMEOUT).await;
        // Some may have finished since the last look, so the cores' own count is the true one,
        // unless one of them no longer answers.
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

    async fn look(&self) -> Look {
        let cores = self.process.cores();
        let answers = statuses(&*cores, ANSWER_TIMEOUT).await;
        let idle = answers.iter().all(|core| !core.listening && core.live == 0);
        Look {
            live: answers.iter().map(|core| core.live as u64).sum(),
            done: idle && answers.len() == cores.numbers().len(),
        }
    }
}

fn cut_at_drain(total: &CoreMetrics) -> u64 {
    let of = |protocol| total.outcome_count(protocol, Outcome::CutAtDrain);
    Protocol::ALL.into_iter().map(of).sum()
}

/// `tls relayed 5, http unknown_name 2`: the outcomes that happened.
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
