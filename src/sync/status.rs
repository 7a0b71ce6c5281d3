//! What other threads may know about the sync thread: its numbers, and that the first table is there.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::health::Tally;
use crate::route::Roster;

/// How Redis is doing.
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
    /// The last known table serves until Redis is back.
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
pub enum Mode {
    /// Client tracking in broadcast mode (Redis 6 and later).
    Tracking,
    /// Keyspace events on a connection of their own.
    Keyspace,
    /// Only by the periodic comparison.
    Poll,
}

impl Mode {
    /// The word used in log, metrics and admin endpoint.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Tracking => "tracking",
            Mode::Keyspace => "keyspace",
            Mode::Poll => "poll",
        }
    }
}

/// The sync thread's numbers at one moment.
#[derive(Debug, Clone, Default)]
pub struct SyncStatus {
    pub redis: RedisState,
    /// `None` until connected for the first time.
    pub mode: Option<Mode>,
    /// Since the table was last known to be what Redis has; `None` before that and without Redis.
    pub table_age: Option<Duration>,
    pub version: u64,
    /// Names and wildcards, without the defaults.
    pub hosts: usize,
    pub backends: usize,
    /// Redis keys that give no usable route at the moment.
    pub rejected_keys: usize,
    /// Members in Redis that are skipped at the moment.
    pub rejected_members: usize,
    /// Whether the removal of many hosts is held back at the moment.
    pub holding: bool,
    /// Since the snapshot on disk was written; `None` when there is none.
    pub snapshot_age: Option<Duration>,
    /// Why it could not be written when that was last tried.
    pub snapshot_error: Option<String>,
    /// Why the routes file was rejected when it was last read; its old routes serve.
    pub routes_file_error: Option<String>,
    /// DNS names that have no address to connect to.
    pub names_unresolved: usize,
    /// DNS names whose last question failed.
    pub names_failing: usize,
    /// DNS names whose last answer had addresses where no backend may be.
    pub names_denied: usize,
    /// Answers to active checks since the start.
    pub checks_good: u64,
    pub checks_bad: u64,
}

/// The side that both threads hold.
#[derive(Default)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// The backends of the table.
    pub(super) roster: Roster,
    /// Counted by the prober.
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

impl Shared {
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

    /// The table is what Redis has, now; unless what Redis has is not believed.
    pub(super) fn confirm(&self) {
        let mut inner = self.lock();
        if !inner.status.holding {
            inner.confirmed = Some(Instant::now());
        }
    }

    /// The table is what Redis had so long ago, as far as nothing newer is known.
    pub(super) fn confirm_past(&self, age: Duration) {
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

    /// Whether the first table came within `timeout`.
    pub(super) fn wait_ready(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut inner = self.lock();
        while !inner.ready && !inner.ended {
            inner = match deadline {
                None => self.changed.wait(inner).expect("no holder panics"),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.changed.wait_timeout(inner, left);
                    waited.expect("no holder panics").0
                }
            };
        }
        inner.ready
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}
