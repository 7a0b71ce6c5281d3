//! The results of a run: raw data as JSON, a summary in Markdown, charts as SVG.
//!
//! Ratios are the subject's figure (the first proxy's) divided by the peer's of the same round; the
//! median of these is shown with the smallest and the largest.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::machine::Machine;
use crate::measure::{QUIET_SHARE, Sample};
use crate::options::Options;
use crate::peer::Peer;
use crate::scenario::{Scenario, Unit};
use crate::stats::{median, ratios, spread};
use crate::{charts, goals};

/// The results of a run.
#[derive(Debug, Serialize)]
pub struct Results {
    pub command: Vec<String>,
    pub machine: Machine,
    pub processors: crate::machine::Processors,
    pub rounds: u32,
    pub seconds: f64,
    /// Parts of each window that alternated between the proxies.
    pub slices: u32,
    /// Name and version of each proxy.
    pub peers: Vec<(String, String)>,
    pub scenarios: Vec<Measured>,
}

/// All samples of one scenario.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: String,
    pub title: String,
    pub unit: Unit,
    pub samples: Vec<Sample>,
    /// Of routing tables, in the scenario that loads them.
    pub tables: Vec<crate::routes::Facts>,
    /// Remarks, one line of Markdown each.
    pub notes: Vec<String>,
}

impl Results {
    pub fn new(machine: Machine, options: &Options, peers: &[(Peer, String)]) -> Results {
        Results {
            command: std::env::args().collect(),
            machine,
            processors: options.processors,
            rounds: options.rounds,
            seconds: options.window.as_secs_f64(),
            slices: options.slices,
            peers: peers
                .iter()
                .map(|(peer, version)| (peer.name().to_owned(), version.clone()))
                .collect(),
            scenarios: Vec::new(),
        }
    }

    fn windows(&self) -> impl Iterator<Item = &Sample> {
        let scenarios = self.scenarios.iter();
        scenarios.flat_map(|measured| &measured.samples)
    }
}

/// A figure of a window; `None` where it does not apply.
pub type Figure = fn(&Sample) -> Option<f64>;

pub fn cost(sample: &Sample) -> Option<f64> {
    sample.cost()
}

pub fn bulk(sample: &Sample) -> Option<f64> {
    (sample.bulk_bytes > 0).then(|| sample.bulk_per_second())
}

/// Answers per second, where there are any.
pub fn rate(sample: &Sample) -> Option<f64> {
    (sample.answers > 0).then(|| sample.answers_per_second())
}

pub fn p99(sample: &Sample) -> Option<f64> {
    sample.p99.map(|value| value as f64)
}

