//! Which backend of a route a connection gets. The state is one core's own: no core knows the
//! counts of another, and with connections spread over the cores it need not.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::Backend;
use super::table::Route;

/// Round-robin positions kept per core. Beyond that many routes all are forgotten and start anew at
/// random places, which costs evenness for a moment and bounds the memory at about 1 MB.
const POSITIONS_MAX: usize = 65_536;

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Two at random, then the one with fewer live connections on this core ("p2c").
    #[default]
    LeastOfTwo,
    RoundRobin,
    Random,
}

/// One core's choosing state.
#[derive(Debug)]
pub struct Chooser {
    balance: Balance,
    rng: fastrand::Rng,
    /// Live connections by slot.
    live: Vec<u32>,
    positions: HashMap<u64, u32>,
}

impl Chooser {
    /// `seed` differs per core, so that cores do not choose in step.
    pub fn new(balance: Balance, seed: u64) -> Chooser {
        Chooser {
            balance,
            rng: fastrand::Rng::with_seed(seed),
            live: Vec::new(),
            positions: HashMap::new(),
        }
    }

    /// Picks among the backends that have an address and whose slots are not in `tried`; `None`
    /// when there is none left.
    pub fn choose(&mut self, route: &Route, tried: &[u32]) -> Option<Arc<Backend>> {
        let backends = route.backends();
        let usable = |index: &usize| {
            let backend = &backends[*index];
            !tried.contains(&backend.slot()) && backend.address_count() > 0
        };
        let chosen = match self.balance {
            Balance::Random => self.random(backends.len(), usable)?,
            Balance::RoundRobin => {
                let start = self.position(route);
                let mut turn = (start..backends.len()).chain(0..start);
                let chosen = turn.find(usable)?;
                self.positions.insert(route.id(), chosen as u32 + 1);
                chosen
            }
            Balance::LeastOfTwo => {
                let one = self.random(backends.len(), usable)?;
                let other = self.random(backends.len(), |index| *index != one && usable(index));
                let live = |index: usize| self.live(backends[index].slot());
                match other {
                    Some(other) if live(other) < live(one) => other,
                    _ => one,
                }
            }
        };
        Some(Arc::clone(&backends[chosen]))
    }

    /// A connection to this slot's backend is under way or open. The caller holds the backend's
    /// `Arc` until it has said [`Chooser::closed`], so that the slot keeps its meaning.
    pub fn opened(&mut self, slot: u32) {
        let slot = slot as usize;
        if slot >= self.live.len() {
            self.live.resize(slot + 1, 0);
        }
        self.live[slot] += 1;
    }

    /// Takes back one [`Chooser::opened`].
    pub fn closed(&mut self, slot: u32) {
        let live = &mut self.live[slot as usize];
        *live = live.checked_sub(1).expect("closed once per opened");
    }

    pub fn live(&self, slot: u32) -> u32 {
        self.live.get(slot as usize).copied().unwrap_or(0)
    }

    /// Any usable index below `count`, all equally likely. The first draw nearly always answers;
    /// when it does not, the usable ones are counted.
    fn random(&mut self, count: usize, usable: impl Fn(&usize) -> bool) -> Option<usize> {
        if count == 0 {
            return None;
        }
        let drawn = self.rng.usize(..count);
        if usable(&drawn) {
            return Some(drawn);
        }
        let left = (0..count).filter(&usable).count();
        if left == 0 {
            return None;
        }
        (0..count).filter(&usable).nth(self.rng.usize(..left))
    }

