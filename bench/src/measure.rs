//! One window: a fresh proxy in front of a fresh origin, load on it, and what that cost. Nothing
//! else runs on the proxy's processor, and no port number is used twice.

use crate::load::{Act, LoadSide, Tally};
use crate::machine::{self, Processors};
use crate::peer::Peer;
use crate::procfs::{self, Memory, ProcessorTime};
use crate::scenario::{Scenario, Unit};
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

const GIBIBYTE: f64 = (1u64 << 30) as f64;
/// How long opening a scenario's connections may take.
const OPENING_PATIENCE: Duration = Duration::from_secs(20);
/// Load before the window, for caches, allocators and the proxies' own adaption.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long idle connections settle before their memory is read.
const SETTLING: Duration = Duration::from_millis(500);

/// Which window.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub round: u32,
    pub length: Duration,
    pub processors: Processors,
}

/// What one window measured. Times are seconds, latencies microseconds, memory bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    pub scenario: String,
    pub peer: String,
    pub round: u32,
    pub window: f64,
    /// Units of work done, see the scenario.
    pub units: f64,
    pub answers: u64,
    pub bulk_bytes: u64,
    /// Processor time of all the proxy's threads; `None` without a proxy.
    pub processor: Option<f64>,
    /// Busy time of the proxy's whole processor, interrupts and kernel threads included.
    pub processor_whole: f64,
    /// Time that both processors spent on neither the proxy nor the load.
    pub others: f64,
    /// Share of the window in which the load's processor had work.
    pub load_share: f64,
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub failures: u64,
    pub first_failure: Option<String>,
    pub memory: Memory,
    /// Of idle connections: growth of the proxy's own memory and of the system's per connection.
    pub memory_per_connection: Option<f64>,
    pub system_memory_per_connection: Option<f64>,
    /// Latency by percentile, for the charts.
    pub percentiles: Vec<(f64, u64)>,
}

impl Sample {
    /// Seconds of processor time per unit of work.
    pub fn cost(&self) -> Option<f64> {
        self.processor
            .filter(|_| self.units > 0.0)
            .map(|time| time / self.units)
    }

    pub fn answers_per_second(&self) -> f64 {
        self.answers as f64 / self.window
    }

    pub fn bulk_per_second(&self) -> f64 {
        self.bulk_bytes as f64 / self.window
    }
}

/// Percentiles of the latency charts.
const PERCENTILES: [f64; 9] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// Meters that are read at both ends of a window.
struct Meters {
    at: Instant,
    proxy: ProcessorTime,
    whole: Duration,
    load: ProcessorTime,
    load_whole: Duration,
}

impl Meters {
    fn read(tree: &[u32], processors: Processors) -> io::Result<Meters> {
        Ok(Meters {
            at: Instant::now(),
            proxy: ProcessorTime::of(tree)?,
            whole: procfs::processor_busy(processors.proxy)?,
            load: ProcessorTime::of(&[std::process::id()])?,
            load_whole: procfs::processor_busy(processors.load)?,
        })
    }
}

/// Measures one window of a scenario with `peer` in between.
///
/// # Errors
/// When the proxy does not start or is not pinned, or the load does not come about.
pub fn window(scenario: &Scenario, peer: &Peer, window: Window) -> io::Result<Sample> {
    let mut load = LoadSide::new(scenario.connections())?;
    let running = peer.start(scenario.listening, window.processors, &load)?;
    load.hold_bulk(scenario.bulk_rate);
    for (service, group) in &scenario.groups {
        load.add(group.clone(), running.target(*service, &load));
    }
    let tree = running.tree();
    let idle = scenario
        .groups
        .iter()
        .all(|(_, group)| group.act == Act::Hold);
    let memory_before = Memory::of(tree)?;
    let available_before = procfs::memory_available()?;
    load.open(OPENING_PATIENCE)?;
    load.run(if idle { SETTLING } else { WARM_UP })?;
    load.reset();

    let begin = Meters::read(tree, window.processors)?;
    load.run(window.length)?;
    let end = Meters::read(tree, window.processors)?;
    let mut sample = sample(scenario, peer, &mut load, window.round, &begin, &end);
    if !tree.is_empty() {
        machine::check_proxy_pinned(tree, window.processors)?;
        sample.memory = Memory::of(tree)?;
    } else {
        sample.processor = None;
    }
    if idle {
        let connections = scenario.connections() as f64;
        let grown = sample.memory.proportional as f64 - memory_before.proportional as f64;
        let taken = available_before as f64 - procfs::memory_available()? as f64;
        sample.memory_per_connection = (!tree.is_empty()).then_some(grown / connections);
        sample.system_memory_per_connection = Some(taken / connections);
    }
    Ok(sample)
}

fn sample(
    scenario: &Scenario,
    peer: &Peer,
    load: &mut LoadSide,
    round: u32,
    begin: &Meters,
    end: &Meters,
) -> Sample {
    let elapsed = end.at - begin.at;
    let polling = load.polling();
    let first_failure = load.first_failure();
    let tallies = load.tallies();
    let answers: u64 = tallies.iter().map(|tally| tally.answers).sum();
    let bulk_bytes: u64 = tallies.iter().map(|tally| tally.bytes).sum();
    let failures = tallies.iter().map(|tally| tally.failures).sum();
    let answered: Option<&&Tally> = tallies.iter().find(|tally| tally.answers > 0);
    let at = |percentile| answered.map(|tally| tally.latency.value_at_percentile(percentile));
    // A loop that spins is always running; one that blocks is running when it is not waiting. The
    // smaller figure is the one that means work in both cases.
    let running = end.load.since(&begin.load).as_secs_f64();
    let proxy = end.proxy.since(&begin.proxy).as_secs_f64();
    let whole = (end.whole - begin.whole).as_secs_f64();
    let both = whole + (end.load_whole - begin.load_whole).as_secs_f64();
    let not_polling = elapsed.saturating_sub(polling).as_secs_f64();
    Sample {
        scenario: scenario.name.to_owned(),
        peer: peer.name().to_owned(),
        round,
        window: elapsed.as_secs_f64(),
        units: match scenario.unit {
            Unit::Connection | Unit::Exchange | Unit::Request => answers as f64,
            Unit::Gibibyte => bulk_bytes as f64 / GIBIBYTE,
            Unit::Second => elapsed.as_secs_f64(),
        },
        answers,
        bulk_bytes,
        processor: Some(proxy),
        processor_whole: whole,
        others: (both - proxy - running).max(0.0),
        load_share: running.min(not_polling) / elapsed.as_secs_f64(),
        p50: at(50.0),
        p99: at(99.0),
        p999: at(99.9),
        failures,
        first_failure,
        percentiles: PERCENTILES
            .iter()
            .filter_map(|one| Some((*one, at(*one)?)))
            .collect(),
        ..Sample::default()
    }
}
