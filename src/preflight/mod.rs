//! `pointsman check`: what would keep this configuration from running well on this machine, one
//! line per item with cause and remedy. Reads, asks and tries; changes nothing, and takes no port.

mod machine;
mod report;
mod requirements;
mod routing;
mod source;
mod trials;

use std::net::SocketAddr;
use std::path::Path;

use machine::Proc;
pub(crate) use report::Report;
use report::{Item, Verdict};
pub(crate) use requirements::{congestion, try_descriptors, try_threads};
use routing::{Routing, Run};
use source::Wanted;

use crate::config::{Config, KernelVersion, Refused, SyncSettings};
use crate::sys::{BindError, Listener};

/// What is tried out. `Ok` says what was found, `Err` cause and remedy in one text. Those that read
/// routes note which foreign sources the routes want.
struct Trials<'a> {
    ring: &'a dyn Fn(Option<KernelVersion>) -> Result<String, String>,
    redis: &'a dyn Fn(&SyncSettings, &mut Wanted) -> Result<String, String>,
    routes: &'a dyn Fn(&Config, &mut Wanted) -> Result<String, String>,
    address: &'a dyn Fn(SocketAddr) -> Result<(), BindError>,
    threads: &'a dyn Fn(&Config) -> Result<(), String>,
    run: &'a Run<'a>,
}

/// Checks everything; takes up to ten seconds when Redis does not answer.
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

/// `root` is where `/proc` is, so that tests can show another machine.
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
        // What cannot be saved is said in the log; it serves all the same.
        items.push(directory("snapshot", parent, Verdict::Warn));
    }
    let mut wanted = Wanted::default();
    match (trials.routes)(config, &mut wanted) {
        Ok(found) if config.sync.routes_file.is_some() => items.push(Item::ok("routes", found)),
        Ok(_) => {}
        Err(mistakes) => {
            items.extend(
                mistakes
                    .lines()
                    .map(|line| Item::refused("routes", line, "")),
            );
        }
    }
    if config.sync.redis.is_some() {
        items.push(redis(config, (trials.redis)(&config.sync, &mut wanted)));
    }
    items.extend(wanted.items(&machine, &Routing::new(trials.run)));
    Report { items }
}

fn of_trial(name: &'static str, result: Result<String, String>) -> Item {
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
    let mut item = of_trial("redis", result);
    if item.verdict == Verdict::Fail && other_source {
        item.verdict = Verdict::Warn;
    }
    item
}

/// Whether the start can listen where it is told to.
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
            "enable IPv6, or write 0.0.0.0:PORT to say that it is meant",
        );
    }
    Item::ok(NAME, "this machine has them")
}

fn directory(name: &'static str, path: &Path, otherwise: Verdict) -> Item {
    let bad = |found: String, remedy: &str| Item {
        verdict: otherwise,
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
            format!("{} cannot be looked at: {error}", path.display()),
            "name another, or let this user read it",
        ),
    }
}

#[cfg(test)]
mod tests;
