//! The command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{io, process};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::machine::Processors;
use crate::peer::Peer;
use crate::scenario::{self, Scenario};
use crate::slices;

/// What is to be measured.
#[derive(Debug)]
pub struct Options {
    pub scenarios: Vec<Scenario>,
    pub rounds: u32,
    pub window: Duration,
    /// Parts of a window that alternate between the proxies; 1: a window at a time.
    pub slices: u32,
    pub processors: Processors,
    pub out: PathBuf,
    peers: Vec<String>,
    pointsman: Vec<(String, PathBuf)>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    Measure(Options),
    /// Write the costs of this run into the pages that show them.
    Publish(String),
}

const SETS: [(&str, &[&str]); 1] = [("core", &["connect", "exchange-64", "down-1"])];

impl Options {
    /// Parses the command line. Ends the process if it has an error, as clap does.
    pub fn from_command_line() -> Task {
        let mut command = command();
        let matches = command.get_matches_mut();
        if let Some(run) = matches.get_one::<String>("publish") {
            return Task::Publish(run.trim_end_matches('/').to_owned());
        }
        match Options::from_matches(&matches) {
            Ok(options) => Task::Measure(options),
            Err(error) => command
                .error(clap::error::ErrorKind::InvalidValue, error)
                .exit(),
        }
    }

    fn from_matches(matches: &ArgMatches) -> Result<Options, String> {
        let names: Vec<&String> = matches.get_many("scenario").into_iter().flatten().collect();
        let processor = |name: &str| *matches.get_one::<usize>(name).expect("it has a default");
        let seconds = *matches.get_one::<f64>("seconds").expect("it has a default");
        let window =
            Duration::try_from_secs_f64(seconds).map_err(|error| format!("--seconds: {error}"))?;
        if window < Duration::from_millis(100) {
            return Err("--seconds: a window below 0.1 s measures nothing".to_owned());
        }
        let slices = *matches.get_one::<u32>("slices").expect("it has a default");
        let scenarios = choose_scenarios(&names)?;
        if slices > 1 {
            if window / slices < Duration::from_millis(10) {
                return Err("--slices: parts below 10 ms measure nothing".to_owned());
            }
            for scenario in &scenarios {
                if let Some(why) = slices::obstacle(scenario) {
                    return Err(format!("--slices: {} cannot be cut: {why}", scenario.name));
                }
            }
        }
        Ok(Options {
            scenarios,
            slices,
            rounds: *matches.get_one("rounds").expect("it has a default"),
            window,
            processors: Processors {
                proxy: processor("proxy-processor"),
                load: processor("load-processor"),
            },
            out: matches
                .get_one::<PathBuf>("out")
                .cloned()
                .unwrap_or_else(default_out),
            peers: matches
                .get_many("peers")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            pointsman: pointsman_builds(matches.get_many("pointsman").into_iter().flatten()),
        })
    }

    /// The proxies that take part, with their versions, pointsman first. A proxy that is not installed is
    /// left out with a message.
    pub fn peers(&self) -> io::Result<Vec<(Peer, String)>> {
        let mut chosen = Vec::new();
        let builds = if self.pointsman.is_empty() {
            vec![("pointsman".to_owned(), build_pointsman()?)]
        } else {
            self.pointsman.clone()
        };
        for name in &self.peers {
            match Peer::parse(name) {
                Some(peer) => chosen.push(peer),
                None if name == "pointsman" => chosen.extend(
                    builds
                        .iter()
                        .cloned()
                        .map(|(name, program)| Peer::Pointsman { name, program }),
                ),
                None => {
                    return Err(io::Error::other(format!(
                        "--peers: {name} is none of pointsman, haproxy, haproxy-splice, \
                         haproxy-pipes, nginx, sniproxy, none"
                    )));
                }
            }
        }
        let mut present = Vec::new();
        for peer in chosen {
            match peer.version() {
                Ok(version) => present.push((peer, version)),
                Err(why) if matches!(peer, Peer::Pointsman { .. }) => {
                    return Err(io::Error::other(why));
                }
                Err(why) => eprintln!("without {}: {why}", peer.name()),
            }
        }
        Ok(present)
    }
}

