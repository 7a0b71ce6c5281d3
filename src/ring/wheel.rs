//! Deadlines by the thousand for the price of one kernel timer: a hierarchical timing wheel
//! (Varghese and Lauck, 1987). Pure: time comes in as ticks, expired keys go out.
//!
//! Four levels of 64 slots, each level 64 times coarser than the one below. Entries of one slot
//! form a doubly linked list inside the slab, so setting, moving and removing a deadline cost
//! the same few writes however many there are.

use slab::Slab;

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// The farthest deadline in ticks; with ticks of 10 ms a little over 46 hours. Later ones are
/// brought forward to it, and whoever waits for one sets it anew.
const TICKS_MAX: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - SLOTS as u64;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    at_tick: u64,
    previous: u32,
    next: u32,
    /// Where it is linked; `None` while it is set to nothing.
    place: Option<(u8, u8)>,
}

/// All deadlines of one worker.
#[derive(Debug)]
pub(super) struct Wheel {
    entries: Slab<Entry>,
    heads: [[u32; SLOTS]; LEVELS],
    /// One bit per slot that has entries.
    occupied: [u64; LEVELS],
    now_tick: u64,
}

impl Wheel {
    pub(super) fn with_capacity(deadlines: usize) -> Wheel {
        Wheel {
            entries: Slab::with_capacity(deadlines),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            now_tick: 0,
        }
    }

    /// How many deadlines exist, set or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A new deadline, not set to anything yet.
    pub(super) fn insert(&mut self) -> u32 {
        let key = self.entries.insert(Entry {
            at_tick: 0,
            previous: NONE,
            next: NONE,
            place: None,
        });
        u32::try_from(key).expect("fewer than 2^32 deadlines: each belongs to an open descriptor")
    }

    /// Sets or moves a deadline. One that is already past expires at the next [`Wheel::advance`].
    pub(super) fn set(&mut self, key: u32, at_tick: u64) {
        self.unlink(key);
        let at_tick = at_tick.clamp(self.now_tick + 1, self.now_tick + TICKS_MAX);
        self.entries[key as usize].at_tick = at_tick;
        self.link(key);
    }

    /// When it expires; `None` while it is set to nothing.
    pub(super) fn tick_of(&self, key: u32) -> Option<u64> {
        let entry = &self.entries[key as usize];
        entry.place.map(|_| entry.at_tick)
    }

    /// Takes a deadline out.
    pub(super) fn remove(&mut self, key: u32) {
        self.unlink(key);
        self.entries.remove(key as usize);
    }

