//! `pointsman check`: what would keep this configuration from running well on this machine, one
//! line per item with cause and remedy. Reads, asks and tries; changes and binds nothing.

mod machine;
mod routing;
mod source;
mod trials;

use std::fmt;
use std::path::Path;

use crate::config::{Config, ConfigError, KernelVersion};
use crate::protect::BackendPolicy;
use crate::route::Member;
use crate::sync::SyncConfig;
use machine::Proc;
use routing::{Routing, Run};
use source::Wanted;

/// How one item came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Runs, but not as well as it could or not for long.
    Warn,
    /// Does not run.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

impl Item {
    fn ok(name: &'static str, found: impl Into<String>) -> Item {
        Item {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Item {
        Item {
            verdict: Verdict::Warn,
            remedy: remedy.into(),
            ..Item::ok(name, found)
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Item {
        Item {
            verdict: Verdict::Fail,
            remedy: remedy.into(),
            ..Item::ok(name, found)
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(out, "{verdict:<5} {:<14} {}", self.name, self.found)?;
        if !self.remedy.is_empty() {
            write!(out, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All items. Prints one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub items: Vec<Item>,
}

impl Report {
    /// The report about a configuration that never came to be.
    pub fn of_refused(error: &ConfigError) -> Report {
        let found = format!("{}: {}", error.place, error.problem);
        Report {
            items: vec![Item::fail("configuration", found, error.remedy.clone())],
        }
    }

    /// 1 when any item failed.
    pub fn exit_code(&self) -> u8 {
        let failed = |item: &Item| item.verdict == Verdict::Fail;
        self.items.iter().any(failed).into()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items
            .iter()
            .try_for_each(|item| writeln!(out, "{item}"))
    }
}

type RoutesFile = dyn Fn(&Path, &BackendPolicy, &mut Wanted) -> Result<String, String>;

/// What is tried out. `Ok` says what was found, `Err` cause and remedy in one text. Those that read
/// routes note which foreign sources the routes want.
struct Trials<'a> {
    ring: &'a dyn Fn(Option<KernelVersion>) -> Result<String, String>,
    redis: &'a dyn Fn(&SyncConfig, &mut Wanted) -> Result<String, String>,
    routes_file: &'a RoutesFile,
    run: &'a Run<'a>,
}

/// Checks everything; takes up to ten seconds when Redis does not answer.
pub fn check(config: &Config) -> Report {
    let trials = Trials {
        ring: &trials::ring,
        redis: &trials::redis,
        routes_file: &trials::routes_file,
        run: &trials::run,
    };
    check_below(Path::new("/"), config, &trials)
}

/// `root` is where `/proc` is, so that tests can show another machine.
fn check_below(root: &Path, config: &Config, trials: &Trials<'_>) -> Report {
    let machine = Proc::new(root);
    let mut items = vec![
        Item::ok(
            "configuration",
            format!(
                "{} listeners, cores {:?}",
                config.listeners.len(),
                config.cores
            ),
        ),
        machine.kernel(),
        trial("io_uring", (trials.ring)(config.kernel_mask)),
        machine.seccomp(),
        machine.open_files(),
        machine.locked_memory(config),
        machine.backlog(config),
        machine.pipes(config),
        machine.ports(config),
        machine.local_ports(config),
        machine.ipv6(config),
    ];
    let mut wanted = Wanted::default();
    for (_, member) in &config.sync.static_routes {
        if let Ok(member) = Member::parse(member) {
            wanted.add(&member);
        }
    }
    if let Some(path) = &config.latency_dir {
        items.push(directory("latency-dir", path));
    }
    if let Some(path) = &config.sync.snapshot {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        items.push(directory("snapshot", parent.unwrap_or(Path::new("."))));
    }
    if let Some(path) = &config.sync.routes_file {
        items.push(trial(
            "routes",
            (trials.routes_file)(path, &config.sync.backend_policy, &mut wanted),
        ));
    }
    if config.sync.redis.is_some() {
        items.push(redis(
            config,
            (trials.redis)(&SyncConfig::from(&config.sync), &mut wanted),
        ));
    }
    items.extend(wanted.items(&machine, &Routing::new(trials.run)));
    Report { items }
}

fn trial(name: &'static str, result: Result<String, String>) -> Item {
    match result {
        Ok(found) => Item::ok(name, found),
        // The text has its remedy already.
        Err(error) => Item::fail(name, error, ""),
    }
}

/// Without Redis the process still starts when there is another source of routes.
fn redis(config: &Config, result: Result<String, String>) -> Item {
    let sync = &config.sync;
    let other_source =
        sync.snapshot.is_some() || sync.routes_file.is_some() || !sync.static_routes.is_empty();
    let mut item = trial("redis", result);
    if item.verdict == Verdict::Fail && other_source {
        item.verdict = Verdict::Warn;
    }
    item
}

fn directory(name: &'static str, path: &Path) -> Item {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Item::ok(name, path.display().to_string()),
        Ok(_) => Item::fail(
            name,
            format!("{} is no directory", path.display()),
            "name a directory",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Item::warn(
            name,
            format!("{} does not exist", path.display()),
            "make it, and let the user that runs pointsman write into it",
        ),
        Err(error) => Item::fail(
            name,
            format!("{} cannot be looked at: {error}", path.display()),
            "let this user read it",
        ),
    }
}

#[cfg(test)]
mod tests;
