//! The rate of each key, by the generic cell rate algorithm (ITU-T I.371), which needs one time per key.
//! Whatever is admitted adds an interval to the debt of its key. The debt shrinks as time passes and may be
//! at most one second's worth of intervals, which is the burst. A key without debt is forgotten.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::line::{Line, line_of, lines};

/// The low bits of a slot are the time at which its debt is paid off. The others are the fingerprint of its
/// key. The time wraps around after 19 hours: a slot that was not used for exactly that long seems to be
/// in debt for a second.
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Ticks of 1/64 of a microsecond, so that rates of some thousands per second are exact to one.
const TICKS_PER_SECOND: u64 = 64_000_000;
/// How often to try again when other cores change the slot each time. Then nothing is tracked.
const TRIES: u32 = 64;

/// A table of rates by key.
#[derive(Debug)]
pub(super) struct Rates {
    lines: Box<[Line]>,
    epoch: Instant,
}

/// The result of [`Rates::pay`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Paid {
    Yes,
    /// The key is over its rate.
    Over,
    /// Other keys have all slots of the line, so nothing was tracked.
    LineFull,
}

impl Rates {
    /// Times before `epoch` count as `epoch`.
    pub(super) fn new(connections_max: usize, epoch: Instant) -> Rates {
        Rates {
            lines: lines(connections_max),
            epoch,
        }
    }

    /// Admits one more for the key of this hash, unless it exceeds `per_second`.
    pub(super) fn pay(&self, hash: u64, per_second: u32, now: Instant) -> Paid {
        let cost = TICKS_PER_SECOND.div_ceil(u64::from(per_second));
        let burst = cost * u64::from(per_second);
        let since = now.saturating_duration_since(self.epoch);
        let now = ticks(since) & TIME_MASK;
        let line = &self.lines[line_of(&self.lines, hash)];
        let own = hash & !TIME_MASK;
        for _ in 0..TRIES {
            let look = Look::at(line, own, now);
            if look.debt + cost > burst {
                return Paid::Over;
            }
            let Some((at, seen)) = look.slot else {
                return Paid::LineFull;
            };
            let is_new = debt(seen, now) == 0;
            let until = (now + debt(seen, now) + cost) & TIME_MASK;
            let slot = &line.0[at];
            let next = own | until;
            if slot.compare_exchange(seen, next, SeqCst, SeqCst).is_err() {
                continue;
            }
            // Another core may have taken another slot for the same key meanwhile. The core that sees
            // this gives its own slot back and tries again.
            if is_new
                && Look::at(line, own, now).slots > 1
                && slot.compare_exchange(next, 0, SeqCst, SeqCst).is_ok()
            {
                continue;
            }
            return Paid::Yes;
        }
        Paid::LineFull
    }
}

fn ticks(since: Duration) -> u64 {
    since.as_secs().wrapping_mul(TICKS_PER_SECOND) + u64::from(since.subsec_nanos()) * 64 / 1000
}

