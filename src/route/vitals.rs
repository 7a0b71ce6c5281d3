//! How a backend is doing, as its connections tell: one set of atomics per backend that all cores
//! share, so that what one core has seen the others act upon with their next choice. Pure but for
//! that: time comes in as an argument, and nobody ever waits here.
//!
//! A backend is *ejected* after failures in a row, or when most of what it is given fails, for a
//! time that doubles with each ejection; when it is over one connection is a *trial*. It is *suspect*
//! while connections wait to be accepted or answered and none has been for much longer than usual: a
//! machine that is gone, or a frozen process, whose kernel goes on accepting. Whoever is not suspect is
//! preferred, that is all. Every mark ages out by itself.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::primitives::{AtomicU32, AtomicU64};

/// A point in time that fits an atomic: milliseconds since an hour before the first one was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Never 0, which stands for "not at all".
    pub fn of(now: Instant) -> Moment {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        const BEFORE: Duration = Duration::from_secs(60 * 60);
        let epoch = EPOCH.get_or_init(|| now.checked_sub(BEFORE).unwrap_or(now));
        let since = now.saturating_duration_since(*epoch).as_millis();
        Moment((since as u64).max(1))
    }

    /// Time from `earlier` to this one; zero when it is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// For an atomic, in which 0 stands for "never".
    pub(super) fn stored(self) -> u64 {
        self.0
    }

    pub(super) fn from_stored(stored: u64) -> Option<Moment> {
        (stored != 0).then_some(Moment(stored))
    }

    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0 + span.as_millis() as u64)
    }
}

/// When failures are too many, and for how long they keep a backend out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectRules {
    /// Failures in a row that eject; 0: nothing ever does.
    pub failures: u32,
    /// The part of a window's connections, in percent, whose failure ejects, when at least
    /// [`SHARE_FAILURES_MIN`] failed.
    pub share_percent: u32,
    /// The first ejection lasts this long, each further one twice as long as the one before.
    pub time: Duration,
    pub time_max: Duration,
}

impl Default for EjectRules {
    fn default() -> EjectRules {
        EjectRules {
            failures: 3,
            share_percent: 50,
            time: Duration::from_secs(2),
            time_max: Duration::from_secs(60),
        }
    }
}

/// Fewer failures than this in a window are chance, whatever part of it they are.
pub(super) const SHARE_FAILURES_MIN: u32 = 5;
/// Failures and successes are set against each other for this long after the first failure.
const WINDOW: Duration = Duration::from_secs(10);
/// A trial that has told nothing after this long, because its client left, leaves room for another.
const TRIAL_PATIENCE: Duration = Duration::from_secs(10);
/// Without any answer for this long a backend that owes one is suspect. Above the round trip to nearly
/// any backend, and within the second in which a freeze is to be noticed.
const SUSPECT_AFTER_MS: u64 = 500;
/// For backends that usually take long, so many times as long as they do.
const SUSPECT_AFTER_USUAL: u64 = 4;
/// What a new answer counts for in the usual time: one part of so many.
const USUAL_PARTS: u32 = 8;

/// In the count of live connections: somebody waits for a place, to whom the next one belongs.
const WAITED_FOR: u32 = 1 << 31;

/// One backend's marks and counts.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Open or under way, of all cores, and [`WAITED_FOR`].
    live: AtomicU32,
    failures_in_a_row: AtomicU32,
    /// Its beginning (moment, 0: none) in the upper 32 bits in units of 16 ms, failures and
    /// successes in it in 16 bits each.
    window: AtomicU64,
    /// 0: not ejected.
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    trial_at: AtomicU64,
    back_since: AtomicU64,
    unanswered: AtomicU32,
    unanswered_since: AtomicU64,
    /// Smoothed time to an answer, in milliseconds.
    usual_ms: AtomicU32,
}

/// Whether a backend may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Yes,
    /// Rather not.
    Suspect,
    /// One connection may try, whoever gets [`Vitals::claim_trial`].
    Trial,
    No,
}

/// How a backend stands, for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Up,
    Suspect,
    /// For so much longer.
    Ejected(Duration),
    /// Its time is over, and a connection is to show whether it works.
    Trial,
}

impl Condition {
    pub fn name(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Suspect => "suspect",
            Condition::Ejected(_) => "ejected",
            Condition::Trial => "trial",
        }
    }
}

