//! Members and options of one host that cannot be used. Each is skipped, counted and named; the others
//! of the host are used.

/// Members of one host that are used. A Redis set has no upper bound, and choosing, counting and health
/// checks do their work once for each member, on every core. No host needs more backends than this, and
/// this many are parsed in some milliseconds.
pub(super) const MEMBERS_MAX: usize = 4_096;

/// Reasons that are kept as text for one host. The others are only counted, so that a set of a million
/// mistakes does not cost a million sentences.
const REASONS_MAX: usize = 5;

/// Characters of one reason. A reason quotes the entry, which may be long.
const REASON_CHARACTERS_MAX: usize = 300;

/// How many entries are rejected, and why.
#[derive(Debug, Default)]
pub(super) struct RejectedEntries {
    count: usize,
    reasons: Vec<String>,
}

impl RejectedEntries {
    pub(super) fn add(&mut self, reason: impl FnOnce() -> String) {
        self.add_many(1, reason);
    }

    /// Adds several entries that have the same reason.
    pub(super) fn add_many(&mut self, count: usize, reason: impl FnOnce() -> String) {
        self.count += count;
        if self.reasons.len() < REASONS_MAX {
            self.reasons
                .push(format!("{:.REASON_CHARACTERS_MAX$}", reason()));
        }
    }

    /// Puts the host's name in front of the reason that was added last.
    pub(super) fn name_last(&mut self, host: impl FnOnce() -> String) {
        if self.count <= REASONS_MAX
            && let Some(last) = self.reasons.last_mut()
        {
            *last = format!("{}: {last}", host());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn into_reasons(self) -> Vec<String> {
        self.reasons
    }
}
