//! How many connections each key has at this moment.

use std::sync::atomic::Ordering::SeqCst;

use super::line::{Line, WINDOW, line_of, lines};
use crate::primitives::AtomicU64;

/// The low bits of a place are the count, the others the fingerprint of whose it is. A count of zero:
/// nobody's.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// A limit above this is none: no process has as many descriptors. The cores that look at the same
/// moment may count a little beyond a limit before they take it back.
const LIMIT_MAX: u32 = 1 << (COUNT_BITS - 1);

/// One table of counts.
#[derive(Debug)]
pub(super) struct Counts {
    lines: Box<[Line]>,
}

/// What became of one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It is counted in this place, until [`Counts::leave`].
    Yes(u32),
    Over,
    /// Others have the whole line.
    NoPlace,
}

impl Counts {
    pub(super) fn new(connections_max: usize) -> Counts {
        Counts {
            lines: lines(connections_max),
        }
    }

    /// Counts one more for the key of this hash, if there are fewer than `max`.
    ///
    /// A key may come to have two places, when one of the others gets free while two cores look for a
    /// place: all of them are added up. What is counted is looked at again afterwards, so that of
    /// those who come at once the last one sees all others; several may then be turned away where
    /// one could have stayed, but never more than `max` are in.
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
            let Some((at, seen)) = look.place else {
                return Counted::NoPlace;
            };
            let next = own | ((seen & COUNT_MASK) + 1);
            let place = &line.0[at];
            if place.compare_exchange(seen, next, SeqCst, SeqCst).is_err() {
                continue;
            }
            if Look::at(line, own).count > max {
                place.fetch_sub(1, SeqCst);
                return Counted::Over;
            }
            let number = index * WINDOW + at;
            return Counted::Yes(
                u32::try_from(number).expect("a table has fewer than 2^32 places"),
            );
        }
    }

    /// One less. A place that is counted in is nobody else's.
    pub(super) fn leave(&self, place: u32) {
        let before = self.place(place).fetch_sub(1, SeqCst);
        debug_assert_ne!(before & COUNT_MASK, 0, "who leaves has entered");
    }

    fn place(&self, place: u32) -> &AtomicU64 {
        let place = place as usize;
        &self.lines[place / WINDOW].0[place % WINDOW]
    }

    /// How many there are of this hash.
    #[cfg(test)]
    pub(super) fn count(&self, hash: u64) -> u64 {
        let line = &self.lines[line_of(&self.lines, hash)];
        Look::at(line, hash & !COUNT_MASK).count
    }

    #[cfg(test)]
    fn total(&self) -> u64 {
        let places = self.lines.iter().flat_map(|line| &line.0);
        places.map(|place| place.load(SeqCst) & COUNT_MASK).sum()
    }
}

/// What one look at a line finds.
struct Look {
    /// Of all places of the fingerprint.
    count: u64,
    /// Where one more is to be counted, and what was there.
    place: Option<(usize, u64)>,
}

impl Look {
    fn at(line: &Line, own: u64) -> Look {
        let mut count = 0;
        let mut mine = None;
        let mut free = None;
        for (at, place) in line.0.iter().enumerate() {
            let seen = place.load(SeqCst);
            let of_place = seen & COUNT_MASK;
            if of_place == 0 {
                free = free.or(Some((at, seen)));
            } else if seen & !COUNT_MASK == own {
                count += of_place;
                mine = mine.or(Some((at, seen)));
            }
        }
        Look {
            count,
            place: mine.or(free),
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
    fn a_full_line_tracks_no_ninth_and_what_left_makes_room() {
        let counts = Counts::new(0);
        assert_eq!(size_of_val(&*counts.lines), 32 * 1024);
        let mut places = Vec::new();
        for n in 1..=8 {
            let Counted::Yes(place) = counts.enter(hash(n), 1) else {
                panic!("no place for {n}");
            };
            places.push(place);
            assert_eq!(counts.enter(hash(n), 1), Counted::Over);
        }
        assert_eq!(counts.enter(hash(9), 1), Counted::NoPlace);
        counts.leave(places[3]);
        assert_eq!(counts.enter(hash(9), 1), Counted::Yes(places[3]));
        assert_eq!(counts.enter(hash(4), 1), Counted::NoPlace);
    }

    #[test]
    fn several_threads_never_admit_more_and_the_counts_return_to_zero() {
        const THREADS: u64 = 4;
        const KEYS: usize = 10;
        const MAX: u32 = 3;
        // Miri takes some thousand times as long.
        const ROUNDS: u32 = if cfg!(miri) { 60 } else { 50_000 };
        let counts = Counts::new(0);
        // Ten keys in eight places, so that places change hands all the time.
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
                            Counted::Yes(place) => {
                                let before = inside[key].fetch_add(1, SeqCst);
                                assert!(before < MAX, "{before} were in before");
                                admitted.fetch_add(1, SeqCst);
                                held.push((key, place));
                            }
                            Counted::Over | Counted::NoPlace => {}
                        }
                        while held.len() > 4 || (!held.is_empty() && random.bool()) {
                            let (key, place) = held.swap_remove(random.usize(..held.len()));
                            inside[key].fetch_sub(1, SeqCst);
                            counts.leave(place);
                        }
                    }
                    for (key, place) in held {
                        inside[key].fetch_sub(1, SeqCst);
                        counts.leave(place);
                    }
                });
            }
        });
        assert_eq!(counts.total(), 0);
        assert!(admitted.into_inner() > ROUNDS / 5);
    }

    proptest! {
        /// One thread alone is turned away exactly where it has to be.
        #[test]
        fn counts_are_exact(steps in prop::collection::vec((0u64..12, 1u32..5, any::<bool>()), 0..200)) {
            let counts = Counts::new(0);
            let mut held: HashMap<u64, Vec<u32>> = HashMap::new();
            for (key, max, enters) in steps {
                // Spread over lines, so that there is always a place.
                let hash = hash(key + 1) | key;
                let mine = held.entry(key).or_default();
                if enters {
                    let entered = counts.enter(hash, max);
                    match entered {
                        Counted::Yes(place) => {
                            prop_assert!(mine.len() < max as usize);
                            mine.push(place);
                        }
                        other => {
                            prop_assert_eq!(other, Counted::Over);
                            prop_assert!(mine.len() >= max as usize);
                        }
                    }
                } else if let Some(place) = mine.pop() {
                    counts.leave(place);
                }
                prop_assert_eq!(counts.count(hash), mine.len() as u64);
            }
        }
    }
}
