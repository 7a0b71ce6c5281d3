//! The budget of descriptors for clients, their backends and idle connections, of all workers together.
//! A client takes two, one of them for its backend: a client that could not be led to a backend is better
//! left in the backlog. Idle connections may have half of what clients leave, and give way to clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::primitives::AtomicUsize;
use crate::protect::{ClientLimits, HostLimits, LimitSettings};

/// Client and backend.
const PER_CONNECTION: usize = 2;
/// Idle connections may have one in so many of the descriptors that clients leave. The rest is for new
/// clients of other workers, until the next sweep of the worker that has the idle ones.
const IDLE_SHARE: usize = 2;

/// The budget of the process, shared by all workers.
#[derive(Debug)]
pub(crate) struct ConnectionBudget {
    connections: AtomicUsize,
    descriptors_max: usize,
    /// By worker.
    idle: Box<[IdleCount]>,
    /// The most idle connections of all workers together.
    idle_max: usize,
    /// `None` without a limit.
    pub client_limits: Option<ClientLimits>,
    pub host_limits: HostLimits,
}

/// The number of idle connections of one worker. Only that worker writes it; others read it. It has a
/// cache line to itself, so that writing it slows nobody else.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdleCount(Arc<OwnCacheLine>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct OwnCacheLine(AtomicUsize);

impl IdleCount {
    pub(crate) fn get(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, count: usize) {
        self.0.0.store(count, Ordering::Relaxed);
    }
}

impl ConnectionBudget {
    /// `idle_per_core_max`: the most idle connections of one worker.
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

    /// Where worker number `core` counts its idle connections.
    pub(crate) fn idle_count(&self, core: usize) -> IdleCount {
        self.idle[core].clone()
    }

    pub(crate) fn begin(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether nothing is left for another client.
    pub(crate) fn is_full(&self) -> bool {
        !self.fits(PER_CONNECTION, 1)
    }

    /// Whether a backlog full of `backlog` connections would be too many, or more than half of the budget
    /// is taken. Then connections are accepted one by one.
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
