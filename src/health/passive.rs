//! Passive health: what the connections of a backend tell about it. One set of atomics per backend,
//! shared by all cores, so that what one core has seen counts for the next choice of every other. No
//! locks.
//!
//! *Outlier ejection*: a backend is ejected after several failures in a row, or when most of its recent
//! connections failed. The time of an ejection doubles each time. When it is over, the backend is
//! *half-open*: one connection, the probe, shows whether it works again.
//!
//! *Suspect*: connections wait to be accepted or answered, and for much longer than usual none has been.
//! That is what a machine that is gone looks like, and a frozen process whose kernel still accepts.
//! Backends that are not suspect are preferred.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::moment::Moment;
use crate::primitives::{AtomicU32, AtomicU64};

/// When failures eject a backend, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EjectionRules {
    /// So many failures in a row eject. 0: nothing ever ejects.
    pub(crate) consecutive_failures: u32,
    /// So many percent of the connections of a window eject when they fail, if they are at least
    /// [`WINDOW_FAILURES_MIN`].
    pub(crate) failure_percent: u32,
    /// Length of the first ejection; each further one is twice as long as the one before.
    pub(crate) time: Duration,
    pub(crate) time_max: Duration,
}

impl Default for EjectionRules {
    fn default() -> EjectionRules {
        EjectionRules {
            consecutive_failures: 3,
            failure_percent: 50,
            time: Duration::from_secs(2),
            time_max: Duration::from_secs(60),
        }
    }
}

/// Fewer failures than this in a window may be chance, whatever percentage they are.
const WINDOW_FAILURES_MIN: u32 = 5;
/// A window begins with a failure. Failures and successes are compared for this long.
const WINDOW: Duration = Duration::from_secs(10);
/// A half-open probe without a result after this long gives way to another one. Its client may have
/// left.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);
/// A backend is suspect when it owes an answer for this long. It is more than the round trip to nearly
/// any backend, and less than the second within which a frozen backend is to be noticed.
const SUSPECT_AFTER_MS: u64 = 500;
/// A slow backend is suspect only after this many times its usual time.
const SUSPECT_AFTER_USUAL: u64 = 4;
/// A new answer counts for one part in this many of the usual time.
const USUAL_PARTS: u32 = 8;
/// More doublings than this reach any `time_max`.
const DOUBLINGS_MAX: u32 = 20;

/// The passive health of one backend.
#[derive(Debug, Default)]
pub(crate) struct PassiveHealth {
    consecutive_failures: AtomicU32,
    /// A packed [`Window`]; 0: none.
    window: AtomicU64,
    /// End of the ejection; 0: not ejected.
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    /// Start of the half-open probe; 0: there is none.
    probe_began: AtomicU64,
    /// End of the last ejection by a successful probe; 0: never.
    readmitted_at: AtomicU64,
    /// Connections that wait to be accepted or answered.
    pending: AtomicU32,
    /// The last answer, or the start of waiting when nobody waited before.
    pending_since: AtomicU64,
    /// Smoothed time to an answer, in milliseconds.
    usual_ms: AtomicU32,
}

/// Whether a backend may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Yes,
    /// Only when no other is left.
    Suspect,
    /// One connection may probe it: the caller of [`PassiveHealth::claim_probe`] that gets `true`.
    HalfOpen,
    No,
}

/// The state of a backend, for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Up,
    Suspect,
    /// For this much longer.
    Ejected(Duration),
    /// The ejection is over. A connection is to show whether the backend works again.
    HalfOpen,
}

impl Condition {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Suspect => "suspect",
            Condition::Ejected(_) => "ejected",
            Condition::HalfOpen => "half-open",
        }
    }
}

impl PassiveHealth {
    pub(crate) fn admission(&self, now: Moment) -> Admission {
        let Some(until) = Moment::from_stored(self.ejected_until.load(Relaxed)) else {
            return if self.is_suspect(now) {
                Admission::Suspect
            } else {
                Admission::Yes
            };
        };
        if now < until || self.has_probe(now) {
            Admission::No
        } else {
            Admission::HalfOpen
        }
    }

    /// Takes the one probe of a half-open backend. `false`: another connection has it, or the backend
    /// is not half-open.
    pub(crate) fn claim_probe(&self, now: Moment) -> bool {
        let before = self.probe_began.load(Relaxed);
        self.admission(now) == Admission::HalfOpen
            && self
                .probe_began
                .compare_exchange(before, now.to_stored(), Relaxed, Relaxed)
                .is_ok()
    }