impl Measured {
    pub fn new(scenario: &Scenario, samples: Vec<Sample>) -> Measured {
        Measured {
            name: scenario.name.to_owned(),
            title: scenario.title.to_owned(),
            unit: scenario.unit,
            samples,
            tables: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The proxies in the order of their windows.
    pub fn peers(&self) -> Vec<&str> {
        let mut peers: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !peers.contains(&sample.peer.as_str()) {
                peers.push(&sample.peer);
            }
        }
        peers
    }

    /// Whether there was any work. A ratio of two idle proxies says nothing.
    pub fn has_work(&self) -> bool {
        self.samples
            .iter()
            .any(|sample| sample.answers > 0 || sample.bulk_bytes > 0)
    }

    fn by_round(&self, peer: &str, figure: Figure) -> Vec<(u32, f64)> {
        let of_peer = self.samples.iter().filter(|sample| sample.peer == peer);
        of_peer
            .filter_map(|sample| Some((sample.round, figure(sample)?)))
            .collect()
    }

    /// Values of one proxy, one per round.
    pub fn values(&self, peer: &str, figure: Figure) -> Vec<f64> {
        self.by_round(peer, figure)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    }

    /// The first proxy's figure divided by `peer`'s, round by round.
    pub fn ratios(&self, peer: &str, figure: Figure) -> Vec<f64> {
        let peers = self.peers();
        let Some(subject) = peers.first() else {
            return Vec::new();
        };
        ratios(
            &self.by_round(subject, figure),
            &self.by_round(peer, figure),
        )
    }
}

/// Writes everything into `out`, which is made when missing.
pub fn write(results: &Results, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    fs::write(
        out.join("results.json"),
        serde_json::to_vec_pretty(results)?,
    )?;
    let drawn =
        charts::draw(results, out).map_err(|error| io::Error::other(format!("charts: {error}")))?;
    fs::write(out.join("summary.md"), summary(results, &drawn))
}

/// The summary in Markdown; `charts` are the names of the charts beside it.
fn summary(results: &Results, charts: &[String]) -> String {
    let mut text = String::new();
    let machine = &results.machine;
    let subject = results.peers.first().map_or("", |(name, _)| name);
    let _ = writeln!(text, "# {subject} side by side with its peers\n");
    let _ = writeln!(text, "`{}`\n", results.command.join(" "));
    let _ = writeln!(
        text,
        "Linux {}, {}, {} processors, {:.0} GiB, loopback with {} congestion control, pipes of up \
         to {} bytes; proxy on processor {}, load and origin on processor {}; {} rounds of {} s, \
         the proxies in turn.\n",
        machine.kernel,
        machine.processor,
        machine.processors_total,
        machine.memory as f64 / (1u64 << 30) as f64,
        machine.congestion_control,
        machine.pipe_max_bytes,
        results.processors.proxy,
        results.processors.load,
        results.rounds,
        results.seconds,
    );
    for (name, version) in &results.peers {
        let _ = writeln!(text, "- {name}: {version}");
    }
    let _ = writeln!(
        text,
        "\nEvery ratio is {subject} divided by the peer in the same round: the median (smallest to \
         largest). Cost is the processor time of all the proxy's threads per unit of work; below 1 \
         {subject} is cheaper. Throughput above 1 is more.\n"
    );
    if results.slices > 1 {
        let _ = writeln!(
            text,
            "In each round all proxies ran at once, and each window was cut into {} parts that \
             alternated between them: what disturbs one disturbs all alike. There are no \
             latencies, which would hold the turns of the others.\n",
            results.slices
        );
    }
    disturbances(results, &mut text);
    overview(results, &mut text);
    let _ = writeln!(text, "{}", goals::table(results));
    for chart in charts {
        let _ = writeln!(text, "![{chart}]({chart})\n");
    }
    for measured in &results.scenarios {
        details(measured, &mut text);
    }
    text
}

/// What others on the machine did to the figures.
fn disturbances(results: &Results, text: &mut String) {
    let is_repeated = |sample: &&Sample| sample.attempts > 1;
    let repeated = results.windows().filter(is_repeated).count();
    if repeated > 0 {
        let _ = writeln!(
            text,
            "{repeated} of {} windows were measured again, twice at most, because others than the \
             proxy and the load took more than {:.0} % of their time; the quietest counts.\n",
            results.windows().count(),
            100.0 * QUIET_SHARE,
        );
    }
    if let Some(share) = disturbance(results) {
        let _ = writeln!(
            text,
            "**Disturbed:** other processes took up to {:.0} % of a window from the two \
             processors. Do not believe {}.\n",
            100.0 * share,
            if results.slices > 1 {
                "anything but the ratios"
            } else {
                "these figures"
            }
        );
    }
}

/// The largest share of a window that other processes took, if it is above the limit for a quiet window.
fn disturbance(results: &Results) -> Option<f64> {
    let largest = results
        .windows()
        .map(Sample::others_share)
        .max_by(f64::total_cmp)?;
    (largest > QUIET_SHARE).then_some(largest)
}

fn overview(results: &Results, text: &mut String) {
    let peers: Vec<&str> = results
        .peers
        .iter()
        .skip(1)
        .map(|(name, _)| name.as_str())
        .filter(|name| *name != "none")
        .collect();
    let _ = writeln!(text, "| scenario, cost | {} |", peers.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(peers.len()));
    for measured in results
        .scenarios
        .iter()
        .filter(|measured| measured.has_work())
    {
        let cells: Vec<String> = peers
            .iter()
            .map(|peer| ratio_cell(&measured.ratios(peer, cost)))
            .collect();
        if cells.iter().any(|cell| cell != "-") {
            let _ = writeln!(text, "| {} | {} |", measured.title, cells.join(" | "));
        }
    }
    text.push('\n');
}

fn ratio_cell(ratios: &[f64]) -> String {
    match (median(ratios), spread(ratios)) {
        (Some(middle), Some((low, high))) => format!("**{middle:.2}** ({low:.2} to {high:.2})"),
        _ => "-".to_owned(),
    }
}

fn details(measured: &Measured, text: &mut String) {
    let unit = measured.unit.name();
    let _ = writeln!(text, "## {}\n", measured.title);
    let _ = writeln!(
        text,
        "| proxy | processor time per {unit} | cost ratio | throughput | throughput ratio | bulk | \
         bulk ratio | p50, p99, p99.9 (µs) | p99 ratio | resident | load's processor | failures |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|---|");
    for peer in measured.peers() {
        let middle = |figure: Figure| median(&measured.values(peer, figure));
        let show =
            |value: Option<f64>, format: fn(f64) -> String| value.map_or("-".to_owned(), format);
        let latency = [
            middle(|sample| sample.p50.map(|value| value as f64)),
            middle(p99),
            middle(|sample| sample.p999.map(|value| value as f64)),
        ]
        .map(|value| show(value, |value| format!("{value:.0}")));
        let answers = middle(rate);
        let _ = writeln!(
            text,
            "| {peer} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} |",
            show(middle(cost), time),
            ratio_cell(&measured.ratios(peer, cost)),
            show(answers, |answers| format!("{answers:.0}/s")),
            ratio_cell(&measured.ratios(peer, rate)),
            show(middle(bulk), |bytes| format!("{:.2} GB/s", bytes / 1e9)),
            ratio_cell(&measured.ratios(peer, bulk)),
            latency.join(", "),
            ratio_cell(&measured.ratios(peer, p99)),
            show(
                middle(
                    |sample| (sample.memory.resident > 0).then_some(sample.memory.resident as f64)
                ),
                |bytes| format!("{:.1} MiB", bytes / 1_048_576.0)
            ),
            show(middle(|sample| Some(sample.load_share)), |share| format!(
                "{:.0} %",
                100.0 * share
            )),
            measured
                .values(peer, |sample| Some(sample.failures as f64))
                .iter()
                .sum::<f64>(),
        );
    }
    text.push('\n');
    for peer in measured.peers() {
        let middle = |figure: Figure| median(&measured.values(peer, figure));
        if let Some(bytes) = middle(|sample| sample.system_memory_per_connection) {
            let own = middle(|sample| sample.memory_per_connection);
            let own = own.map_or("no process".to_owned(), |own| {
                format!("{own:.0} bytes of process memory")
            });
            let _ = writeln!(
                text,
                "- {peer}: {own} and {bytes:.0} bytes of system memory (both ends of the load \
                 included) per connection"
            );
        }
    }
    for note in &measured.notes {
        let _ = writeln!(text, "- {note}");
    }
    text.push('\n');
}

/// A duration in the unit that suits it.
pub fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 0.1 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{:.2} µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(peer: &str, round: u32, processor: f64) -> Sample {
        Sample {
            peer: peer.to_owned(),
            round,
            window: 1.0,
            units: 8.0,
            answers: 8,
            processor: Some(processor),
            ..Sample::default()
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let measured = Measured {
            name: "x".to_owned(),
            title: "x".to_owned(),
            unit: Unit::Exchange,
            samples: vec![
                sample("a", 1, 1.0),
                sample("b", 1, 2.0),
                sample("a", 2, 3.0),
                sample("b", 2, 2.0),
            ],
            tables: Vec::new(),
            notes: Vec::new(),
        };
        assert_eq!(measured.peers(), ["a", "b"]);
        assert_eq!(measured.ratios("b", cost), [0.5, 1.5]);
        assert_eq!(
            ratio_cell(&measured.ratios("b", cost)),
            "**1.00** (0.50 to 1.50)"
        );
        assert_eq!(ratio_cell(&measured.ratios("c", cost)), "-");
    }

    #[test]
    fn times_in_the_unit_that_suits_them() {
        assert_eq!(time(0.25), "0.25 s");
        assert_eq!(time(0.0025), "2.50 ms");
        assert_eq!(time(61.5e-6), "61.50 µs");
    }
}
