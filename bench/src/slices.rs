//! A round in which all proxies run at once and the load changes from one to the next every few milliseconds.
//! So other virtual machines on the same host, and changes of the processor's clock, affect all proxies
//! alike. Only costs can be measured so; latencies would include the turns of the other proxies.

use std::io;
use std::time::Duration;

use crate::load::{Act, Group, LoadSide};
use crate::measure::{self, Meters, Sample, Spent, WARM_UP, Window};
use crate::peer::{Peer, Running};
use crate::scenario::{ROUTES, Scenario};

/// A proxy with its load.
struct Lane<'a> {
    name: &'a str,
    scenario: Scenario,
    running: Running,
    load: LoadSide,
    tree: Vec<u32>,
    spent: Spent,
}

/// Why a scenario cannot be measured in slices; `None` if it can.
pub fn obstacle(scenario: &Scenario) -> Option<&'static str> {
    let any = |is: fn(&Group) -> bool| scenario.groups.iter().any(|(_, group)| is(group));
    let is_clocked = |group: &Group| group.rate.is_some() || group.answers_max.is_some();
    if scenario.name == ROUTES || any(|group| group.act == Act::Hold) {
        Some("it measures memory or a table, not the cost of work")
    } else if scenario.bulk_rate.is_some() || any(is_clocked) {
        Some("its load goes by the clock and would catch up after each pause")
    } else {
        None
    }
}

/// A sample of each of `peers`, each under load for the length of the window in `slices` parts; the
/// first also under the load that its own is compared with.
///
/// # Errors
/// When one of them does not start, or is not pinned, or its load does not come about.
pub fn round(
    scenario: &Scenario,
    peers: &[&Peer],
    window: Window,
    slices: u32,
) -> io::Result<Vec<Sample>> {
    let mut lanes = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        lanes.push(Lane::start(scenario, peer, peer.name(), window)?);
        if let Some((plain, name)) = scenario.compared_with().filter(|_| index == 0) {
            lanes.push(Lane::start(&plain, peer, name, window)?);
        }
    }
    let begun: Vec<Meters> = meters(&lanes, window)?;
    for slice in 0..slices {
        // The order changes, so that no proxy always follows the same other one.
        let mut order: Vec<&mut Lane> = lanes.iter_mut().collect();
        if slice % 2 == 1 {
            order.reverse();
        }
        for lane in order {
            lane.run(window, window.length / slices)?;
        }
    }
    let ended = meters(&lanes, window)?;
    let mut samples = Vec::new();
    for (lane, (begun, ended)) in lanes.iter_mut().zip(begun.iter().zip(&ended)) {
        // Work that was under way when the slice of a proxy ended is done in the next one, and is counted
        // as its.
        lane.spent.proxy = begun.until(ended).proxy;
        samples.push(lane.sample(window)?);
    }
    Ok(samples)
}

fn meters(lanes: &[Lane], window: Window) -> io::Result<Vec<Meters>> {
    lanes
        .iter()
        .map(|lane| Meters::read(&lane.tree, window.processors))
        .collect()
}

impl<'a> Lane<'a> {
    fn start(
        scenario: &Scenario,
        peer: &Peer,
        name: &'a str,
        window: Window,
    ) -> io::Result<Lane<'a>> {
        let (running, load) = measure::start(scenario, peer, window.processors)
            .map_err(|error| named(name, &error))?;
        let mut lane = Lane {
            name,
            scenario: scenario.clone(),
            tree: measure::tree(running.root())?,
            running,
            load,
            spent: Spent::default(),
        };
        lane.work(|load| measure::open(load, WARM_UP))?;
        Ok(lane)
    }

    fn run(&mut self, window: Window, length: Duration) -> io::Result<()> {
        let begin = Meters::read(&self.tree, window.processors)?;
        self.work(|load| load.run(length))?;
        let end = Meters::read(&self.tree, window.processors)?;
        self.spent += begin.until(&end);
        Ok(())
    }

    fn work(&mut self, work: impl FnOnce(&mut LoadSide) -> io::Result<()>) -> io::Result<()> {
        work(&mut self.load).map_err(|error| named(self.name, &error))
    }

    fn sample(&mut self, window: Window) -> io::Result<Sample> {
        self.running.check_pinned(window.processors)?;
        let (load, round) = (&mut self.load, window.round);
        let mut sample = measure::sample(&self.scenario, self.name, load, round, self.spent);
        sample
            .check_came_through()
            .map_err(|error| named(self.name, &error))?;
        if self.running.root().is_none() {
            sample.processor = None;
        }
        (sample.p50, sample.p99, sample.p999) = (None, None, None);
        sample.percentiles.clear();
        Ok(sample)
    }
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Processors;

    #[test]
    fn everybody_is_under_load_for_a_window_and_one_at_a_time() {
        let all = crate::scenario::all();
        let scenario = all.iter().find(|scenario| scenario.name == "connect");
        let window = Window {
            round: 1,
            length: Duration::from_millis(200),
            processors: Processors { proxy: 0, load: 0 },
            counts_calls: false,
        };
        let began = std::time::Instant::now();
        let scenario = scenario.expect("it is one of all");
        let samples = round(scenario, &[&Peer::None, &Peer::None], window, 4);
        let took = began.elapsed();
        let samples = samples.expect("no proxy can fail");
        assert!(took > 2 * (WARM_UP + window.length), "{took:?}");
        assert_eq!(samples.len(), 2);
        for sample in &samples {
            assert!(sample.answers > 0 && sample.failures == 0, "{sample:?}");
            assert!((0.2..1.0).contains(&sample.window), "{sample:?}");
            assert_eq!((sample.cost(), sample.p99), (None, None));
        }
    }
}