/// The debt of a slot, in ticks. No debt is longer than a burst, so a time further ahead is long past.
fn debt(slot: u64, now: u64) -> u64 {
    let ahead = (slot & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    if slot == 0 || ahead > 2 * TICKS_PER_SECOND {
        return 0;
    }
    ahead
}

/// What a key has in its line at one moment.
struct Look {
    /// Of all slots of the key.
    debt: u64,
    slots: u32,
    /// The slot to add to, and its value.
    slot: Option<(usize, u64)>,
}

impl Look {
    fn at(line: &Line, own: u64, now: u64) -> Look {
        let mut look = Look {
            debt: 0,
            slots: 0,
            slot: None,
        };
        let mut free = None;
        for (at, slot) in line.0.iter().enumerate() {
            let seen = slot.load(SeqCst);
            let of_slot = debt(seen, now);
            if of_slot == 0 {
                free = free.or(Some((at, seen)));
            } else if seen & !TIME_MASK == own {
                look.debt += of_slot;
                look.slots += 1;
                look.slot = look.slot.or(Some((at, seen)));
            }
        }
        look.slot = look.slot.or(free);
        look
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize};

    use proptest::prelude::*;

    use super::*;

    /// A hash of line 0.
    fn hash(n: u64) -> u64 {
        n << TIME_BITS
    }

    /// How many are admitted when one comes every `gap` for the time `span`.
    fn admitted(rates: &Rates, hash: u64, per_second: u32, gap: Duration, span: Duration) -> u32 {
        let mut now = rates.epoch + Duration::from_secs(3);
        let end = now + span;
        let mut count = 0;
        while now < end {
            count += u32::from(rates.pay(hash, per_second, now) == Paid::Yes);
            now += gap;
        }
        count
    }

    #[test]
    fn a_burst_is_a_seconds_worth_and_comes_back_with_time() {
        let epoch = Instant::now();
        let rates = Rates::new(0, epoch);
        let at = |ms| epoch + Duration::from_millis(ms);
        let many = |now| {
            (0..100)
                .filter(|_| rates.pay(hash(1), 7, now) == Paid::Yes)
                .count()
        };
        assert_eq!(many(at(0)), 7);
        assert_eq!(many(at(142)), 0);
        assert_eq!(many(at(143)), 1);
        assert_eq!(many(at(143 + 500)), 3);
        assert_eq!(many(at(60_000)), 7, "no more than a burst is saved up");
        // The time wraps around after 19 hours.
        assert_eq!(many(at(68_719_000)), 7);
        assert_eq!(many(at(68_719_900)), 6);
    }

    #[test]
    fn a_full_line_tracks_no_ninth_key_until_debts_are_paid() {
        let epoch = Instant::now();
        let rates = Rates::new(0, epoch);
        for n in 1..=8 {
            assert_eq!(rates.pay(hash(n), 1, epoch), Paid::Yes);
            assert_eq!(rates.pay(hash(n), 1, epoch), Paid::Over);
        }
        assert_eq!(rates.pay(hash(9), 1, epoch), Paid::LineFull);
        let later = epoch + Duration::from_secs(1);
        assert_eq!(rates.pay(hash(9), 1, later), Paid::Yes);
    }

    #[test]
    fn several_threads_get_the_rate_of_one() {
        // Miri takes some thousand times as long.
        const PER_SECOND: u32 = if cfg!(miri) { 20 } else { 1000 };
        const STEP_US: u64 = if cfg!(miri) { 5000 } else { 4 };
        const SECONDS: u64 = 2;
        let epoch = Instant::now();
        let rates = Rates::new(0, epoch);
        let clock_us = AtomicU64::new(0);
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let us = clock_us.fetch_add(STEP_US, SeqCst);
                        if us >= SECONDS * 1_000_000 {
                            return;
                        }
                        let now = epoch + Duration::from_micros(us);
                        if rates.pay(hash(5), PER_SECOND, now) == Paid::Yes {
                            admitted.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        // The burst and what time pays off, exact to one.
        let wanted = (SECONDS + 1) as usize * PER_SECOND as usize;
        let admitted = admitted.into_inner();
        assert!(
            admitted.abs_diff(wanted) <= 1,
            "{admitted} instead of {wanted}"
        );
    }

    proptest! {
        #[test]
        fn the_rate_is_exact_to_one_a_second(
            per_second in 1u32..4000, seconds in 1u32..6, key in 1u64..1 << 20
        ) {
            let rates = Rates::new(0, Instant::now());
            let gap = Duration::from_secs(1) / (per_second * 3);
            let span = Duration::from_secs(seconds.into());
            let count = admitted(&rates, hash(key), per_second, gap, span);
            let wanted = (seconds + 1) * per_second;
            prop_assert!(count.abs_diff(wanted) <= seconds + 1, "{} instead of {}", count, wanted);
        }

        /// A client that keeps to the rate is never refused.
        #[test]
        fn the_rate_itself_is_allowed(per_second in 1u32..4000, key in 1u64..1 << 20) {
            let rates = Rates::new(0, Instant::now());
            let gap = Duration::from_secs(1) / per_second + Duration::from_nanos(17);
            let count = admitted(&rates, hash(key), per_second, gap, gap * 500);
            prop_assert_eq!(count, 500);
        }
    }
}
