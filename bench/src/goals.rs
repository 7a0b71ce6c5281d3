//! The goals of pointsman against its peers. Every report says which of them its run has reached.

use std::fmt::Write as _;

use crate::measure::Sample;
use crate::report::{Figure, Results, bulk, cost, p99, rate};
use crate::routes::{self, Facts};
use crate::stats::median;

/// Whether the bound is the largest or the smallest ratio that reaches the goal.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Bound::AtMost(most) => ratio <= most,
            Bound::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Bound::AtMost(most) => format!("at most {most:.2}"),
            Bound::AtLeast(least) => format!("at least {least:.2}"),
        }
    }
}

/// Ratios of pointsman to peers in scenarios.
struct Goal {
    scenarios: &'static [&'static str],
    peers: &'static [&'static str],
    what: &'static str,
    figure: Figure,
    bound: Bound,
}

const BULK: &[&str] = &["down-1", "down-8", "up-1", "up-8"];
const HTTP: &[&str] = &["http-keep", "http-close"];
const GOALS: [Goal; 15] = [
    goal(
        &["connect", "connect-pq"],
        &["haproxy"],
        "cost",
        cost,
        Bound::AtMost(0.90),
    ),
    goal(
        &["connect", "connect-pq"],
        &["nginx"],
        "cost",
        cost,
        Bound::AtMost(0.95),
    ),
    goal(
        &["connect-proxy"],
        &["no-header"],
        "cost",
        cost,
        Bound::AtMost(1.03),
    ),
    goal(
        &["exchange-64", "exchange-1000"],
        &["haproxy", "nginx"],
        "cost",
        cost,
        Bound::AtMost(0.95),
    ),
    goal(BULK, &["haproxy-splice"], "cost", cost, Bound::AtMost(0.65)),
    goal(BULK, &["nginx"], "cost", cost, Bound::AtMost(0.30)),
    goal(
        BULK,
        &["haproxy-splice"],
        "throughput",
        bulk,
        Bound::AtLeast(1.15),
    ),
    goal(
        &["mixed-held"],
        &["haproxy", "haproxy-splice", "nginx"],
        "p99",
        p99,
        Bound::AtMost(0.75),
    ),
    goal(
        &["mixed-held"],
        &["haproxy", "haproxy-splice", "nginx"],
        "cost",
        cost,
        Bound::AtMost(1.0),
    ),
    goal(
        &["mixed-free"],
        &["haproxy-splice"],
        "exchanges a second",
        rate,
        Bound::AtLeast(1.0),
    ),
    goal(
        &["mixed-free"],
        &["haproxy-splice"],
        "bulk",
        bulk,
        Bound::AtLeast(1.0),
    ),
    goal(
        HTTP,
        &["haproxy", "nginx"],
        "cost",
        cost,
        Bound::AtMost(0.95),
    ),
    goal(
        &["http-down-1", "http-down-chunked"],
        &["tls-down"],
        "cost",
        cost,
        Bound::AtMost(1.05),
    ),
    goal(
        &["seed"],
        &["none"],
        "requests a second",
        rate,
        Bound::AtLeast(2.9),
    ),
    goal(
        &["exchange-1"],
        &["haproxy", "nginx"],
        "cost",
        cost,
        Bound::AtMost(1.0),
    ),
];

const fn goal(
    scenarios: &'static [&'static str],
    peers: &'static [&'static str],
    what: &'static str,
    figure: Figure,
    bound: Bound,
) -> Goal {
    Goal {
        scenarios,
        peers,
        what,
        figure,
        bound,
    }
}

/// Process memory per idle connection, in bytes, and processor share of 5,000 of them.
const IDLE_BYTES_MAX: f64 = 1_000.0;
const IDLE_SHARE_MAX: f64 = 0.02;

/// The largest table, and its bounds.
const LARGEST: usize = routes::SIZES[routes::SIZES.len() - 1];
type TableFigure = fn(&Facts) -> f64;
const LARGEST_TABLE: [(&str, TableFigure, f64); 3] = [
    (
        "bytes per host beyond the name",
        |facts| facts.bytes_per_host,
        150.0,
    ),
    ("seconds until ready", |facts| facts.ready, 10.0),
    ("p99 of a change, ms", |facts| facts.change_p99, 5.0),
];

/// A Markdown table of the goals that this run has figures for.
pub fn table(results: &Results) -> String {
    let mut text = String::from(
        "| scenario | figure | peer | goal | measured | |\n|---|---|---|---|---|---|\n",
    );
    for measured in &results.scenarios {
        for goal in GOALS
            .iter()
            .filter(|goal| goal.scenarios.contains(&measured.name.as_str()))
        {
            for peer in goal.peers {
                let Some(ratio) = median(&measured.ratios(peer, goal.figure)) else {
                    continue;
                };
                let _ = writeln!(
                    text,
                    "| {} | {} | {peer} | {} | {ratio:.2} | {} |",
                    measured.name,
                    goal.what,
                    goal.bound.text(),
                    verdict(goal.bound.is_met(ratio)),
                );
            }
        }
        let subject = measured.peers().first().copied().unwrap_or_default();
        let own: [(&str, Figure, f64); 2] = [
            (
                "bytes per connection",
                |sample: &Sample| sample.memory_per_connection,
                IDLE_BYTES_MAX,
            ),
            (
                "processor share",
                |sample: &Sample| Some(sample.processor? / sample.window),
                IDLE_SHARE_MAX,
            ),
        ];
        for (what, figure, most) in own.into_iter().filter(|_| measured.name == "idle") {
            if let Some(value) = median(&measured.values(subject, figure)) {
                let _ = writeln!(
                    text,
                    "| idle | {what} | - | at most {most} | {value:.3} | {} |",
                    verdict(value <= most)
                );
            }
        }
        let tables = measured.tables.iter();
        let largest: Vec<&Facts> = tables.filter(|facts| facts.hosts == LARGEST).collect();
        for (what, figure, most) in LARGEST_TABLE {
            let values: Vec<f64> = largest.iter().map(|facts| figure(facts)).collect();
            if let Some(value) = median(&values) {
                let _ = writeln!(
                    text,
                    "| {} | {what} | - | at most {most} | {value:.2} | {} |",
                    measured.name,
                    verdict(value <= most)
                );
            }
        }
    }
    text
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtMost(0.9).is_met(0.9) && !Bound::AtMost(0.9).is_met(0.91));
        assert!(Bound::AtLeast(2.9).is_met(2.9) && !Bound::AtLeast(2.9).is_met(2.89));
    }

    #[test]
    fn goals_name_scenarios_that_exist() {
        let all = scenario::all();
        for name in GOALS.iter().flat_map(|goal| goal.scenarios) {
            assert!(all.iter().any(|scenario| scenario.name == *name), "{name}");
        }
    }
}
