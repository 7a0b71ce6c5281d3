//! Keys in Redis that are rejected, wholly or with some of their members and options. Each is logged once,
//! and counted for as long as it stays.

use std::collections::HashMap;

/// Keys that are logged one by one at a time; of the others the count is.
const LOGGED_MAX: usize = 10;

/// Keys that are remembered, so that each is logged once and not at every comparison.
const KEPT_MAX: usize = 10_000;

/// What is rejected now, and what of it is not logged yet.
#[derive(Default)]
pub(super) struct RejectedKeys {
    now: HashMap<Vec<u8>, Rejection>,
    /// During a comparison: what was rejected before it and was not read again so far.
    before: HashMap<Vec<u8>, Rejection>,
    unlogged: Vec<(Vec<u8>, Vec<String>)>,
    unlogged_more: usize,
}

/// What is rejected of one key, and why.
#[derive(PartialEq)]
pub(super) struct Rejection {
    pub(super) extent: Extent,
    /// Members and options that are rejected.
    pub(super) entries: usize,
    pub(super) reasons: Vec<String>,
}

#[derive(PartialEq)]
pub(super) enum Extent {
    /// Nothing of the key can be used.
    Key,
    /// The other entries of the key are used.
    Entries,
}

impl RejectedKeys {
    /// A comparison starts. The keys that it does not read no longer exist.
    pub(super) fn start_comparison(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    pub(super) fn finish_comparison(&mut self) {
        self.before = HashMap::new();
    }

    /// Nothing of this key is rejected.
    pub(super) fn remove(&mut self, redis_key: &[u8]) {
        self.now.remove(redis_key);
        self.before.remove(redis_key);
    }

    pub(super) fn set(&mut self, redis_key: &[u8], rejection: Rejection) {
        let known = self.now.remove(redis_key);
        let known = known.or_else(|| self.before.remove(redis_key));
        if known.as_ref() != Some(&rejection) {
            if self.unlogged.len() < LOGGED_MAX {
                self.unlogged
                    .push((redis_key.to_vec(), rejection.reasons.clone()));
            } else {
                self.unlogged_more += 1;
            }
        }
        if self.now.len() < KEPT_MAX {
            self.now.insert(redis_key.to_vec(), rejection);
        }
    }

    /// How many keys are rejected as a whole.
    pub(super) fn key_count(&self) -> usize {
        let is_whole = |rejection: &&Rejection| rejection.extent == Extent::Key;
        self.all().filter(is_whole).count()
    }

    /// How many members and options are rejected.
    pub(super) fn entry_count(&self) -> usize {
        self.all().map(|rejection| rejection.entries).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Rejection> {
        self.now.values().chain(self.before.values())
    }

    /// Logs what is new, in a bounded number of lines.
    pub(super) fn log(&mut self) {
        for (redis_key, reasons) in self.unlogged.drain(..) {
            let key = String::from_utf8_lossy(&redis_key);
            let key: String = key.chars().take(300).collect();
            let reasons = reasons.join("; ");
            tracing::warn!(
                key,
                reasons,
                "rejected in Redis, the other routes stay in use"
            );
        }
        let more = std::mem::take(&mut self.unlogged_more);
        if more > 0 {
            tracing::warn!(keys = more, "further keys rejected in Redis");
        }
    }
}
