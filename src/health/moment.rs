//! Points in time that fit into an atomic integer.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Milliseconds since one hour before the first moment of the process. Never 0, which an atomic uses
/// for "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn of(now: Instant) -> Moment {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        const BEFORE: Duration = Duration::from_secs(60 * 60);
        let epoch = EPOCH.get_or_init(|| now.checked_sub(BEFORE).unwrap_or(now));
        let since = now.saturating_duration_since(*epoch).as_millis();
        Moment((since as u64).max(1))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn after(self, span: Duration) -> Moment {
        Moment(self.0 + span.as_millis() as u64)
    }

    /// The value for an atomic; never 0.
    pub(super) fn to_stored(self) -> u64 {
        self.0
    }

    /// The moment that an atomic holds; `None` for 0.
    pub(super) fn from_stored(stored: u64) -> Option<Moment> {
        (stored != 0).then_some(Moment(stored))
    }
}
