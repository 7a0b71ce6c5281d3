//! How the process ends: the cores stop accepting, open connections get their time, what is left
//! is cut, and one line says how it went.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::cores::statuses;
use super::signals::Event;
use super::{ANSWER_TIMEOUT, Shared};
use crate::metrics::{CoreMetrics, Counter};
use crate::outcome::Outcome;
use crate::protocol::Protocol;

/// Between two looks at whether the last connection has ended. Each look wakes every core once.
const LOOK: Duration = Duration::from_millis(25);

/// How long the cores may take to end.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How the process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were open when stopping began and finished by themselves.
    pub finished: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Whether a core failed.
    pub failed: bool,
}

impl Ended {
    /// 0 when every connection finished, 3 when some were cut, 1 when a core failed.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended { failed: true, .. } => 1,
            Ended { cut: 0, .. } => 0,
            Ended { .. } => 3,
        }
    }
}

/// The end of one process.
pub(super) struct Stop<'a> {
    shared: &'a Shared,
    drain: Duration,
}

/// One look at all cores.
struct Look {
    live: u64,
    /// Every core answered, none accepts and none has a connection left.
    done: bool,
}

impl<'a> Stop<'a> {
    pub fn new(shared: &'a Shared, drain: Duration) -> Stop<'a> {
        Stop { shared, drain }
    }

    /// Stops accepting, waits for open connections until the deadline or a second signal, cuts
    /// what is left. `dump` is called for SIGUSR1 meanwhile.
    pub fn drain(&mut self, events: &Receiver<Event>, dump: impl Fn()) -> Ended {
        let deadline = Instant::now() + self.drain;
        self.shared.draining.store(true, Ordering::Release);
        for core in self.shared.cores.numbers() {
            self.shared.cores.drain(core);
        }
        let first = self.look();
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
                return self.end(open, 0);
            }
            if now >= deadline {
                return self.cut(open, look.live, "the drain deadline passed");
            }
            match events.recv_timeout(LOOK.min(deadline - now)) {
                Ok(Event::Stop) => return self.cut(open, look.live, "a second signal came"),
                Ok(Event::CoreFailed { core, cause }) => return self.core_failed(core, &cause),
                Ok(Event::Dump) => dump(),
                Ok(Event::Reload) => {}
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the signals hold a sender of their own channel")
                }
            }
            look = self.look();
        }
        self.end(open, 0)
    }

    /// A core is gone: the others are stopped at once, for a supervisor to start all of them again.
    pub fn core_failed(&mut self, core: usize, cause: &str) -> Ended {
        tracing::error!(
            core,
            cause,
            "a core failed; the process ends, start it again"
        );
        let live = self.look().live;
        let ended = self.cut(live, live, "a core failed");
        Ended {
            failed: true,
            ..ended
        }
    }

    fn cut(&self, open: u64, live: u64, why: &str) -> Ended {
        tracing::warn!(live, "cutting connections: {why}");
        self.end(open, live)
    }

    /// Ends the cores and says how it went. `live` connections are about to be cut.
    fn end(&self, open: u64, live: u64) -> Ended {
        let mut collector = self.shared.collector();
        let complete = collector.cut(CUT_TIMEOUT);
        let total = collector.total();
        // Some may have finished since the last look, so the cores' own count is the true one,
        // unless one of them no longer answers.
        let cut = if complete {
            let of = |protocol| total.outcome_count(protocol, Outcome::CutAtDrain);
            Protocol::ALL.into_iter().map(of).sum()
        } else {
            live
        };
        let finished = open.saturating_sub(cut);
        tracing::info!(
            finished,
            cut,
            uptime_s = collector.uptime().as_secs(),
            accepted = total.counter(Counter::Accepted),
            ended = total.ended(),
            outcomes = outcomes(total),
            "stopped"
        );
        Ended {
            finished,
            cut,
            failed: false,
        }
    }

    fn look(&self) -> Look {
        let cores = &*self.shared.cores;
        let answers = statuses(cores, ANSWER_TIMEOUT);
        let idle = answers.iter().all(|core| !core.listening && core.live == 0);
        Look {
            live: answers.iter().map(|core| core.live as u64).sum(),
            done: idle && answers.len() == cores.numbers().len(),
        }
    }
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
