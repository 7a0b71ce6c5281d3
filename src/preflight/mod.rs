//! `pointsman check`: what would keep this configuration from running well on this machine, a line per
//! item with cause and remedy. It reads `/proc`, asks Redis and tries system calls. It changes nothing and
//! binds no port for longer than a moment.

mod machine;
mod report;
mod requirements;
mod routing;
mod source_addresses;
mod trials;

use std::net::SocketAddr;
use std::path::Path;

use machine::Proc;
pub(crate) use report::Report;
use report::{Item, Verdict};
pub(crate) use requirements::{congestion, try_descriptors, try_threads};
use routing::{Routing, Run};
use source_addresses::SourceAddresses;
use trials::FoundRoutes;

use crate::config::{Config, KernelVersion, Refused, SyncSettings};
use crate::sys::{BindError, Listener};

/// What is tried rather than read. `Ok` says what was found; `Err` is one text with cause and remedy. A
/// test replaces each of them.
struct Trials<'a> {
    ring: &'a dyn Fn(Option<KernelVersion>) -> Result<String, String>,
    redis: &'a dyn Fn(&SyncSettings) -> Result<FoundRoutes, String>,
    routes: &'a dyn Fn(&Config) -> Result<FoundRoutes, String>,
    address: &'a dyn Fn(SocketAddr) -> Result<(), BindError>,
    threads: &'a dyn Fn(&Config) -> Result<(), String>,
    run: &'a Run<'a>,
}

/// Examines everything. Takes up to ten seconds when Redis does not answer.
pub(crate) fn report(config: &Config) -> Report {
    let trials = Trials {
        ring: &trials::ring,
        redis: &trials::redis,
        routes: &trials::routes,
        address: &Listener::try_address,
        threads: &try_threads,
        run: &trials::run,
    };
    report_below(Path::new("/"), config, &trials)
}

/// `root` holds `/proc`; a test has one of its own.
fn report_below(root: &Path, config: &Config, trials: &Trials<'_>) -> Report {
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
        of_trial("io_uring", (trials.ring)(config.kernel_mask)),
        machine.seccomp(),
        machine.open_files(config),
        of_trial(
            "threads",
            (trials.threads)(config).map(|()| String::from("enough")),
        ),
        machine.locked_memory(config),
        machine.backlog(config),
        machine.pipes(config),
        machine.ports(config),
        machine.local_ports(config),
        addresses(config, trials.address),
    ];
    if let Err(Refused(error)) = congestion(&config.backend_congestion) {
        items.push(Item::refused("congestion", error, ""));
    }
    if let Some(path) = &config.latency_dir {
        items.push(directory("latency-dir", path, Verdict::Refused));
    }
    if let Some(path) = &config.sync.snapshot {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        // Without a snapshot the process serves all the same, and the log says so.
        items.push(directory("snapshot", parent, Verdict::Warn));
    }
    let mut sources = SourceAddresses::default();
    match (trials.routes)(config) {
        Ok(found) => {
            sources.extend(found.sources);
            if config.sync.routes_file.is_some() {
                items.push(Item::ok("routes", found.summary));
            }
        }
        Err(mistakes) => {
            items.extend(
                mistakes
                    .lines()
                    .map(|line| Item::refused("routes", line, "")),
            );
        }
    }
    if config.sync.redis.is_some() {
        let found = (trials.redis)(&config.sync).map(|found| {
            sources.extend(found.sources);
            found.summary
        });
        items.push(redis(config, found));
    }
    items.extend(sources.items(&machine, &Routing::new(trials.run)));
    Report { items }
}

fn of_trial(name: &'static str, result: Result<String, String>) -> Item {
    match result {
        Ok(found) => Item::ok(name, found),
        // The text includes the remedy.
        Err(error) => Item::fail(name, error, ""),
    }
}

/// A Redis that cannot be read is a warning when there is another source of routes: the process starts.
fn redis(config: &Config, result: Result<String, String>) -> Item {
    let sync = &config.sync;
    let other_source =
        sync.snapshot.is_some() || sync.routes_file.is_some() || !sync.static_routes.is_empty();
    let mut item = of_trial("redis", result);
    if item.verdict == Verdict::Fail && other_source {
        item.verdict = Verdict::Warn;
    }
    item
}

/// Whether this process may listen on every address of the configuration.
fn addresses(config: &Config, bind: &dyn Fn(SocketAddr) -> Result<(), BindError>) -> Item {
    const NAME: &str = "addresses";
    let listeners = config.listeners.iter();
    let wanted = listeners.map(|listener| (listener.address, listener.required));
    let mut is_v4_alone = false;
    for (address, is_required) in wanted.chain(config.admin.map(|address| (address, true))) {
        match bind(address) {
            Ok(()) => {}
            Err(error) if !is_required && error.lacks_family() => is_v4_alone = true,
            Err(error) => return Item::fail(NAME, error.to_string(), ""),
        }
    }
    if is_v4_alone {
        return Item::warn(
            NAME,
            "this machine has no IPv6; :PORT listens on IPv4 only",
            "enable IPv6, or write 0.0.0.0:PORT if IPv4 alone is meant",
        );
    }
    Item::ok(NAME, "this machine has them")
}

/// Whether there is such a directory. `verdict` is that of a path that cannot be one.
fn directory(name: &'static str, path: &Path, verdict: Verdict) -> Item {
    let bad = |found: String, remedy: &str| Item {
        verdict,
        ..Item::fail(name, found, remedy)
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Item::ok(name, path.display().to_string()),
        Ok(_) => bad(
            format!("{} is no directory", path.display()),
            "name a directory",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Item::warn(
            name,
            format!("{} does not exist", path.display()),
            "make it, and let the user that runs pointsman write into it",
        ),
        Err(error) => bad(
            format!("{} cannot be read: {error}", path.display()),
            "name another directory, or let this user read it",
        ),
    }
}

#[cfg(test)]
mod tests;
