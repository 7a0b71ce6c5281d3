//! What the sync thread shows to other threads: its numbers, and that the first table is there.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::prober::Tally;
use crate::route::BackendIndex;

/// The state of the connection to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedisState {
    /// No Redis is configured.
    #[default]
    Unused,
    Connecting,
    /// Connected, the whole table is being read.
    Loading,
    /// The table is what Redis has.
    Live,
    /// Not connected. The last known table stays in use.
    Lost,
}

impl RedisState {
    /// The word used in log, metrics and admin endpoint.
    pub fn name(self) -> &'static str {
        match self {
            RedisState::Unused => "unused",
            RedisState::Connecting => "connecting",
            RedisState::Loading => "loading",
            RedisState::Live => "live",
            RedisState::Lost => "lost",
        }
    }
}

/// How changes in Redis are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeDetection {
    /// By client tracking in broadcast mode (Redis 6 and later).
    Tracking,
    /// By keyspace events, on a connection of their own.
    KeyspaceEvents,
    /// Only by the periodic comparison.
    Polling,
}

impl ChangeDetection {
    /// The word used in log, metrics and admin endpoint.
    pub fn name(self) -> &'static str {
        match self {
            ChangeDetection::Tracking => "tracking",
            ChangeDetection::KeyspaceEvents => "keyspace",
            ChangeDetection::Polling => "poll",
        }
    }
}

/// The sync thread's numbers at one moment.
#[derive(Debug, Clone, Default)]
pub struct SyncStatus {
    pub redis: RedisState,
    /// `None` until connected for the first time.
    pub mode: Option<ChangeDetection>,
    /// The time since the table was last known to be what Redis has; `None` before that and without Redis.
    pub table_age: Option<Duration>,
    pub version: u64,
    /// Names and wildcards, without the defaults.
    pub hosts: usize,
    pub backends: usize,
    /// Redis keys that are rejected as a whole now.
    pub rejected_keys: usize,
    /// Members and options in Redis that are skipped now.
    pub rejected_members: usize,
    /// Whether a mass removal of hosts is held back now.
    pub holding: bool,
    /// The age of the snapshot on disk; `None` when there is none.
    pub snapshot_age: Option<Duration>,
    /// Why the last attempt to write the snapshot failed.
    pub snapshot_error: Option<String>,
    /// Every mistake in the routes file, a line each, when it was last read and rejected. Its old routes
    /// stay in use.
    pub routes_file_error: Option<String>,
    /// DNS names that have no address to connect to.
    pub names_unresolved: usize,
    /// DNS names whose last look-up failed.
    pub names_failing: usize,
    /// DNS names whose last answer had addresses that no backend may have.
    pub names_denied: usize,
    /// Passed and failed health checks since the start.
    pub checks_good: u64,
    pub checks_bad: u64,
}

impl SyncStatus {
    /// What the start waits for while there is no table, and what an operator can do about it.
    pub fn waits_for(&self) -> String {
        match self.redis {
            RedisState::Loading => format!(
                "the table is still being read from Redis, {} hosts so far",
                self.hosts
            ),
            RedisState::Connecting | RedisState::Lost => String::from(
                "the table cannot be read from Redis, the log says why, and there is neither a snapshot nor \
                a static route; start Redis, or add --snapshot or --routes",
            ),
            RedisState::Unused | RedisState::Live => {
                String::from("the DNS names of backends are being looked up")
            }
        }
    }
}

/// The numbers that the sync thread writes and other threads read.
#[derive(Default)]
pub(super) struct SharedStatus {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// The backends of the table.
    pub(super) backends: BackendIndex,
    /// Counted by the health checks.
    pub(super) tally: Arc<Tally>,
}

#[derive(Default)]
struct Inner {
    status: SyncStatus,
    confirmed: Option<Instant>,
    snapshot_written: Option<SystemTime>,
    ready: bool,
    ended: bool,
}

impl SharedStatus {
    pub(super) fn status(&self) -> SyncStatus {
        let inner = self.lock();
        SyncStatus {
            table_age: inner.confirmed.map(|since| since.elapsed()),
            snapshot_age: inner
                .snapshot_written
                .map(|written| written.elapsed().unwrap_or_default()),
            checks_good: self.tally.good(),
            checks_bad: self.tally.bad(),
            ..inner.status.clone()
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut SyncStatus)) {
        change(&mut self.lock().status);
    }

    /// The table is what Redis has now; unless a mass removal is held back.
    pub(super) fn confirm_table(&self) {
        let mut inner = self.lock();
        if !inner.status.holding {
            inner.confirmed = Some(Instant::now());
        }
    }

    /// The table is what Redis had so long ago. Has no effect when something newer is known.
    pub(super) fn confirm_table_at(&self, age: Duration) {
        let past = Instant::now().checked_sub(age);
        let mut inner = self.lock();
        inner.confirmed = inner.confirmed.or(past);
    }

    pub(super) fn set_snapshot_written(&self, written: SystemTime) {
        self.lock().snapshot_written = Some(written);
    }

    pub(super) fn set_ready(&self) {
        self.lock().ready = true;
        self.changed.notify_all();
    }

    pub(super) fn set_ended(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits for the first table. False when `timeout` passed first or the thread has ended.
    pub(super) fn wait_ready(&self, timeout: Duration) -> bool {
        let waits = |inner: &mut Inner| !inner.ready && !inner.ended;
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, waits);
        waited.expect("no holder panics").0.ready
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_for_redis_only_while_it_is_not_connected() {
        let waits_for = |redis| {
            let status = SyncStatus {
                redis,
                hosts: 12_345,
                ..SyncStatus::default()
            };
            status.waits_for()
        };
        assert!(waits_for(RedisState::Loading).contains("12345 hosts"));
        for redis in [RedisState::Connecting, RedisState::Lost] {
            assert!(waits_for(redis).contains("start Redis"));
        }
        for redis in [RedisState::Loading, RedisState::Live, RedisState::Unused] {
            assert!(!waits_for(redis).contains("start Redis"));
        }
    }
}
