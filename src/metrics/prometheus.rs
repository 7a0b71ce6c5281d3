//! The metrics in the Prometheus text format, version 0.0.4. The set of series is fixed: labels
//! hold protocols, stages and outcomes, never anything that a client sent.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

use super::{CoreMetrics, Counter, Stage};
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

/// Writes outcomes, stages and counters of the sum over all cores since the start.
pub(crate) fn write_prometheus(out: &mut impl Write, metrics: &CoreMetrics) -> fmt::Result {
    writeln!(
        out,
        "# HELP pointsman_connections_total Connections ended, by outcome.\n\
         # TYPE pointsman_connections_total counter"
    )?;
    for protocol in shown(metrics) {
        for outcome in Outcome::all() {
            writeln!(
                out,
                "pointsman_connections_total{{protocol=\"{}\",outcome=\"{}\"}} {}",
                protocol.name(),
                outcome.name(),
                metrics.outcome_count(protocol, outcome)
            )?;
        }
    }
    for counter in Counter::ALL {
        let name = format!("pointsman_{}_total", counter.name());
        writeln!(
            out,
            "# HELP {name} {}\n# TYPE {name} counter\n{name} {}",
            counter.help(),
            metrics.counter(counter)
        )?;
    }
    writeln!(
        out,
        "# HELP pointsman_stage_seconds Time taken by the stages of connections.\n\
         # TYPE pointsman_stage_seconds histogram"
    )?;
    for protocol in shown(metrics) {
        for stage in Stage::ALL {
            let labels = format!(
                "protocol=\"{}\",stage=\"{}\"",
                protocol.name(),
                stage.name()
            );
            write_histogram(out, &labels, metrics.histogram(protocol, stage))?;
        }
    }
    Ok(())
}

/// The receiving end is a process of its own, so no other shows its series, which are many.
fn shown(metrics: &CoreMetrics) -> impl Iterator<Item = Protocol> {
    let is_shown = |protocol: &Protocol| *protocol != Protocol::Tcp || metrics.is_used(*protocol);
    Protocol::ALL.into_iter().filter(is_shown)
}

fn write_histogram(out: &mut impl Write, labels: &str, histogram: &Histogram<u64>) -> fmt::Result {
    const NAME: &str = "pointsman_stage_seconds";
    let mut recorded = histogram.iter_recorded().peekable();
    let mut below = 0;
    for bound in BOUNDS_NS {
        while let Some(value) = recorded.next_if(|value| value.value_iterated_to() <= bound) {
            below += value.count_since_last_iteration();
        }
        let le = seconds(bound as f64);
        writeln!(out, "{NAME}_bucket{{{labels},le=\"{le}\"}} {below}")?;
    }
    let count = histogram.len();
    let sum = seconds(histogram.mean() * count as f64);
    writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(out, "{NAME}_sum{{{labels}}} {sum}")?;
    writeln!(out, "{NAME}_count{{{labels}}} {count}")
}

fn seconds(ns: f64) -> f64 {
    ns / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn rendered(metrics: &CoreMetrics) -> String {
        let mut text = String::new();
        write_prometheus(&mut text, metrics).unwrap();
        text
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
        let text = rendered(&metrics);
        for line in [
            "pointsman_connections_total{protocol=\"tls\",outcome=\"relayed\"} 1",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"0.000001\"} 0",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"0.00001\"} 1",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"0.001\"} 3",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"5\"} 3",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"30\"} 4",
            "pointsman_stage_seconds_bucket{protocol=\"tls\",stage=\"connect\",le=\"+Inf\"} 4",
            "pointsman_stage_seconds_count{protocol=\"tls\",stage=\"connect\"} 4",
        ] {
            assert!(text.lines().any(|got| got == line), "no {line} in\n{text}");
        }
    }
}
