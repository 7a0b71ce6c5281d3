//! One round with every proxy running at once and the load going from one to the next every few
//! milliseconds, so that what a neighbour on the same machine does, or a clock that changes its
//! speed, meets all of them alike. For costs only: latencies would hold the turns of the others.

use crate::load::{Act, Group, LoadSide};
use crate::measure::{self, Meters, OPENING_PATIENCE, Sample, Spent, WARM_UP, Window};
use crate::peer::{Peer, Running};
use crate::scenario::{ROUTES, Scenario};
use std::io;
use std::time::Duration;

/// A proxy with its load.
struct Lane<'a> {
    peer: &'a Peer,
    running: Running,
    load: LoadSide,
    tree: Vec<u32>,
    spent: Spent,
}

/// Why a scenario cannot be measured so; `None` where it can.
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

/// A sample of each of `peers`, each under load for the length of the window in `slices` parts.
///
/// # Errors
/// When one of them does not start, or is not pinned, or its load does not come about.
pub fn round(
    scenario: &Scenario,
    peers: &[&Peer],
    window: Window,
    slices: u32,
) -> io::Result<Vec<Sample>> {
    let mut lanes = peers
        .iter()
        .map(|peer| Lane::start(scenario, peer, window).map_err(|error| named(peer, error)))
        .collect::<io::Result<Vec<Lane>>>()?;
    let begun: Vec<Meters> = meters(&lanes, window)?;
    for slice in 0..slices {
        // Nobody always comes behind the same other.
        let mut order: Vec<&mut Lane> = lanes.iter_mut().collect();
        if slice % 2 == 1 {
            order.reverse();
        }
        for lane in order {
            lane.run(window, window.length / slices)
                .map_err(|error| named(lane.peer, error))?;
        }
    }
    let ended = meters(&lanes, window)?;
    let mut samples = Vec::new();
    for (lane, (begun, ended)) in lanes.iter_mut().zip(begun.iter().zip(&ended)) {
        // What was under way when its slice ended is done in the next one's, and is its own work.
        lane.spent.proxy = begun.until(ended).proxy;
        let sample = lane.sample(scenario, window);
        samples.push(sample.map_err(|error| named(lane.peer, error))?);
    }
    Ok(samples)
}

fn meters(lanes: &[Lane], window: Window) -> io::Result<Vec<Meters>> {
    lanes
        .iter()
        .map(|lane| Meters::read(&lane.tree, window.processors))
        .collect()
}

fn named(peer: &Peer, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", peer.name()))
}

impl<'a> Lane<'a> {
    fn start(scenario: &Scenario, peer: &'a Peer, window: Window) -> io::Result<Lane<'a>> {
        let (running, mut load) = measure::start(scenario, peer, window.processors)?;
        load.open(OPENING_PATIENCE)?;
        load.run(WARM_UP)?;
        load.reset();
        Ok(Lane {
            peer,
            tree: measure::tree(running.root())?,
            running,
            load,
            spent: Spent::default(),
        })
    }

    fn run(&mut self, window: Window, length: Duration) -> io::Result<()> {
        let begin = Meters::read(&self.tree, window.processors)?;
        self.load.run(length)?;
        let end = Meters::read(&self.tree, window.processors)?;
        self.spent += begin.until(&end);
        Ok(())
    }

    fn sample(&mut self, scenario: &Scenario, window: Window) -> io::Result<Sample> {
        self.running.check_pinned(window.processors)?;
        let name = self.peer.name();
        let mut sample = measure::sample(scenario, name, &mut self.load, window.round, self.spent);
        if sample.answers == 0 && sample.bulk_bytes == 0 {
            return Err(io::Error::other("not a byte came through"));
        }
        if self.running.root().is_none() {
            sample.processor = None;
        }
        (sample.p50, sample.p99, sample.p999) = (None, None, None);
        sample.percentiles.clear();
        Ok(sample)
    }
}
