//! What a dump is made of, in whichever form it is written.

use std::time::{Duration, SystemTime};

use super::core_metrics::CoreMetrics;

/// The sums over all cores, since the start and since the last dump. The spans come from a
/// monotonic clock, so that a clock that jumps does not bend them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dump<'a> {
    /// 1 for the first dump of a process.
    pub sequence: u64,
    /// When the process started.
    pub started: SystemTime,
    /// From the start to this dump.
    pub since_start: Duration,
    /// From the last dump (the start, for the first) to this one.
    pub since_last: Duration,
    pub total: &'a CoreMetrics,
    pub interval: &'a CoreMetrics,
    /// How many cores there are.
    pub cores: usize,
    /// Cores that did not answer in time; what they hold is in the next dump.
    pub missing: &'a [usize],
}

impl Dump<'_> {
    /// One sentence about which cores are in it.
    pub(super) fn coverage(&self) -> String {
        if self.missing.is_empty() {
            return format!("all {} cores", self.cores);
        }
        let missing: Vec<String> = self.missing.iter().map(usize::to_string).collect();
        format!(
            "{} of {} cores; without an answer in time: {}",
            self.cores - self.missing.len(),
            self.cores,
            missing.join(", ")
        )
    }
}