impl Vitals {
    /// Connections under way or open, of all cores.
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed) & !WAITED_FOR
    }

    /// Whether [`Vitals::open`] would count one more.
    pub fn has_room(&self, max: Option<NonZeroU32>) -> bool {
        let live = self.live.load(Relaxed);
        max.is_none_or(|max| live & WAITED_FOR == 0 && live < max.get())
    }

    /// Counts one connection more, unless there are `max` already or somebody waits for a place.
    pub fn open(&self, max: Option<NonZeroU32>) -> bool {
        let Some(max) = max else {
            self.live.fetch_add(1, Relaxed);
            return true;
        };
        let may = |live: u32| live & WAITED_FOR == 0 && live < max.get();
        let one_more = |live| may(live).then_some(live + 1);
        self.live.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// As [`Vitals::open`], for one who has waited.
    pub(super) fn open_in_turn(&self, max: NonZeroU32) -> bool {
        let may = |live: u32| live & !WAITED_FOR < max.get();
        let one_more = |live| may(live).then_some(live + 1);
        self.live.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// Takes back one [`Vitals::open`]. True: somebody waits for the place.
    pub(super) fn close(&self) -> bool {
        let before = self.live.fetch_sub(1, Relaxed);
        debug_assert!(before & !WAITED_FOR > 0, "closed once per opened");
        before & WAITED_FOR != 0
    }

    /// Takes back one [`Vitals::open_in_turn`].
    pub(super) fn close_in_turn(&self) {
        self.close();
    }

    /// From here on places are given to those who wait alone, or to everybody again. Who closes a
    /// connection later than this sees it, and who closed one before has made room by now.
    pub(super) fn set_waited_for(&self, is_waited_for: bool) {
        match is_waited_for {
            true => self.live.fetch_or(WAITED_FOR, Relaxed),
            false => self.live.fetch_and(!WAITED_FOR, Relaxed),
        };
    }

    pub fn admission(&self, now: Moment) -> Admission {
        let until = self.ejected_until.load(Relaxed);
        if until != 0 {
            let trial_at = self.trial_at.load(Relaxed);
            let is_tried = trial_at != 0 && now.since(Moment(trial_at)) < TRIAL_PATIENCE;
            return match now.0 < until || is_tried {
                true => Admission::No,
                false => Admission::Trial,
            };
        }
        match self.is_suspect(now) {
            true => Admission::Suspect,
            false => Admission::Yes,
        }
    }

    /// Takes the one trial that there is. False: another connection has it, or none is due.
    pub fn claim_trial(&self, now: Moment) -> bool {
        let before = self.trial_at.load(Relaxed);
        self.admission(now) == Admission::Trial
            && self
                .trial_at
                .compare_exchange(before, now.0, Relaxed, Relaxed)
                .is_ok()
    }

    pub fn condition(&self, now: Moment) -> Condition {
        let until = self.ejected_until.load(Relaxed);
        if until != 0 && now.0 < until {
            Condition::Ejected(Moment(until).since(now))
        } else if until != 0 {
            Condition::Trial
        } else if self.is_suspect(now) {
            Condition::Suspect
        } else {
            Condition::Up
        }
    }

    /// When it came back from an ejection, if it ever was in one.
    pub fn back_since(&self) -> Option<Moment> {
        Moment::from_stored(self.back_since.load(Relaxed))
    }

    /// It has answered. True: this ended an ejection. A healthy backend costs three loads.
    pub fn succeeded(&self, now: Moment) -> bool {
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
        let window = self.window.load(Relaxed);
        if window != 0 {
            let counted = Window::unpack(window).counted(now, 0, 1);
            // A success that is lost to a race is one of many.
            let _ = self
                .window
                .compare_exchange(window, counted, Relaxed, Relaxed);
        }
        let until = self.ejected_until.load(Relaxed);
        // What was under way when it was ejected is no trial.
        if until == 0 || now.0 < until {
            return false;
        }
        let ended = self
            .ejected_until
            .compare_exchange(until, 0, Relaxed, Relaxed);
        if ended.is_ok() {
            self.trial_at.store(0, Relaxed);
            self.window.store(0, Relaxed);
            self.back_since.store(now.0, Relaxed);
        }
        ended.is_ok()
    }

    /// It refused, was unreachable, too slow, or closed without an answer. `jitter` is a random
    /// number from 0 to 1, so that many proxies do not come back in step. Gives back for how long
    /// that ejects it, when it does.
    pub fn failed(&self, now: Moment, rules: &EjectRules, jitter: f64) -> Option<Duration> {
        self.struck(now, rules, false, jitter)
    }

    /// As [`Vitals::failed`], of a backend that kept silent until a deadline while it was suspect:
    /// it answers nobody, and to have that confirmed would cost more clients as long a wait.
    pub fn kept_silent(&self, now: Moment, rules: &EjectRules, jitter: f64) -> Option<Duration> {
        self.struck(now, rules, true, jitter)
    }

    fn struck(
        &self,
        now: Moment,
        rules: &EjectRules,
        is_silent: bool,
        jitter: f64,
    ) -> Option<Duration> {
        if rules.failures == 0 {
            return None;
        }
        let in_a_row = self
            .failures_in_a_row
            .fetch_add(1, Relaxed)
            .saturating_add(1);
        let counted = |window| Window::unpack(window).counted(now, 1, 0);
        let count = |window| Some(counted(window));
        let before = self.window.fetch_update(Relaxed, Relaxed, count);
        let window = Window::unpack(counted(before.unwrap_or_else(|window| window)));
        let until = self.ejected_until.load(Relaxed);
        if until != 0 && now.0 < until {
            return None;
        }
        let failed_trial = until != 0;
        let most = window.failed >= SHARE_FAILURES_MIN
            && window.failed * 100 >= rules.share_percent * (window.failed + window.good);
        if !failed_trial && !is_silent && in_a_row < rules.failures && !most {
            return None;
        }
        let span = self.next_span(now, rules, failed_trial, jitter);
        let until_new = now.after(span).0;
        self.ejected_until
            .compare_exchange(until, until_new, Relaxed, Relaxed)
            .ok()?;
        self.trial_at.store(0, Relaxed);
        self.window.store(0, Relaxed);
        self.failures_in_a_row.store(0, Relaxed);
        Some(span)
    }

    /// Doubles with each ejection, and begins anew for a backend that has been good for as long as
    /// the longest of them.
    fn next_span(&self, now: Moment, rules: &EjectRules, again: bool, jitter: f64) -> Duration {
        let long_good = self
            .back_since()
            .is_none_or(|since| now.since(since) >= rules.time_max);
        if !again && long_good {
            self.ejections.store(0, Relaxed);
        }
        let doublings = self.ejections.fetch_add(1, Relaxed).min(20);
        let span = rules
            .time
            .saturating_mul(1 << doublings)
            .min(rules.time_max);
        span.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// A connection waits to be accepted or answered from here on, until [`Vitals::waits_no_more`].
    pub fn waits(&self, now: Moment) {
        if self.unanswered.fetch_add(1, Relaxed) == 0 {
            self.unanswered_since.store(now.0, Relaxed);
        }
    }

    /// What was waited for since `began` has come, or is not waited for any longer.
    pub fn waits_no_more(&self, began: Moment, now: Moment, answered: bool) {
        self.unanswered.fetch_sub(1, Relaxed);
        if !answered {
            return;
        }
        self.unanswered_since.store(now.0, Relaxed);
        let took_ms = now
            .since(began)
            .as_millis()
            .min(u128::from(u32::MAX / USUAL_PARTS)) as u32;
        let usual_ms = self.usual_ms.load(Relaxed);
        // Up by at least one, or small changes would be rounded away for ever; nothing is written
        // where nothing changes, as with most backends nearby.
        let smoothed = (usual_ms * (USUAL_PARTS - 1) + took_ms).div_ceil(USUAL_PARTS);
        let smoothed = if took_ms < usual_ms {
            smoothed.min(usual_ms - 1)
        } else {
            smoothed
        };
        if smoothed != usual_ms {
            self.usual_ms.store(smoothed, Relaxed);
        }
    }

    /// For how long it may owe an answer before it is suspect, and before a trial is over.
    pub fn patience(&self) -> Duration {
        let usual_ms = u64::from(self.usual_ms.load(Relaxed));
        Duration::from_millis(SUSPECT_AFTER_MS.max(usual_ms * SUSPECT_AFTER_USUAL))
    }

    fn is_suspect(&self, now: Moment) -> bool {
        let since = Moment(self.unanswered_since.load(Relaxed));
        self.unanswered.load(Relaxed) > 0 && now.since(since) >= self.patience()
    }
}

/// The failures of late, and what went well meanwhile.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: u32,
    failed: u32,
    good: u32,
}

impl Window {
    fn unpack(packed: u64) -> Window {
        Window {
            began: (packed >> 32) as u32,
            failed: (packed >> 16 & 0xffff) as u32,
            good: (packed & 0xffff) as u32,
        }
    }

    /// With so many more, packed; a window that is over gives way to a new one, which only a
    /// failure begins.
    fn counted(self, now: Moment, failed: u32, good: u32) -> u64 {
        let unit = (now.0 >> 4) as u32;
        let age = unit.wrapping_sub(self.began) as u128 * 16;
        let mut window = self;
        if self.began == 0 || age >= WINDOW.as_millis() {
            if failed == 0 {
                return 0;
            }
            window = Window {
                began: unit.max(1),
                failed: 0,
                good: 0,
            };
        }
        let failed = (window.failed + failed).min(0xffff) as u64;
        let good = (window.good + good).min(0xffff) as u64;
        (window.began as u64) << 32 | failed << 16 | good
    }
}

#[cfg(test)]
mod tests;
