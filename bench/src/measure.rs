//! One window: a new proxy in front of a new origin under load, and what that costs. Nothing else runs on the
//! proxy's processor, and no port is used twice.

use std::io;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::calls::Counter;
use crate::load::{Act, LoadSide, Tally};
use crate::machine::{self, Processors};
use crate::peer::{Peer, Running};
use crate::procfs::{self, Memory, ProcessorTime};
use crate::scenario::{Scenario, Unit};

const GIBIBYTE: f64 = (1u64 << 30) as f64;
/// How long opening a scenario's connections may take.
const OPENING_PATIENCE: Duration = Duration::from_secs(20);
/// Load before the window, in which caches and allocators fill and the proxies adapt.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// How long a fixed number of requests may take.
const FIXED_PATIENCE: Duration = Duration::from_secs(60);
/// Largest share of a window that interrupts and other processes may take.
pub const QUIET_SHARE: f64 = 0.10;
/// How often a window is measured again if others took more than that; then the quietest counts.
const ATTEMPTS_MAX: u32 = 3;
/// How long idle connections settle before their memory is read.
const SETTLING: Duration = Duration::from_millis(500);

/// Which window is measured, and how.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub round: u32,
    pub length: Duration,
    pub processors: Processors,
    /// Count system calls instead of measuring times.
    pub counts_calls: bool,
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
    /// How often the window was measured, see [`quiet_window`].
    pub attempts: u32,
    /// Share of the window in which the load's processor had work.
    pub load_share: f64,
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub failures: u64,
    pub first_failure: Option<String>,
    /// System calls of all the proxy's threads, in a window that counts them.
    pub calls: Option<u64>,
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

    pub fn others_share(&self) -> f64 {
        self.others / self.window
    }

    /// # Errors
    /// When nothing came through: such a window measures nothing.
    pub fn check_came_through(&self) -> io::Result<()> {
        if self.answers > 0 || self.bulk_bytes > 0 {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "not a byte came through, {} connections failed; the first: {:?}",
            self.failures, self.first_failure
        )))
    }
}

/// Percentiles of the latency charts.
const PERCENTILES: [f64; 9] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// Meters that are read at both ends of a window.
pub struct Meters {
    at: Instant,
    proxy: ProcessorTime,
    whole: Duration,
    load: ProcessorTime,
    load_whole: Duration,
}

impl Meters {
    /// With the processor time of these processes as the proxy's.
    pub fn read(proxy: &[u32], processors: Processors) -> io::Result<Meters> {
        Ok(Meters {
            at: Instant::now(),
            proxy: ProcessorTime::of(proxy)?,
            whole: procfs::processor_busy(processors.proxy)?,
            load: ProcessorTime::of(&[std::process::id()])?,
            load_whole: procfs::processor_busy(processors.load)?,
        })
    }

    /// What was spent from `self` to `end`.
    pub fn until(&self, end: &Meters) -> Spent {
        Spent {
            elapsed: end.at - self.at,
            proxy: end.proxy.since(&self.proxy),
            whole: end.whole - self.whole,
            load: end.load.since(&self.load),
            load_whole: end.load_whole - self.load_whole,
        }
    }
}

/// Time, and processor time of the proxy, of its processor, of the load and of its processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    elapsed: Duration,
    pub proxy: Duration,
    whole: Duration,
    load: Duration,
    load_whole: Duration,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.elapsed += more.elapsed;
        self.proxy += more.proxy;
        self.whole += more.whole;
        self.load += more.load;
        self.load_whole += more.load_whole;
    }
}

/// As [`window`], but measured again if other processes took too much processor time. This holds for every
/// proxy alike.
///
/// # Errors
/// Those of [`window`].
pub fn quiet_window(scenario: &Scenario, peer: &Peer, which: Window) -> io::Result<Sample> {
    quietest(|| window(scenario, peer, which))
}

fn quietest(mut measure: impl FnMut() -> io::Result<Sample>) -> io::Result<Sample> {
    let mut quietest = measure()?;
    let mut attempts = 1;
    while quietest.others_share() > QUIET_SHARE && attempts < ATTEMPTS_MAX {
        let again = measure()?;
        attempts += 1;
        if again.others_share() < quietest.others_share() {
            quietest = again;
        }
    }
    quietest.attempts = attempts;
    Ok(quietest)
}

/// Measures one window of a scenario with `peer` in between.
///
/// # Errors
/// When the proxy does not start or is not pinned, or the load does not come about.
pub fn window(scenario: &Scenario, peer: &Peer, window: Window) -> io::Result<Sample> {
    let (running, mut load) = start(scenario, peer, window.processors)?;
    loaded(scenario, &mut load, running.root(), peer.name(), window)
}

/// Starts `peer` in front of an origin of its own and adds the clients.
///
/// # Errors
/// As [`window`].
pub fn start(
    scenario: &Scenario,
    peer: &Peer,
    processors: Processors,
) -> io::Result<(Running, LoadSide)> {
    let mut load = LoadSide::new(scenario.connections())?;
    let running = peer.start(scenario.listening, processors, &load)?;
    load.hold_bulk(scenario.bulk_rate);
    for (index, (service, group)) in scenario.groups.iter().enumerate() {
        if index > 0 && group.act == Act::Hold {
            // The memory that the first connections cost once is not part of the cost of each.
            load.open(OPENING_PATIENCE)?;
        }
        load.add(group.clone(), running.target(*service, &load));
    }
    Ok((running, load))
}

