//! Pointsman side by side with its peers, on processors of their own.
//!
//! One window is one proxy under one load ([`measure`]); rounds of windows alternate between the
//! proxies, and only figures of the same round are divided by each other ([`stats`]). The load
//! side is one pinned thread that is client and origin ([`load`]); what is measured is listed in
//! [`scenario`], who takes part in [`peer`], and the results are written by [`report`].

mod calls;
mod charts;
mod goals;
mod hello;
mod load;
mod machine;
mod measure;
mod options;
mod peer;
mod procfs;
mod publish;
mod report;
mod routes;
mod scenario;
mod slices;
mod stats;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use machine::{Machine, Processors};
use measure::{Sample, Window};
use options::{Options, Task};
use peer::Peer;
use scenario::{Scenario, Unit};

/// Length of the windows that count system calls; the counts need no rounds.
const CALLS_WINDOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let done = match Options::from_command_line() {
        Task::Measure(options) => run(&options),
        Task::Publish(run) => {
            let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            publish::publish(&run, repository)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pointsman-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    machine::raise_open_files()?;
    let machine = Machine::read();
    let peers = options.peers()?;
    machine::pin_load(options.processors)?;
    eprintln!(
        "load and origin pinned to processor {}, proxies to processor {} (both read back)",
        options.processors.load, options.processors.proxy
    );
    let mut results = report::Results::new(machine, options, &peers);
    for scenario in &options.scenarios {
        eprintln!("== {}: {}", scenario.name, scenario.title);
        let measured = if scenario.name == scenario::ROUTES {
            measure_routes(scenario, &peers, options)?
        } else {
            measure_scenario(scenario, &peers, options)?
        };
        results.scenarios.push(measured);
        // Written after every scenario, so that a long run that is broken off is not lost.
        report::write(&results, &options.out)?;
    }
    eprintln!("results in {}", options.out.display());
    Ok(())
}

/// All rounds of one scenario.
fn measure_scenario(
    scenario: &Scenario,
    peers: &[(Peer, String)],
    options: &Options,
) -> io::Result<report::Measured> {
    let mut samples = Vec::new();
    let mut notes = Vec::new();
    let mut taking_part: Vec<&Peer> = peers
        .iter()
        .map(|(peer, _)| peer)
        .filter(|peer| peer.takes_part(scenario))
        .collect();
    for round in 1..=options.rounds {
        let window = Window {
            round,
            length: options.window,
            processors: options.processors,
            counts_calls: false,
        };
        if options.slices > 1 {
            let round = slices::round(scenario, &taking_part, window, options.slices)
                .map_err(|error| io::Error::other(format!("{} with {error}", scenario.name)))?;
            for sample in &round {
                eprintln!("{}", line(sample, options.processors));
            }
            samples.extend(round);
            continue;
        }
        for peer in taking_part.clone() {
            let sample = match measure::quiet_window(scenario, peer, window) {
                Ok(sample) => sample,
                // A peer that fails is no reason to lose what the others do.
                Err(error) if !peer.is_pointsman() => {
                    let note = format!("{} failed and is left out: {error}", peer.name());
                    eprintln!("round {round} {note}");
                    samples.retain(|sample: &Sample| sample.peer != peer.name());
                    taking_part.retain(|one| *one != peer);
                    notes.push(note);
                    continue;
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{} with {}: {error}", scenario.name, peer.name()),
                    ));
                }
            };
            eprintln!("{}", line(&sample, options.processors));
            samples.push(sample);
            // Of several builds the first is the one that the report is about.
            if *peer == peers[0].0
                && let Some((plain, name)) = scenario.compared_with()
            {
                let mut sample = measure::quiet_window(&plain, peer, window)?;
                sample.peer = name.to_owned();
                eprintln!("{}", line(&sample, options.processors));
                samples.push(sample);
            }
        }
    }
    let mut measured = report::Measured::new(scenario, samples);
    measured
        .notes
        .extend(count_calls(scenario, &taking_part, options)?);
    measured.notes.extend(notes);
    Ok(measured)
}

/// System calls per unit of work of each proxy, in a window of its own; for scenarios that have
/// such units.
fn count_calls(
    scenario: &Scenario,
    peers: &[&Peer],
    options: &Options,
) -> io::Result<Option<String>> {
    if scenario.unit == Unit::Second || scenario.name == scenario::SEED {
        return Ok(None);
    }
    let mut counts = Vec::new();
    for &peer in peers {
        if *peer == Peer::None {
            continue;
        }
        let window = Window {
            round: 0,
            length: CALLS_WINDOW,
            processors: options.processors,
            counts_calls: true,
        };
        let sample = match measure::window(scenario, peer, window) {
            Ok(sample) => sample,
            Err(error) if !peer.is_pointsman() => {
                counts.push(format!("{} failed: {error}", peer.name()));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(calls) = sample.calls.filter(|_| sample.units > 0.0) {
            counts.push(format!(
                "{} {:.1}",
                peer.name(),
                calls as f64 / sample.units
            ));
        }
    }
    let unit = scenario.unit.name();
    Ok((!counts.is_empty())
        .then(|| format!("system calls per {unit} (strace): {}", counts.join(", "))))
}

/// All rounds of the large tables. The smallest comes first, and the larger ones are compared with it: what
/// they cost more is the cost of a lookup in a larger table.
fn measure_routes(
    scenario: &Scenario,
    peers: &[(Peer, String)],
    options: &Options,
) -> io::Result<report::Measured> {
    let mut measured = report::Measured::new(scenario, Vec::new());
    for round in 1..=options.rounds {
        let window = Window {
            round,
            length: options.window,
            processors: options.processors,
            counts_calls: false,
        };
        for (peer, _) in peers {
            let Peer::Pointsman { name, program } = peer else {
                continue;
            };
            for hosts in routes::SIZES {
                let name = format!("{name}, {hosts} hosts");
                let table = routes::measure(scenario, hosts, program, &name, window)?;
                eprintln!("{}", line(&table.sample, options.processors));
                for note in &table.notes {
                    eprintln!("  {note}");
                }
                measured.samples.push(table.sample);
                measured.tables.push(table.facts);
                measured.notes.extend(table.notes);
            }
        }
    }
    Ok(measured)
}

/// The figures of one window, in one line.
fn line(sample: &Sample, processors: Processors) -> String {
    let cost = sample.cost().map_or("-".to_owned(), report::time);
    let latency = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    format!(
        "round {} {:<15} {:>10}/unit, {:>8.0} answers/s, {:>6.2} GB/s, p50 {} p99 {} µs, processor \
         {} {:.0} %, load {:.0} %, others {:.0} %{}",
        sample.round,
        sample.peer,
        cost,
        sample.answers_per_second(),
        sample.bulk_per_second() / 1e9,
        latency(sample.p50),
        latency(sample.p99),
        processors.proxy,
        100.0 * sample.processor_whole / sample.window,
        100.0 * sample.load_share,
        100.0 * sample.others / sample.window,
        match &sample.first_failure {
            Some(failure) => format!(", {} FAILURES: {failure}", sample.failures),
            None => String::new(),
        },
    )
}
