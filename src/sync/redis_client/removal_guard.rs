//! Detects a mass removal: more than half of the hosts gone within a short time. That is more often an
//! accident (FLUSHALL, a restart without data, a script that deletes) than a wish. It makes no difference
//! how the hosts go: missing in a comparison, missing beside the snapshot, or deleted one by one. Pure:
//! time comes in as an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::due::{DueKey, DueQueue};
use crate::route::{Key, Route};

/// With fewer hosts than this no removal is a mass removal.
const HOSTS_MIN: usize = 10;

/// The hosts that were removed lately, and whether removals are held back now.
pub(super) struct RemovalGuard {
    /// How long a mass removal is held back. Also the time within which single removals add up. Zero: no
    /// removal is held back.
    hold: Duration,
    since: Option<Instant>,
    /// Hosts that were removed within the last `hold` and have not come back, with their routes.
    removed: HashMap<Key, (DueKey, Arc<Route>)>,
    expiry: DueQueue<Key>,
}

impl RemovalGuard {
    pub(super) fn new(hold: Duration) -> RemovalGuard {
        RemovalGuard {
            hold,
            since: None,
            removed: HashMap::new(),
            expiry: DueQueue::default(),
        }
    }

    pub(super) fn hold(&self) -> Duration {
        self.hold
    }

    /// Whether removing `going` of `present` hosts, together with those removed lately, removes more than
    /// half.
    pub(super) fn is_mass_removal(&mut self, going: usize, present: usize, now: Instant) -> bool {
        while let Some(key) = self.expiry.pop_due(now) {
            self.removed.remove(&key);
        }
        let before = present + self.removed.len();
        let is_most = (going + self.removed.len()) * 2 > before;
        before >= HOSTS_MIN && is_most && !self.hold.is_zero()
    }

    /// A host was removed. The defaults do not count as hosts.
    pub(super) fn add_removed(&mut self, key: Key, route: Arc<Route>, now: Instant) {
        if self.hold.is_zero() || matches!(key, Key::Default(_)) {
            return;
        }
        self.forget(&key);
        let ticket = self.expiry.insert(now + self.hold, key.clone());
        self.removed.insert(key, (ticket, route));
    }

    /// A host exists (again), so that it was not removed.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some((ticket, _)) = self.removed.remove(key) {
            self.expiry.remove(ticket);
        }
    }

    /// Starts to hold removals back. Gives back the hosts that were removed lately, which belong to the
    /// same mass removal.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<(Key, Arc<Route>)> {
        self.since = Some(now);
        self.expiry = DueQueue::default();
        let removed = self.removed.drain();
        removed.map(|(key, (_, route))| (key, route)).collect()
    }

    pub(super) fn is_holding(&self) -> bool {
        self.since.is_some()
    }

    /// When the hold ends, and a comparison decides.
    pub(super) fn until(&self) -> Option<Instant> {
        self.since.map(|since| since + self.hold)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now >= until)
    }

    /// Ends the hold: the hosts are back, or their removal is carried out. What was removed until now no
    /// longer counts.
    pub(super) fn end(&mut self) {
        self.since = None;
        self.removed.clear();
        self.expiry = DueQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Member, Registry};

    const HOLD: Duration = Duration::from_secs(10);

    struct Rig {
        guard: RemovalGuard,
        present: usize,
        start: Instant,
        route: Arc<Route>,
    }

    impl Rig {
        fn new(present: usize, hold: Duration) -> Rig {
            let mut registry = Registry::default();
            let backend = registry
                .endpoint(Member::parse("10.0.0.1").unwrap())
                .backend;
            Rig {
                guard: RemovalGuard::new(hold),
                present,
                start: Instant::now(),
                route: registry.route([backend]),
            }
        }

        /// Deletes one host; false when that makes a mass removal.
        fn delete(&mut self, name: usize, second: u64) -> bool {
            let now = self.start + Duration::from_secs(second);
            if self.guard.is_mass_removal(1, self.present, now) {
                return false;
            }
            self.present -= 1;
            let key = Key::parse(&format!("h{name}.test")).unwrap();
            self.guard.add_removed(key, Arc::clone(&self.route), now);
            true
        }
    }

    #[test]
    fn removing_one_by_one_counts_like_removing_all_at_once() {
        let mut rig = Rig::new(20, HOLD);
        assert!((0..10).all(|name| rig.delete(name, 1)));
        assert!(!rig.delete(10, 2), "more than half");
        let now = rig.start + Duration::from_secs(2);
        assert_eq!(rig.guard.begin(now).len(), 10);
        assert!(rig.guard.is_holding() && !rig.guard.is_over(now));
        assert!(rig.guard.is_over(now + HOLD));
        rig.guard.end();
        assert!(!rig.guard.is_holding());
        assert!(Rig::new(20, HOLD).guard.is_mass_removal(11, 20, now));
    }

    #[test]
    fn slow_few_or_repeated_removals_are_no_mass_removal() {
        let mut slowly = Rig::new(20, HOLD);
        assert!((0..10).all(|name| slowly.delete(name, 3 * name as u64)));
        let mut few = Rig::new(9, HOLD);
        assert!((0..9).all(|name| few.delete(name, 0)));
        let mut back = Rig::new(20, HOLD);
        for name in 0..200 {
            assert!(back.delete(name, 0), "{name}");
            back.present += 1;
            back.guard
                .forget(&Key::parse(&format!("h{name}.test")).unwrap());
        }
        assert_eq!(
            (back.guard.removed.len(), back.guard.expiry.next_due()),
            (0, None)
        );
        let mut without_hold = Rig::new(20, Duration::ZERO);
        assert!((0..20).all(|name| without_hold.delete(name, 0)));
        assert!(without_hold.guard.removed.is_empty());
    }
}