fn command() -> Command {
    let option = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    Command::new("pointsman-bench")
        .about("Measures pointsman side by side with its peers on processors of their own")
        .arg(
            Arg::new("scenario")
                .help("Scenarios by name, `core`, or `all`; `list` shows them")
                .num_args(1..)
                .required_unless_present("publish"),
        )
        .arg(
            option(
                "publish",
                "Puts the costs of this run, a directory like \
            bench/runs/2026-11-26T103916-vm, into README.md and docs/benchmark.md",
            )
            .conflicts_with("scenario"),
        )
        .arg(
            option("rounds", "Rounds of one window for every proxy")
                .default_value("5")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            option("seconds", "Length of a window")
                .default_value("3")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            option(
                "slices",
                "Cuts each window into parts that alternate between the proxies, all \
                of which run at once: costs that a shared host disturbs alike, no latencies",
            )
            .default_value("1")
            .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            option(
                "peers",
                "Proxies in the order of their windows within a round",
            )
            .default_value("pointsman,haproxy,haproxy-splice,haproxy-pipes,nginx,sniproxy,none")
            .value_delimiter(','),
        )
        .arg(
            option(
                "pointsman",
                "A built pointsman, PATH or NAME=PATH; given twice, the first is \
                compared with the second; built here when absent",
            )
            .action(ArgAction::Append),
        )
        .arg(
            option("proxy-processor", "Processor of the proxies")
                .default_value("0")
                .value_parser(value_parser!(usize)),
        )
        .arg(
            option("load-processor", "Processor of load and origin")
                .default_value("1")
                .value_parser(value_parser!(usize)),
        )
        .arg(
            option(
                "out",
                "Directory of the results [default: bench/runs/<date>-<host>]",
            )
            .value_parser(value_parser!(PathBuf)),
        )
}

fn choose_scenarios(names: &[&String]) -> Result<Vec<Scenario>, String> {
    let all = scenario::all();
    let mut chosen = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => chosen.extend(all.clone()),
            "list" => {
                for scenario in &all {
                    println!("{:<15} {}", scenario.name, scenario.title);
                }
                process::exit(0);
            }
            name => {
                let set = SETS
                    .iter()
                    .find(|(set, _)| *set == name)
                    .map(|(_, members)| *members);
                for member in set.unwrap_or(&[name]) {
                    let found = all.iter().find(|scenario| scenario.name == *member);
                    chosen.push(found.cloned().ok_or_else(|| {
                        format!(
                            "there is no scenario {member:?}; `pointsman-bench list` shows them"
                        )
                    })?);
                }
            }
        }
    }
    Ok(chosen)
}

/// Names without one are `pointsman`, `pointsman-2`, …
fn pointsman_builds<'a>(given: impl Iterator<Item = &'a String>) -> Vec<(String, PathBuf)> {
    given
        .enumerate()
        .map(|(index, text)| match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
            None if index == 0 => ("pointsman".to_owned(), PathBuf::from(text)),
            None => (format!("pointsman-{}", index + 1), PathBuf::from(text)),
        })
        .collect()
}

/// Builds pointsman beside this program and with the same profile.
fn build_pointsman() -> io::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.with_file_name("pointsman");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = process::Command::new(cargo);
    command.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "pointsman",
        "--bin",
        "pointsman",
    ]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !command.status()?.success() || !program.exists() {
        return Err(io::Error::other(format!(
            "pointsman could not be built as {}; name a build with --pointsman",
            program.display()
        )));
    }
    Ok(program)
}

/// `bench/runs/<date>-<host>` in this repository.
fn default_out() -> PathBuf {
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/runs")).join(format!(
        "{}-{}",
        date.replace(':', "").trim_end_matches('Z'),
        host.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let matches = command()
            .try_get_matches_from(line.split(' '))
            .map_err(|error| error.to_string())?;
        Options::from_matches(&matches)
    }

    #[test]
    fn scenarios_are_chosen_by_name_and_set() {
        let names = |line| -> Vec<&'static str> {
            let options: Options = parse(line).expect("it parses");
            options
                .scenarios
                .iter()
                .map(|scenario| scenario.name)
                .collect()
        };
        assert_eq!(names("bench core"), ["connect", "exchange-64", "down-1"]);
        assert_eq!(names("bench idle up-8"), ["idle", "up-8"]);
        assert_eq!(names("bench all").len(), scenario::all().len());
        assert!(parse("bench fast").is_err_and(|error| error.contains("no scenario")));
        assert!(parse("bench core --seconds 0").is_err());
        assert!(parse("bench core --rounds 0").is_err());
        assert!(parse("bench core --slices 20").is_ok());
        assert!(parse("bench core --seconds 1 --slices 101").is_err());
        for uncut in ["idle", "routes", "seed", "mixed-held", "exchange-open"] {
            let refused = parse(&format!("bench {uncut} --slices 2"));
            assert!(refused.is_err_and(|error| error.contains(uncut)), "{uncut}");
        }
    }

    #[test]
    fn builds_have_names() {
        let options =
            parse("bench core --pointsman a/b --pointsman old=c --pointsman d").expect("it parses");
        let builds: Vec<(&str, &str)> = options
            .pointsman
            .iter()
            .map(|(name, path)| (name.as_str(), path.to_str().expect("it is text")))
            .collect();
        assert_eq!(
            builds,
            [("pointsman", "a/b"), ("old", "c"), ("pointsman-3", "d")]
        );
    }
}
