//! How many connections each key has at this moment.

use std::sync::atomic::Ordering::SeqCst;

use super::line::{Line, WINDOW, line_of, lines};
use crate::primitives::AtomicU64;

/// The low bits of a slot are the count. The others are the fingerprint of its key. A slot with a count
/// of zero is free.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// A greater limit is never reached: no process has as many descriptors. The bit above it is room for
/// cores that exceed a limit for a moment, before they take their count back.
const LIMIT_MAX: u32 = 1 << (COUNT_BITS - 1);

/// A table of counts by key.
#[derive(Debug)]
pub(super) struct Counts {
    lines: Box<[Line]>,
}

/// The result of [`Counts::enter`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Counted in this slot, until [`Counts::leave`].
    Yes(u32),
    /// The key has as many as it may.
    Over,
    /// Other keys have all slots of the line, so nothing was counted.
    LineFull,
}

impl Counts {
    pub(super) fn new(connections_max: usize) -> Counts {
        Counts {
            lines: lines(connections_max),
        }
    }

    /// Counts one more for the key of this hash, if it has fewer than `max`.
    ///
    /// A key may get two slots, when another key's slot becomes free while two cores look for one. So
    /// the slots of a key are added up, and after counting they are added up again: of cores that count
    /// at once, the last one sees all others. Then several may be refused where one could have been
    /// admitted, but never more than `max` are admitted.
    pub(super) fn enter(&self, hash: u64, max: u32) -> Counted {
        let max = u64::from(max.min(LIMIT_MAX));
        let index = line_of(&self.lines, hash);
        let line = &self.lines[index];
        let own = hash & !COUNT_MASK;
        loop {
            let look = Look::at(line, own);
            if look.count >= max {
                return Counted::Over;
            }
            let Some((at, seen)) = look.slot else {
                return Counted::LineFull;
            };
            let next = own | ((seen & COUNT_MASK) + 1);
            let slot = &line.0[at];
            if slot.compare_exchange(seen, next, SeqCst, SeqCst).is_err() {
                continue;
            }
            if Look::at(line, own).count > max {
                slot.fetch_sub(1, SeqCst);
                return Counted::Over;
            }
            let number = index * WINDOW + at;
            return Counted::Yes(u32::try_from(number).expect("a table has fewer than 2^32 slots"));
        }
    }

    /// Counts one less. Until then the slot belongs to the key, because its count is not zero.
    pub(super) fn leave(&self, slot: u32) {
        let before = self.slot(slot).fetch_sub(1, SeqCst);
        debug_assert_ne!(before & COUNT_MASK, 0, "what leaves has entered");
    }

    fn slot(&self, slot: u32) -> &AtomicU64 {
        let slot = slot as usize;
        &self.lines[slot / WINDOW].0[slot % WINDOW]
    }

    /// The count of the key of this hash.
    #[cfg(test)]
    pub(super) fn count(&self, hash: u64) -> u64 {
        let line = &self.lines[line_of(&self.lines, hash)];
        Look::at(line, hash & !COUNT_MASK).count
    }

    #[cfg(test)]
    fn total(&self) -> u64 {
        let slots = self.lines.iter().flat_map(|line| &line.0);
        slots.map(|slot| slot.load(SeqCst) & COUNT_MASK).sum()
    }
}

/// What a key has in its line at one moment.
struct Look {
    /// Of all slots of the key.
    count: u64,
    /// The slot to count one more in, and its value.
    slot: Option<(usize, u64)>,
}

impl Look {
    fn at(line: &Line, own: u64) -> Look {
        let mut count = 0;
        let mut mine = None;
        let mut free = None;
        for (at, slot) in line.0.iter().enumerate() {
            let seen = slot.load(SeqCst);
            let of_slot = seen & COUNT_MASK;
            if of_slot == 0 {
                free = free.or(Some((at, seen)));
            } else if seen & !COUNT_MASK == own {
                count += of_slot;
                mine = mine.or(Some((at, seen)));
            }
        }
        Look {
            count,
            slot: mine.or(free),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    /// A hash of line 0.
    fn hash(n: u64) -> u64 {
        n << 32
    }

    #[test]
    fn a_full_line_tracks_no_ninth_key_until_a_slot_is_free() {
        let counts = Counts::new(0);
        assert_eq!(size_of_val(&*counts.lines), 32 * 1024);
        let mut slots = Vec::new();
        for n in 1..=8 {
            let Counted::Yes(slot) = counts.enter(hash(n), 1) else {
                panic!("no slot for {n}");
            };
            slots.push(slot);
            assert_eq!(counts.enter(hash(n), 1), Counted::Over);
        }
        assert_eq!(counts.enter(hash(9), 1), Counted::LineFull);
        counts.leave(slots[3]);
        assert_eq!(counts.enter(hash(9), 1), Counted::Yes(slots[3]));
        assert_eq!(counts.enter(hash(4), 1), Counted::LineFull);
    }

    #[test]
    fn several_threads_never_admit_more_and_the_counts_return_to_zero() {
        const THREADS: u64 = 4;
        const KEYS: usize = 10;
        const MAX: u32 = 3;
        // Miri takes some thousand times as long.
        const ROUNDS: u32 = if cfg!(miri) { 60 } else { 50_000 };
        let counts = Counts::new(0);
        // Ten keys in eight slots, so that slots change keys all the time.
        let inside: [AtomicU32; KEYS] = Default::default();
        let admitted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (counts, inside, admitted) = (&counts, &inside, &admitted);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..ROUNDS {
                        let key = random.usize(..KEYS);
                        match counts.enter(hash(key as u64 + 1), MAX) {
                            Counted::Yes(slot) => {
                                let before = inside[key].fetch_add(1, SeqCst);
                                assert!(before < MAX, "{before} were in before");
                                admitted.fetch_add(1, SeqCst);
                                held.push((key, slot));
                            }
                            Counted::Over | Counted::LineFull => {}
                        }
                        while held.len() > 4 || (!held.is_empty() && random.bool()) {
                            let (key, slot) = held.swap_remove(random.usize(..held.len()));
                            inside[key].fetch_sub(1, SeqCst);
                            counts.leave(slot);
                        }
                    }
                    for (key, slot) in held {
                        inside[key].fetch_sub(1, SeqCst);
                        counts.leave(slot);
                    }
                });
            }
        });
        assert_eq!(counts.total(), 0);
        assert!(admitted.into_inner() > ROUNDS / 5);
    }

    proptest! {
        /// A single thread is refused exactly at the limit.
        #[test]
        fn counts_are_exact(steps in prop::collection::vec((0u64..12, 1u32..5, any::<bool>()), 0..200)) {
            let counts = Counts::new(0);
            let mut held: HashMap<u64, Vec<u32>> = HashMap::new();
            for (key, max, enters) in steps {
                // Spread over lines, so that there is always a free slot.
                let hash = hash(key + 1) | key;
                let mine = held.entry(key).or_default();
                if enters {
                    let entered = counts.enter(hash, max);
                    match entered {
                        Counted::Yes(slot) => {
                            prop_assert!(mine.len() < max as usize);
                            mine.push(slot);
                        }
                        other => {
                            prop_assert_eq!(other, Counted::Over);
                            prop_assert!(mine.len() >= max as usize);
                        }
                    }
                } else if let Some(slot) = mine.pop() {
                    counts.leave(slot);
                }
                prop_assert_eq!(counts.count(hash), mine.len() as u64);
            }
        }
    }
}
