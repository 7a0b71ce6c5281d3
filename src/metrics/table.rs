//! A dump as a page for people: percentiles of every stage, counts of every outcome, since the
//! start and since the last dump.

use std::io::{self, Write};
use std::time::Duration;

use super::core_metrics::CoreMetrics;
use super::counter::Counter;
use super::dump::Dump;
use super::stage::Stage;
use crate::outcome::Outcome;
use crate::protocol::Protocol;

/// Writes the page. Stages and outcomes that never happened are left out.
pub(crate) fn write_table(out: &mut impl Write, dump: &Dump<'_>) -> io::Result<()> {
    writeln!(out, "pointsman dump {}, {}", dump.sequence, dump.coverage())?;
    section(out, "since start", dump.since_start, dump.total)?;
    section(out, "since the last dump", dump.since_last, dump.interval)
}

fn section(
    out: &mut impl Write,
    title: &str,
    span: Duration,
    metrics: &CoreMetrics,
) -> io::Result<()> {
    writeln!(out, "\n{title}, {:.1} s\n", span.as_secs_f64())?;
    writeln!(
        out,
        "  {:<16}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "stage", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for protocol in Protocol::ALL {
        for stage in Stage::ALL {
            let histogram = metrics.histogram(protocol, stage);
            if histogram.is_empty() {
                continue;
            }
            let name = format!("{} {}", protocol.name(), stage.name());
            write!(out, "  {name:<16}{:>12}", histogram.len())?;
            for quantile in [0.5, 0.9, 0.99, 0.999] {
                write!(
                    out,
                    "{:>9}",
                    span_text(histogram.value_at_quantile(quantile))
                )?;
            }
            writeln!(out, "{:>9}", span_text(histogram.max()))?;
        }
    }
    writeln!(out)?;
    for protocol in Protocol::ALL {
        for outcome in Outcome::all() {
            let count = metrics.outcome_count(protocol, outcome);
            if count > 0 {
                let name = format!("{} {}", protocol.name(), outcome.name());
                writeln!(out, "  {name:<34}{count:>20}")?;
            }
        }
    }
    for counter in Counter::ALL {
        writeln!(
            out,
            "  {:<34}{:>20}",
            counter.name(),
            metrics.counter(counter)
        )?;
    }
    Ok(())
}

/// Nanoseconds in the unit that leaves one to three digits before the point.
fn span_text(span_ns: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")];
    let value = span_ns as f64;
    let (scale, unit) = UNITS
        .into_iter()
        .find(|(scale, _)| value >= *scale)
        .unwrap_or((1.0, "ns"));
    let scaled = value / scale;
    // The histograms hold about two digits; a third tells neighbours apart, a fourth would lie.
    let decimals = match scaled {
        _ if unit == "ns" => 0,
        scaled if scaled < 10.0 => 2,
        scaled if scaled < 100.0 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn spans_are_short_and_have_units() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_500, "1.50us"),
            (45_600, "45.6us"),
            (123_456_789, "123ms"),
            (3_600_000_000_000, "3600s"),
        ] {
            assert_eq!(span_text(ns), text);
        }
    }

    #[test]
    fn the_page_has_both_spans_and_names_what_happened() {
        let mut total = CoreMetrics::new();
        for _ in 0..3 {
            total.record(Protocol::Http, Stage::Head, Duration::from_micros(250));
            total.outcome(Protocol::Http, Outcome::UnknownName);
        }
        total.count(Counter::Accepted, 3);
        let interval = CoreMetrics::new();
        let dump = Dump {
            sequence: 1,
            started: SystemTime::UNIX_EPOCH,
            since_start: Duration::from_secs(10),
            since_last: Duration::from_secs(4),
            total: &total,
            interval: &interval,
            cores: 2,
            missing: &[1],
        };
        let mut bytes = Vec::new();
        write_table(&mut bytes, &dump).unwrap();
        let page = String::from_utf8(bytes).unwrap();
        let (start, last) = page.split_once("since the last dump, 4.0 s").unwrap();
        assert!(start.contains("1 of 2 cores; without an answer in time: 1"));
        assert!(start.contains("since start, 10.0 s"));
        let line = start
            .lines()
            .find(|line| line.contains("http head"))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[2], "3");
        assert_eq!(words.len(), 8);
        assert!(
            start
                .lines()
                .any(|line| { line.split_whitespace().eq(["http", "unknown_name", "3"]) })
        );
        assert!(!last.contains("http head"));
        assert!(!start.contains("tls "));
    }
}