    fn has_probe(&self, now: Moment) -> bool {
        let began = Moment::from_stored(self.probe_began.load(Relaxed));
        began.is_some_and(|began| now.since(began) < PROBE_TIME_MAX)
    }

    pub(crate) fn condition(&self, now: Moment) -> Condition {
        match Moment::from_stored(self.ejected_until.load(Relaxed)) {
            Some(until) if now < until => Condition::Ejected(until.since(now)),
            Some(_) => Condition::HalfOpen,
            None if self.is_suspect(now) => Condition::Suspect,
            None => Condition::Up,
        }
    }

    /// When a successful probe ended the last ejection; `None`: there was none.
    pub(crate) fn readmitted_at(&self) -> Option<Moment> {
        Moment::from_stored(self.readmitted_at.load(Relaxed))
    }

    /// The backend has answered. `true`: this ended an ejection. Costs three loads for a healthy
    /// backend.
    pub(crate) fn record_success(&self, now: Moment) -> bool {
        if self.consecutive_failures.load(Relaxed) != 0 {
            self.consecutive_failures.store(0, Relaxed);
        }
        let window = self.window.load(Relaxed);
        if window != 0 {
            let counted = Window::unpack(window).with_success(now);
            // A success that is lost to a race is one of many.
            let _ = self
                .window
                .compare_exchange(window, counted, Relaxed, Relaxed);
        }
        let stored = self.ejected_until.load(Relaxed);
        // A connection from before the ejection says nothing about its end.
        if Moment::from_stored(stored).is_none_or(|until| now < until) {
            return false;
        }
        let ended = self
            .ejected_until
            .compare_exchange(stored, 0, Relaxed, Relaxed);
        if ended.is_ok() {
            self.probe_began.store(0, Relaxed);
            self.window.store(0, Relaxed);
            self.readmitted_at.store(now.to_stored(), Relaxed);
        }
        ended.is_ok()
    }

    /// The backend refused, was unreachable or too slow, or closed without an answer. `jitter` is a
    /// random number from 0 to 1, so that many proxies do not return to a backend at once. Returns the
    /// length of the ejection if this failure caused one.
    pub(crate) fn record_failure(
        &self,
        now: Moment,
        rules: &EjectionRules,
        jitter: f64,
    ) -> Option<Duration> {
        self.record(Failure::Single, now, rules, jitter)
    }

    /// A deadline passed while the backend was suspect: it answers nobody. That ejects at once, since
    /// further evidence would cost more clients the same wait.
    pub(crate) fn record_timeout(
        &self,
        now: Moment,
        rules: &EjectionRules,
        jitter: f64,
    ) -> Option<Duration> {
        self.record(Failure::AnswersNobody, now, rules, jitter)
    }

    fn record(
        &self,
        failure: Failure,
        now: Moment,
        rules: &EjectionRules,
        jitter: f64,
    ) -> Option<Duration> {
        if rules.consecutive_failures == 0 {
            return None;
        }
        let in_a_row = self
            .consecutive_failures
            .fetch_add(1, Relaxed)
            .saturating_add(1);
        let counted = |window| Window::unpack(window).with_failure(now);
        let count = |window| Some(counted(window));
        let before = self.window.fetch_update(Relaxed, Relaxed, count);
        let window = Window::unpack(counted(before.unwrap_or_else(|window| window)));
        let stored = self.ejected_until.load(Relaxed);
        let until = Moment::from_stored(stored);
        if until.is_some_and(|until| now < until) {
            return None;
        }
        let failed_probe = until.is_some();
        let ejects = failed_probe
            || failure == Failure::AnswersNobody
            || in_a_row >= rules.consecutive_failures
            || window.has_failed(rules);
        if !ejects {
            return None;
        }
        let span = self.next_ejection(now, rules, failed_probe, jitter);
        let until = now.after(span).to_stored();
        self.ejected_until
            .compare_exchange(stored, until, Relaxed, Relaxed)
            .ok()?;
        self.probe_began.store(0, Relaxed);
        self.window.store(0, Relaxed);
        self.consecutive_failures.store(0, Relaxed);
        Some(span)
    }

