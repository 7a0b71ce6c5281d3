//! Removes hosts that Redis no longer has, unless that is a mass removal: then they stay for a while.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::routing_state::RoutingState;
use super::super::snapshot::Snapshot;
use super::removal_guard::RemovalGuard;
use crate::route::{Key, Layer, Seen};

/// Removes hosts from the routing state.
pub(super) struct Removals {
    state: Rc<RefCell<RoutingState>>,
    guard: RemovalGuard,
}

impl Removals {
    /// `hold`: how long a mass removal is held back.
    pub(super) fn new(state: Rc<RefCell<RoutingState>>, hold: Duration) -> Removals {
        Removals {
            state,
            guard: RemovalGuard::new(hold),
        }
    }

    /// When the comparison is due that decides about a mass removal; `None` while none is held back.
    pub(super) fn decision_due(&self) -> Option<Instant> {
        self.guard.until()
    }

    /// Redis has this host.
    pub(super) fn note_existing(&mut self, key: &Key) {
        self.guard.forget(key);
    }

    /// Removes one host that Redis no longer has.
    pub(super) fn remove(&mut self, key: &Key, now: Instant) {
        let mut state = self.state.borrow_mut();
        let route = state.master.get(key, Layer::Redis).cloned();
        let Some(route) = route.filter(|_| !self.guard.is_holding()) else {
            return;
        };
        let hosts = state.master.redis_names();
        let is_host = !matches!(key, Key::Default(_));
        if is_host && self.guard.is_mass_removal(1, hosts, now) {
            drop(state);
            return self.begin_hold(1, hosts, now);
        }
        state.remove_redis(key);
        self.guard.add_removed(key.clone(), route, now);
    }

    /// Removes the hosts that a comparison did not find. `hosts_before` is their number when it started.
    pub(super) fn remove_unseen(&mut self, hosts_before: usize, seen: &Seen) {
        let now = Instant::now();
        let removed = self.state.borrow().master.unseen_count(seen);
        let is_over = self.guard.is_over(now);
        let is_mass_removal = self.guard.is_mass_removal(removed, hosts_before, now);
        if is_mass_removal && !is_over {
            if !self.guard.is_holding() {
                self.begin_hold(removed, hosts_before, now);
            }
            return;
        }
        let mut state = self.state.borrow_mut();
        let unseen = state.remove_unseen(seen);
        if self.guard.is_holding() {
            tracing::warn!(
                removed,
                "the hold of a mass removal is over, the hosts that Redis does not have are removed"
            );
            self.guard.end();
            state.status.update(|status| status.holding = false);
        } else {
            for (key, route) in unseen {
                self.guard.add_removed(key, route, now);
            }
        }
    }

    /// Compares the snapshot of the run before with the hosts that Redis has at start. When most hosts are
    /// gone, their routes are taken from the snapshot, and their removal is held back as if it had happened
    /// now.
    pub(super) fn compare_snapshot(&mut self, snapshot: &Snapshot, found: &Seen) {
        let hosts = snapshot.hosts().len();
        let missing = snapshot.hosts().missing_in(found);
        if self.guard.is_mass_removal(missing, hosts, Instant::now()) {
            tracing::warn!(
                hosts,
                missing,
                snapshot_age_s = snapshot.age().as_secs(),
                "most hosts of the snapshot are not in Redis; their routes are taken from the snapshot"
            );
            self.state.borrow_mut().set_snapshot(snapshot);
        }
    }

    /// From now on no host is removed, and those that were removed lately are restored.
    fn begin_hold(&mut self, removed: usize, hosts: usize, now: Instant) {
        let restored = self.guard.begin(now);
        tracing::warn!(
            removed = removed + restored.len(),
            hosts_before = hosts + restored.len(),
            hold_s = self.guard.hold().as_secs_f64(),
            "most hosts are gone from Redis at once; their routes stay in use, and are removed if Redis \
            does not have them after the hold"
        );
        let mut state = self.state.borrow_mut();
        state.restore(restored);
        state.status.update(|status| status.holding = true);
    }
}