/// Opens the connections and runs the load for the time that is not measured.
///
/// # Errors
/// When the connections do not open.
pub fn open(load: &mut LoadSide, uncounted: Duration) -> io::Result<()> {
    load.open(OPENING_PATIENCE)?;
    load.run(uncounted)?;
    load.reset();
    Ok(())
}

/// As [`window`], with the proxy of these processes running and the clients added.
pub fn loaded(
    scenario: &Scenario,
    load: &mut LoadSide,
    root: Option<u32>,
    name: &str,
    window: Window,
) -> io::Result<Sample> {
    let idle = scenario
        .groups
        .iter()
        .all(|(_, group)| group.act == Act::Hold);
    let memory_before = Memory::of(&tree(root)?)?;
    let available_before = procfs::memory_available()?;
    // A fixed number of requests is measured from the first connection on.
    let fixed = scenario
        .groups
        .iter()
        .any(|(_, group)| group.answers_max.is_some());
    if !fixed {
        open(load, if idle { SETTLING } else { WARM_UP })?;
    }

    let counter = if window.counts_calls {
        Counter::attach(&tree(root)?)?
    } else {
        None
    };
    let begin = Meters::read(&tree(root)?, window.processors)?;
    if fixed {
        load.begin()?;
        load.run(FIXED_PATIENCE)?;
    } else {
        load.run(window.length)?;
    }
    let spent = begin.until(&Meters::read(&tree(root)?, window.processors)?);
    let mut sample = sample(scenario, name, load, window.round, spent);
    if !idle {
        sample.check_came_through()?;
    }
    sample.calls = counter.map(Counter::finish).transpose()?.flatten();
    if root.is_some() {
        let tree = tree(root)?;
        machine::check_proxy_pinned(&tree, window.processors)?;
        sample.memory = Memory::of(&tree)?;
        if sample.units > 0.0 && !idle && sample.processor == Some(0.0) {
            return Err(io::Error::other(format!(
                "the proxy did {} units of work in no processor time; not all of its processes \
                 {tree:?} are known",
                sample.units
            )));
        }
    } else {
        sample.processor = None;
    }
    if idle {
        let (_, counted) = scenario.groups.last().expect("a scenario has a group");
        let connections = counted.connections as f64;
        let grown = sample.memory.proportional as f64 - memory_before.proportional as f64;
        let taken = available_before as f64 - procfs::memory_available()? as f64;
        sample.memory_per_connection = root.is_some().then_some(grown / connections);
        sample.system_memory_per_connection = Some(taken / connections);
    }
    Ok(sample)
}

/// The proxy's processes at this moment. A worker may start after its master has begun to listen.
pub fn tree(root: Option<u32>) -> io::Result<Vec<u32>> {
    root.map_or(Ok(Vec::new()), procfs::process_tree)
}

/// The figures of a window, from what was spent in it and from the tallies of the load.
pub fn sample(
    scenario: &Scenario,
    name: &str,
    load: &mut LoadSide,
    round: u32,
    spent: Spent,
) -> Sample {
    let elapsed = spent.elapsed;
    let polling = load.polling();
    let first_failure = load.first_failure();
    let tallies = load.tallies();
    let answers: u64 = tallies.iter().map(|tally| tally.answers).sum();
    let bulk_bytes: u64 = tallies.iter().map(|tally| tally.bytes).sum();
    let failures = tallies.iter().map(|tally| tally.failures).sum();
    let latency = tallies.iter().fold(Tally::no_latency(), |mut all, tally| {
        all += &tally.latency;
        all
    });
    let at = |percentile| (answers > 0).then(|| latency.value_at_percentile(percentile));
    // A loop that spins is always running; one that blocks is running when it is not waiting. The
    // smaller figure is the one that means work in both cases.
    let running = spent.load.as_secs_f64();
    let proxy = spent.proxy.as_secs_f64();
    let whole = spent.whole.as_secs_f64();
    let both = whole + spent.load_whole.as_secs_f64();
    let not_polling = elapsed.saturating_sub(polling).as_secs_f64();
    Sample {
        scenario: scenario.name.to_owned(),
        peer: name.to_owned(),
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
        attempts: 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept, as (share of others, attempts), of windows with these shares.
    fn kept(shares: &[f64]) -> (f64, u32) {
        let mut shares = shares.iter();
        let sample = quietest(|| {
            Ok(Sample {
                window: 2.0,
                others: 2.0 * shares.next().expect("no further attempt"),
                ..Sample::default()
            })
        });
        let sample = sample.expect("none fails");
        (sample.others_share(), sample.attempts)
    }

    #[test]
    fn a_disturbed_window_is_measured_again_and_the_quietest_counts() {
        assert_eq!(kept(&[0.05]), (0.05, 1));
        assert_eq!(kept(&[0.5, 0.05]), (0.05, 2));
        assert_eq!(kept(&[0.5, 0.25, 0.375]), (0.25, 3));
    }
}
