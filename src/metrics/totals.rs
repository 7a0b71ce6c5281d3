//! Outcomes, stages and counters of all cores since the start, as a section of the page of metrics. The
//! set of series is fixed: labels hold protocols, stages and outcomes, never anything that a client
//! sent.

use std::fmt;

use hdrhistogram::Histogram;

use super::core_metrics::CoreMetrics;
use super::counter::Counter;
use super::exposition::Exposition;
use super::stage::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;

/// Upper bounds of the buckets, nanoseconds: three per decade where stages live, sparser above.
const BOUNDS_NS: [u64; 20] = [
    1_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
    300_000_000_000,
    3_600_000_000_000,
];

/// What the page says of a sum over all cores, taken out of it.
pub(crate) struct Totals {
    outcomes: Vec<(Protocol, Outcome, u64)>,
    counters: [u64; Counter::COUNT],
    stages: Vec<(Protocol, Stage, Buckets)>,
}

/// A histogram as Prometheus has it.
struct Buckets {
    sum_s: f64,
    count: u64,
    /// Upper bounds in seconds.
    buckets: [(f64, u64); BOUNDS_NS.len() + 1],
}

impl Totals {
    pub(crate) fn of(metrics: &CoreMetrics) -> Totals {
        let mut outcomes = Vec::new();
        let mut stages = Vec::new();
        for protocol in shown(metrics) {
            let outcome = |outcome| (protocol, outcome, metrics.outcome_count(protocol, outcome));
            outcomes.extend(Outcome::all().map(outcome));
            let stage = |stage| {
                (
                    protocol,
                    stage,
                    Buckets::of(metrics.histogram(protocol, stage)),
                )
            };
            stages.extend(Stage::ALL.map(stage));
        }
        Totals {
            outcomes,
            counters: Counter::ALL.map(|counter| metrics.counter(counter)),
            stages,
        }
    }

    pub(crate) fn write(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let mut ended = out.counters("connections", "Connections ended, by outcome.")?;
        for (protocol, outcome, count) in &self.outcomes {
            let labels = [("protocol", protocol.name()), ("outcome", outcome.name())];
            ended.add(&labels, *count)?;
        }
        for family in Counter::FAMILIES {
            let mut counters = out.counters(family.name, family.help)?;
            for counter in family.counters {
                let label = [(family.label, counter.label_value())];
                let labels = if family.label.is_empty() {
                    &[]
                } else {
                    &label[..]
                };
                counters.add(labels, self.counters[counter.index()])?;
            }
        }
        let help = "Time taken by the stages of connections.";
        let mut stages = out.histograms("stage_duration_seconds", help)?;
        for (
            protocol,
            stage,
            Buckets {
                sum_s,
                count,
                buckets,
            },
        ) in &self.stages
        {
            let labels = [("protocol", protocol.name()), ("stage", stage.name())];
            stages.add(&labels, *sum_s, *count, buckets)?;
        }
        Ok(())
    }
}

/// The receiving end is a process of its own, so no other shows its series, which are many.
fn shown(metrics: &CoreMetrics) -> impl Iterator<Item = Protocol> {
    let is_shown = |protocol: &Protocol| *protocol != Protocol::Tcp || metrics.is_used(*protocol);
    Protocol::ALL.into_iter().filter(is_shown)
}

impl Buckets {
    fn of(histogram: &Histogram<u64>) -> Buckets {
        let mut buckets = [(f64::INFINITY, 0); BOUNDS_NS.len() + 1];
        let mut recorded = histogram.iter_recorded().peekable();
        for (bucket, bound) in buckets.iter_mut().zip(BOUNDS_NS) {
            bucket.0 = seconds(bound as f64);
            while let Some(value) = recorded.next_if(|value| value.value_iterated_to() <= bound) {
                bucket.1 += value.count_since_last_iteration();
            }
        }
        let count = histogram.len();
        let below: u64 = buckets.iter().map(|(_, count)| count).sum();
        buckets[BOUNDS_NS.len()].1 = count - below;
        Buckets {
            sum_s: seconds(histogram.mean() * count as f64),
            count,
            buckets,
        }
    }
}

fn seconds(ns: f64) -> f64 {
    ns / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::metrics::page;

    fn rendered(metrics: &CoreMetrics) -> String {
        let totals = Totals::of(metrics);
        page(vec![Box::new(move |out| totals.write(out))])
    }

    #[test]
    fn every_line_is_a_comment_or_one_series_with_a_number() {
        let mut series = HashSet::new();
        for line in rendered(&CoreMetrics::new()).lines() {
            if line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            assert!(series.insert(name.to_owned()), "{line} is there twice");
        }
        assert!(series.len() < 620, "{} series", series.len());
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut metrics = CoreMetrics::new();
        for micros in [5, 700, 700, 20_000_000] {
            metrics.record(Protocol::Tls, Stage::Connect, Duration::from_micros(micros));
        }
        metrics.outcome(Protocol::Tls, Outcome::Relayed);
        metrics.count(Counter::BytesFromClients, 9);
        let text = rendered(&metrics);
        let bucket = |le: &str, count: u64| {
            format!(
                "pointsman_stage_duration_seconds_bucket{{protocol=\"tls\",stage=\"connect\",le=\"{le}\"}} \
                 {count}"
            )
        };
        for line in [
            "pointsman_connections_total{protocol=\"tls\",outcome=\"relayed\"} 1",
            "pointsman_received_bytes_total{side=\"client\"} 9",
            "pointsman_requests_total 0",
            &bucket("1e-06", 0),
            &bucket("1e-05", 1),
            &bucket("0.001", 3),
            &bucket("5", 3),
            &bucket("30", 4),
            &bucket("+Inf", 4),
            "pointsman_stage_duration_seconds_count{protocol=\"tls\",stage=\"connect\"} 4",
        ] {
            assert!(text.lines().any(|got| got == line), "no {line} in\n{text}");
        }
    }
}
