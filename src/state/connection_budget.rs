//! The one budget of descriptors: what clients, their backends and the connections that wait for a
//! request may have open together, on all cores. Each client has two set aside, one for its backend:
//! it is better left in the backlog than accepted without. What clients leave may be half full of idle
//! connections, and those give way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::primitives::AtomicUsize;
use crate::protect::{ClientLimits, HostLimits, LimitSettings};

/// Client and backend.
const PER_CONNECTION: usize = 2;
/// Of what clients leave the idle ones may have one in so many: other cores' clients must find
/// something free until the next sweep of a core that has nothing to do.
const IDLE_SHARE: usize = 2;

/// How many connections the process may hold, shared by all cores.
#[derive(Debug)]
pub(crate) struct ConnectionBudget {
    connections: AtomicUsize,
    descriptors_max: usize,
    /// By core.
    idle: Box<[IdleCount]>,
    /// Of all cores together.
    idle_max: usize,
    /// `None` without a limit.
    pub client_limits: Option<ClientLimits>,
    pub host_limits: HostLimits,
}

/// The idle connections of one core, which alone changes it; others read. A line of the cache for
/// itself, so that nobody waits for anybody to write it.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdleCount(Arc<Alone>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Alone(AtomicUsize);

impl IdleCount {
    pub(crate) fn get(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, count: usize) {
        self.0.0.store(count, Ordering::Relaxed);
    }
}

impl ConnectionBudget {
    /// `idle_per_core_max`: idle connections that a core ever has.
    pub(crate) fn new(
        descriptors_max: usize,
        cores: usize,
        idle_per_core_max: usize,
        limits: &LimitSettings,
    ) -> ConnectionBudget {
        let connections_max = (descriptors_max / PER_CONNECTION).max(1);
        ConnectionBudget {
            connections: AtomicUsize::new(0),
            descriptors_max: connections_max * PER_CONNECTION,
            idle: (0..cores).map(|_| IdleCount::default()).collect(),
            idle_max: cores.saturating_mul(idle_per_core_max),
            client_limits: ClientLimits::new(limits, connections_max, Instant::now()),
            host_limits: HostLimits::new(connections_max),
        }
    }

    /// Where core number `core` counts its idle connections.
    pub(crate) fn idle_count(&self, core: usize) -> IdleCount {
        self.idle[core].clone()
    }

    pub(crate) fn begin(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is nothing left for one more client.
    pub(crate) fn is_full(&self) -> bool {
        !self.fits(PER_CONNECTION, 1)
    }

    /// Whether all connections that may wait in a backlog of `backlog` could be too many, or more
    /// than half of the room is taken.
    pub(crate) fn is_nearly_full(&self, backlog: u32) -> bool {
        let connections = (backlog as usize).max(self.connections_max() / 2) + 1;
        !self.fits(connections * PER_CONNECTION, 1)
    }

    /// Whether one more idle connection may be kept.
    pub(crate) fn has_idle_room(&self) -> bool {
        self.fits(IDLE_SHARE, IDLE_SHARE)
    }

    /// Whether more idle connections are kept than clients leave room for.
    pub(crate) fn has_too_many_idle(&self) -> bool {
        !self.fits(0, IDLE_SHARE)
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.descriptors_max / PER_CONNECTION
    }

    /// Whether clients leave `wanted` descriptors, and `each` for every idle connection there is.
    fn fits(&self, wanted: usize, each: usize) -> bool {
        let clients = self.connections.load(Ordering::Relaxed) * PER_CONNECTION;
        let left = self.descriptors_max.saturating_sub(clients);
        let Some(left) = left.checked_sub(wanted) else {
            return false;
        };
        // Where all that there could ever be fits, the other cores' counts are left in their caches.
        left >= self.idle_max.saturating_mul(each)
            || left >= self.idle.iter().map(IdleCount::get).sum::<usize>() * each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(descriptors_max: usize) -> ConnectionBudget {
        ConnectionBudget::new(descriptors_max, 2, 1024, &LimitSettings::default())
    }

    #[test]
    fn each_client_has_two_set_aside() {
        let room = room(21);
        assert_eq!(room.connections_max(), 10);
        for _ in 0..10 {
            assert!(!room.is_full());
            room.begin();
        }
        assert!(room.is_full());
        room.end();
        assert!(!room.is_full());
    }

    #[test]
    fn idle_connections_have_half_of_what_clients_leave_on_all_cores_together() {
        let room = room(20);
        let (one, other) = (room.idle_count(0), room.idle_count(1));
        one.set(4);
        for _ in 0..6 {
            assert!(room.has_idle_room());
            other.set(other.get() + 1);
        }
        assert!(!room.has_idle_room() && !room.has_too_many_idle());
        for _ in 0..5 {
            assert!(!room.is_full());
            room.begin();
            assert!(room.has_too_many_idle());
        }
        // Ten for clients, ten idle: those have to give way.
        assert!(room.is_full());
        one.set(2);
        assert!(!room.is_full());
        room.begin();
        other.set(2);
        assert!(!room.has_too_many_idle() && !room.has_idle_room());
    }

    #[test]
    fn it_is_tight_from_half_on_and_while_a_backlog_could_be_too_many() {
        let room = room(2000);
        let connect = |count: usize| (0..count).for_each(|_| room.begin());
        connect(499);
        assert!(!room.is_nearly_full(16) && !room.is_nearly_full(500) && room.is_nearly_full(501));
        room.idle_count(0).set(100);
        assert!(room.is_nearly_full(500));
        room.idle_count(0).set(0);
        connect(1);
        assert!(room.is_nearly_full(16) && room.is_nearly_full(500));
    }
}