    fn position(&mut self, route: &Route) -> usize {
        let count = route.backends().len();
        if let Some(position) = self.positions.get(&route.id()) {
            return *position as usize % count.max(1);
        }
        if self.positions.len() >= POSITIONS_MAX {
            self.positions.clear();
        }
        self.rng.usize(..count.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Registry;

    fn route(count: usize) -> Arc<Route> {
        let mut registry = Registry::new();
        let member = |n: usize| registry.intern(&format!("10.0.0.{n}")).unwrap();
        let backends = (0..count).map(member).collect();
        registry.route(backends)
    }

    fn counts(chooser: &mut Chooser, route: &Route, tried: &[u32], draws: usize) -> Vec<usize> {
        let mut counts = vec![0; route.backends().len()];
        for _ in 0..draws {
            counts[chooser.choose(route, tried).unwrap().slot() as usize] += 1;
        }
        counts
    }

    const ALL: [Balance; 3] = [Balance::LeastOfTwo, Balance::RoundRobin, Balance::Random];

    #[test]
    fn every_way_is_fair_among_equals() {
        for balance in ALL {
            for seed in 0..10 {
                let counts = counts(&mut Chooser::new(balance, seed), &route(5), &[], 10_000);
                let spread = counts.iter().all(|count| (1_800..=2_200).contains(count));
                assert!(spread, "{balance:?} {counts:?}");
            }
        }
    }

    #[test]
    fn what_was_tried_is_not_chosen_and_the_rest_stays_fair() {
        for balance in [Balance::LeastOfTwo, Balance::Random] {
            let counts = counts(&mut Chooser::new(balance, 7), &route(5), &[1, 3], 9_000);
            assert_eq!((counts[1], counts[3]), (0, 0));
            for index in [0, 2, 4] {
                assert!(
                    (2_700..=3_300).contains(&counts[index]),
                    "{balance:?} {counts:?}"
                );
            }
        }
        for balance in ALL {
            let mut chooser = Chooser::new(balance, 7);
            let route = route(3);
            let mut tried = Vec::new();
            while let Some(backend) = chooser.choose(&route, &tried) {
                tried.push(backend.slot());
            }
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2], "{balance:?}");
            assert!(chooser.choose(&self::route(0), &[]).is_none());
        }
    }

    #[test]
    fn round_robin_takes_turns_and_forgets_within_bounds() {
        let mut chooser = Chooser::new(Balance::RoundRobin, 1);
        let route = route(4);
        let mut slots: Vec<u32> = (0..8)
            .map(|_| chooser.choose(&route, &[]).unwrap().slot())
            .collect();
        assert_eq!(slots[..4], slots[4..]);
        slots[..4].sort_unstable();
        assert_eq!(slots[..4], [0, 1, 2, 3]);
        for id in 0..2 * POSITIONS_MAX as u64 {
            chooser.choose(&Route::new(id, route.backends().to_vec()), &[]);
            assert!(chooser.positions.len() <= POSITIONS_MAX);
        }
    }

    #[test]
    fn least_of_two_prefers_the_less_busy_and_never_takes_the_busiest() {
        let mut chooser = Chooser::new(Balance::LeastOfTwo, 3);
        let route = route(4);
        for slot in 0..4 {
            for _ in 0..slot {
                chooser.opened(slot);
            }
        }
        let counts = counts(&mut chooser, &route, &[], 12_000);
        // Of two different draws: P(min = 0) = 1/2, 1/3, 1/6, 0.
        for (count, expected) in counts.iter().zip([6_000, 4_000, 2_000, 0]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
        chooser.closed(3);
        assert_eq!((chooser.live(3), chooser.live(99)), (2, 0));
    }

    #[test]
    fn a_name_without_addresses_is_passed_over() {
        let mut registry = Registry::new();
        let name = registry.intern("app.test").unwrap();
        let ip = registry.intern("10.0.0.1").unwrap();
        let route = registry.route(vec![Arc::clone(&name), ip]);
        for balance in ALL {
            let mut chooser = Chooser::new(balance, 1);
            for _ in 0..20 {
                assert_eq!(chooser.choose(&route, &[]).unwrap().text(), "10.0.0.1");
            }
        }
        name.resolve_to(Arc::new(vec!["10.0.0.2".parse().unwrap()]));
        let chosen = counts(&mut Chooser::new(Balance::Random, 1), &route, &[], 100);
        assert!(chosen[name.slot() as usize] > 20);
    }
}
