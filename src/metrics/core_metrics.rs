//! One core's histograms and counters. Recording neither allocates nor locks nor fails: a value
//! out of bounds is counted at the bound.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::counter::Counter;
use super::stage::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;

/// Smallest span that is distinguished, in nanoseconds. Reading the clock takes about as long.
pub(super) const LOWEST_NS: u64 = 16;

/// Longest span that is distinguished, in nanoseconds: one day. A tunnel that lives longer is counted
/// as one day, because every doubling costs another kilobyte in each of the eighteen histograms of
/// each core.
pub(super) const HIGHEST_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// Two digits are an error below 1 %. A third would cost eight times the memory, 3 MB per core.
const SIGNIFICANT_DIGITS: u8 = 2;

const PROTOCOLS: usize = Protocol::ALL.len();

/// Everything that one core counts and times: 680 KB of address space, of which memory is taken for the
/// histograms that are recorded into. No process serves all protocols.
///
/// Spans are in nanoseconds, the unit that the public HdrHistogram tools assume; a route lookup
/// takes less than a microsecond and would vanish in a coarser one. Counts are 64 bits wide: at
/// 20,000 connections a second 32 bits are full in three days.
#[derive(Debug, Clone)]
pub(crate) struct CoreMetrics {
    histograms: [[Histogram<u64>; Stage::COUNT]; PROTOCOLS],
    outcomes: [[u64; Outcome::COUNT]; PROTOCOLS],
    counters: [u64; Counter::COUNT],
}

impl CoreMetrics {
    /// All zero. Allocates everything it will ever need.
    pub(crate) fn new() -> CoreMetrics {
        CoreMetrics {
            histograms: std::array::from_fn(|_| std::array::from_fn(|_| empty_histogram())),
            outcomes: [[0; Outcome::COUNT]; PROTOCOLS],
            counters: [0; Counter::COUNT],
        }
    }

    /// Times one stage of one connection.
    pub(crate) fn record(&mut self, protocol: Protocol, stage: Stage, span: Duration) {
        let span_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.histograms[protocol.index()][stage.index()].saturating_record(span_ns);
    }

    /// Counts the end of one connection.
    pub(crate) fn outcome(&mut self, protocol: Protocol, outcome: Outcome) {
        self.outcomes[protocol.index()][outcome.index()] += 1;
    }

    /// Adds `by` to a counter.
    pub(crate) fn count(&mut self, counter: Counter, by: u64) {
        self.counters[counter.index()] += by;
    }

    /// Adds everything in `other`.
    pub(crate) fn add(&mut self, other: &CoreMetrics) {
        let theirs = other.histograms.iter().flatten();
        let pairs = self.histograms.iter_mut().flatten().zip(theirs);
        for (mine, theirs) in pairs.filter(|(_, theirs)| !theirs.is_empty()) {
            mine.add(theirs)
                .expect("all histograms are made with the same bounds");
        }
        for (mine, theirs) in self
            .outcomes
            .iter_mut()
            .flatten()
            .zip(other.outcomes.iter().flatten())
        {
            *mine += theirs;
        }
        for (mine, theirs) in self.counters.iter_mut().zip(other.counters) {
            *mine += theirs;
        }
    }

    /// Back to all zero, with the memory kept. Pages that a core has touched before cost no page fault
    /// when the core gets them again; pages of protocols that nobody speaks stay untouched.
    pub(crate) fn clear(&mut self) {
        self.histograms
            .iter_mut()
            .flatten()
            .filter(|histogram| !histogram.is_empty())
            .for_each(Histogram::reset);
        self.outcomes = [[0; Outcome::COUNT]; PROTOCOLS];
        self.counters = [0; Counter::COUNT];
    }

    /// The histogram of one stage, in nanoseconds.
    pub(crate) fn histogram(&self, protocol: Protocol, stage: Stage) -> &Histogram<u64> {
        &self.histograms[protocol.index()][stage.index()]
    }

    /// How many connections ended this way.
    pub(crate) fn outcome_count(&self, protocol: Protocol, outcome: Outcome) -> u64 {
        self.outcomes[protocol.index()][outcome.index()]
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter.index()]
    }

    /// How many connections ended, in whatever way.
    pub(crate) fn ended(&self) -> u64 {
        self.outcomes.iter().flatten().sum()
    }

    /// Whether anything was timed or counted for this protocol.
    pub(crate) fn is_used(&self, protocol: Protocol) -> bool {
        let timed = |stage: &Histogram<u64>| !stage.is_empty();
        let ended = self.outcomes[protocol.index()]
            .iter()
            .any(|count| *count > 0);
        ended || self.histograms[protocol.index()].iter().any(timed)
    }

    /// Bytes held, here and on the heap.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let heap: usize = self
            .histograms
            .iter()
            .flatten()
            .map(|histogram| histogram.distinct_values() * size_of::<u64>())
            .sum();
        size_of::<CoreMetrics>() + heap
    }
}

impl Default for CoreMetrics {
    fn default() -> CoreMetrics {
        CoreMetrics::new()
    }
}

/// An empty histogram with the bounds that all of them share.
pub(super) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
        .expect("the bounds are constants and valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_takes_little_more_than_half_a_megabyte() {
        let bytes = CoreMetrics::new().memory_bytes();
        assert!((500_000..=750_000).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn spans_keep_their_value_within_one_percent() {
        let mut metrics = CoreMetrics::new();
        for span in [
            Duration::from_micros(7),
            Duration::from_millis(3),
            Duration::from_secs(3601),
        ] {
            metrics.clear();
            metrics.record(Protocol::Tls, Stage::Connect, span);
            let got = metrics
                .histogram(Protocol::Tls, Stage::Connect)
                .value_at_quantile(0.5) as f64;
            let want = span.as_nanos() as f64;
            assert!((got - want).abs() / want < 0.01, "{got} for {want}");
        }
    }

    #[test]
    fn spans_out_of_bounds_are_counted_at_the_bound() {
        let mut metrics = CoreMetrics::new();
        metrics.record(Protocol::Http, Stage::Route, Duration::ZERO);
        metrics.record(Protocol::Http, Stage::Lifetime, Duration::MAX);
        assert_eq!(metrics.histogram(Protocol::Http, Stage::Route).len(), 1);
        let lifetime = metrics.histogram(Protocol::Http, Stage::Lifetime);
        assert_eq!(lifetime.len(), 1);
        assert!(lifetime.max() >= HIGHEST_NS);
    }

    #[test]
    fn adding_and_clearing() {
        let mut one = CoreMetrics::new();
        one.record(Protocol::Tls, Stage::Head, Duration::from_millis(1));
        one.outcome(Protocol::Tls, Outcome::Relayed);
        one.count(Counter::Accepted, 3);
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!(sum.histogram(Protocol::Tls, Stage::Head).len(), 2);
        assert_eq!(sum.histogram(Protocol::Http, Stage::Head).len(), 0);
        assert_eq!(sum.outcome_count(Protocol::Tls, Outcome::Relayed), 2);
        assert_eq!(sum.ended(), 2);
        assert_eq!(sum.counter(Counter::Accepted), 6);
        sum.clear();
        assert_eq!(sum.ended(), 0);
        assert_eq!(sum.counter(Counter::Accepted), 0);
        assert!(sum.histogram(Protocol::Tls, Stage::Head).is_empty());
    }
}