    /// The length of the next ejection. It starts over for a backend that has worked for as long as the
    /// longest ejection.
    fn next_ejection(
        &self,
        now: Moment,
        rules: &EjectionRules,
        failed_probe: bool,
        jitter: f64,
    ) -> Duration {
        let has_worked_long = self
            .readmitted_at()
            .is_none_or(|since| now.since(since) >= rules.time_max);
        if !failed_probe && has_worked_long {
            self.ejections.store(0, Relaxed);
        }
        let doublings = self.ejections.fetch_add(1, Relaxed).min(DOUBLINGS_MAX);
        let span = rules
            .time
            .saturating_mul(1 << doublings)
            .min(rules.time_max);
        span.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// A connection waits to be accepted or answered, until [`PassiveHealth::finish_pending`] or
    /// [`PassiveHealth::abandon_pending`].
    pub(crate) fn start_pending(&self, now: Moment) {
        if self.pending.fetch_add(1, Relaxed) == 0 {
            self.pending_since.store(now.to_stored(), Relaxed);
        }
    }

    /// What a connection has waited for since `began` has come.
    pub(crate) fn finish_pending(&self, began: Moment, now: Moment) {
        self.pending.fetch_sub(1, Relaxed);
        self.pending_since.store(now.to_stored(), Relaxed);
        let took_ms = now
            .since(began)
            .as_millis()
            .min(u128::from(u32::MAX / USUAL_PARTS)) as u32;
        let usual_ms = self.usual_ms.load(Relaxed);
        let smoothed = (usual_ms * (USUAL_PARTS - 1) + took_ms).div_ceil(USUAL_PARTS);
        // Down by at least one, or rounding up would keep small changes away for ever.
        let smoothed = if took_ms < usual_ms {
            smoothed.min(usual_ms - 1)
        } else {
            smoothed
        };
        // Most backends nearby never change, and then nothing is written.
        if smoothed != usual_ms {
            self.usual_ms.store(smoothed, Relaxed);
        }
    }

    /// A connection ends before what it waited for has come.
    pub(crate) fn abandon_pending(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    /// How long an answer may take before the backend is suspect and before a half-open probe has
    /// failed.
    pub(crate) fn patience(&self) -> Duration {
        let usual_ms = u64::from(self.usual_ms.load(Relaxed));
        Duration::from_millis(SUSPECT_AFTER_MS.max(usual_ms * SUSPECT_AFTER_USUAL))
    }

    fn is_suspect(&self, now: Moment) -> bool {
        if self.pending.load(Relaxed) == 0 {
            return false;
        }
        let since = Moment::from_stored(self.pending_since.load(Relaxed));
        since.is_none_or(|since| now.since(since) >= self.patience())
    }
}

/// What a failure says about the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// One connection failed.
    Single,
    /// The backend has answered no connection for a long time.
    AnswersNobody,
}

/// Recent failures and the successes in the same time. Packed into 64 bits: the beginning in 32 bits, in
/// units of 16 ms, and 16 bits for each count.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// 0: there is no window.
    began: u32,
    failures: u32,
    successes: u32,
}

impl Window {
    const UNIT_MS: u128 = 16;
    const COUNT_MAX: u32 = 0xffff;

    fn unpack(packed: u64) -> Window {
        Window {
            began: (packed >> 32) as u32,
            failures: (packed >> 16 & 0xffff) as u32,
            successes: (packed & 0xffff) as u32,
        }
    }

    fn pack(self) -> u64 {
        let failures = u64::from(self.failures.min(Window::COUNT_MAX));
        let successes = u64::from(self.successes.min(Window::COUNT_MAX));
        u64::from(self.began) << 32 | failures << 16 | successes
    }

    fn unit(now: Moment) -> u32 {
        (u128::from(now.to_stored()) / Window::UNIT_MS) as u32
    }

    fn is_over(self, now: Moment) -> bool {
        let age = u128::from(Window::unit(now).wrapping_sub(self.began)) * Window::UNIT_MS;
        self.began == 0 || age >= WINDOW.as_millis()
    }

    /// With one failure more, packed. A failure after the end of the window begins a new one.
    fn with_failure(mut self, now: Moment) -> u64 {
        if self.is_over(now) {
            self = Window {
                began: Window::unit(now).max(1),
                failures: 0,
                successes: 0,
            };
        }
        self.failures += 1;
        self.pack()
    }

    /// With one success more, packed; 0 when the window is over.
    fn with_success(mut self, now: Moment) -> u64 {
        if self.is_over(now) {
            return 0;
        }
        self.successes += 1;
        self.pack()
    }

    fn has_failed(self, rules: &EjectionRules) -> bool {
        let all = self.failures + self.successes;
        self.failures >= WINDOW_FAILURES_MIN && self.failures * 100 >= rules.failure_percent * all
    }
}

#[cfg(test)]
mod tests;
