//! Keys and members in Redis that make no sense: logged once each, counted while they last.

use std::collections::HashMap;

use super::limits::{REJECTIONS_KEPT_MAX, REJECTIONS_LOGGED_MAX};

/// What is rejected at the moment, and what of it the log has not said yet.
#[derive(Default)]
pub(super) struct Rejected {
    now: HashMap<Vec<u8>, Rejection>,
    /// While a comparison goes on: what was rejected before it.
    before: HashMap<Vec<u8>, Rejection>,
    unlogged: Vec<(Vec<u8>, Vec<String>)>,
    unlogged_more: usize,
}

#[derive(PartialEq)]
struct Rejection {
    reasons: Vec<String>,
    members: usize,
    whole: bool,
}

impl Rejected {
    /// A comparison starts: what it does not come by is no longer there.
    pub(super) fn start_over(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// The comparison came to its end.
    pub(super) fn finish(&mut self) {
        self.before = HashMap::new();
    }

    /// Says what is wrong with a key: nothing, some members, or all of it. `reasons` names at most a
    /// few of the members.
    pub(super) fn set(&mut self, raw: &[u8], members: usize, whole: bool, reasons: Vec<String>) {
        let known = self.now.remove(raw).or_else(|| self.before.remove(raw));
        if members == 0 && !whole {
            return;
        }
        let rejection = Rejection {
            reasons,
            members,
            whole,
        };
        if known.as_ref() != Some(&rejection) {
            if self.unlogged.len() < REJECTIONS_LOGGED_MAX {
                self.unlogged
                    .push((raw.to_vec(), rejection.reasons.clone()));
            } else {
                self.unlogged_more += 1;
            }
        }
        if self.now.len() < REJECTIONS_KEPT_MAX {
            self.now.insert(raw.to_vec(), rejection);
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.all().filter(|rejection| rejection.whole).count()
    }

    pub(super) fn members(&self) -> usize {
        self.all().map(|rejection| rejection.members).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Rejection> {
        self.now.values().chain(self.before.values())
    }

    /// Says what is new, a bounded number of lines.
    pub(super) fn log(&mut self) {
        for (raw, reasons) in self.unlogged.drain(..) {
            let key = String::from_utf8_lossy(&raw);
            let key: String = key.chars().take(300).collect();
            let reasons = reasons.join("; ");
            tracing::warn!(key, reasons, "rejected in Redis, the other routes serve on");
        }
        let more = std::mem::take(&mut self.unlogged_more);
        if more > 0 {
            tracing::warn!(more, "further keys rejected in Redis");
        }
    }
}