    /// The tick at which [`Wheel::advance`] has something to do next: a deadline, or coarse
    /// entries to be sorted into finer slots. Never later than the earliest deadline.
    pub(super) fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter(|level| self.occupied[*level] != 0)
            .map(|level| {
                let shift = SLOT_BITS * level as u32;
                let position = self.now_tick >> shift;
                let slot = (position % SLOTS as u64) as u32;
                // Slot distance from the one after the current position, wrapping around.
                let ahead = self.occupied[level].rotate_right((slot + 1) % SLOTS as u32);
                (position + 1 + u64::from(ahead.trailing_zeros())) << shift
            })
            .min()
    }

    /// Moves time to `now_tick` and calls `expired` with each deadline that has passed. An
    /// expired deadline stays known, unset.
    pub(super) fn advance(&mut self, now_tick: u64, mut expired: impl FnMut(u32)) {
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= now_tick) {
            self.now_tick = tick;
            // From the coarsest level that begins a slot at this tick down to the finest.
            for level in (0..LEVELS).rev() {
                let shift = SLOT_BITS * level as u32;
                if tick.trailing_zeros() >= shift {
                    let slot = (tick >> shift) as usize % SLOTS;
                    self.empty_slot(level, slot, &mut expired);
                }
            }
        }
        self.now_tick = self.now_tick.max(now_tick);
    }

    fn empty_slot(&mut self, level: usize, slot: usize, expired: &mut impl FnMut(u32)) {
        let mut key = std::mem::replace(&mut self.heads[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while key != NONE {
            let entry = &mut self.entries[key as usize];
            let next = entry.next;
            entry.place = None;
            if entry.at_tick <= self.now_tick {
                expired(key);
            } else {
                self.link(key);
            }
            key = next;
        }
    }

    /// Links at the finest level whose slots still tell the deadline from the current tick.
    fn link(&mut self, key: u32) {
        let at_tick = self.entries[key as usize].at_tick;
        let distance_bits = u64::BITS - (at_tick ^ self.now_tick).leading_zeros();
        let level = (distance_bits.saturating_sub(1) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = (at_tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][slot], key);
        if head != NONE {
            self.entries[head as usize].previous = key;
        }
        self.occupied[level] |= 1 << slot;
        let entry = &mut self.entries[key as usize];
        entry.previous = NONE;
        entry.next = head;
        entry.place = Some((level as u8, slot as u8));
    }

    fn unlink(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let Some((level, slot)) = entry.place.take() else {
            return;
        };
        let (level, slot) = (usize::from(level), usize::from(slot));
        let (previous, next) = (entry.previous, entry.next);
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn advance(wheel: &mut Wheel, to: u64) -> Vec<u32> {
        let mut keys = Vec::new();
        wheel.advance(to, |key| keys.push(key));
        keys
    }

    #[test]
    fn a_deadline_expires_at_its_tick_and_not_before() {
        for at in [
            1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 300_000, 20_000_000,
        ] {
            for start in [0, 1, 63, 64, 100, 4000, 262_143] {
                let mut wheel = Wheel::with_capacity(8);
                advance(&mut wheel, start);
                let key = wheel.insert();
                wheel.set(key, start + at);
                let expected = start + at.min(TICKS_MAX);
                assert_eq!(advance(&mut wheel, expected - 1), [0u32; 0], "{start}+{at}");
                assert_eq!(advance(&mut wheel, expected), [key], "{start}+{at}");
                assert_eq!(wheel.next_tick(), None);
            }
        }
    }

    #[test]
    fn a_past_deadline_expires_at_the_next_tick() {
        let mut wheel = Wheel::with_capacity(8);
        advance(&mut wheel, 1000);
        let key = wheel.insert();
        wheel.set(key, 5);
        assert_eq!(advance(&mut wheel, 1001), [key]);
    }

    proptest! {
        #[test]
        fn expires_what_a_sorted_list_would(
            steps in prop::collection::vec((0u8..4, 0u32..12, 1u64..200_000), 1..200)
        ) {
            let mut wheel = Wheel::with_capacity(8);
            let mut model: HashMap<u32, Option<u64>> = HashMap::new();
            let mut now = 0;
            for (action, which, ticks) in steps {
                let key = model.keys().copied().nth(which as usize % model.len().max(1));
                match (action, key) {
                    (0, _) => {
                        model.insert(wheel.insert(), None);
                    }
                    (1, Some(key)) => {
                        wheel.set(key, now + ticks);
                        model.insert(key, Some(now + ticks));
                    }
                    (2, Some(key)) => {
                        wheel.remove(key);
                        model.remove(&key);
                    }
                    (3, _) => {
                        let earliest = model.values().flatten().min().copied();
                        prop_assert!(wheel.next_tick() <= earliest || earliest.is_none());
                        prop_assert_eq!(wheel.next_tick().is_some(), earliest.is_some());
                        now += ticks;
                        let mut expired = advance(&mut wheel, now);
                        expired.sort_unstable();
                        let mut expected: Vec<u32> = model
                            .iter_mut()
                            .filter(|(_, at)| at.is_some_and(|at| at <= now))
                            .map(|(key, at)| { *at = None; *key })
                            .collect();
                        expected.sort_unstable();
                        prop_assert_eq!(expired, expected);
                    }
                    _ => {}
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
