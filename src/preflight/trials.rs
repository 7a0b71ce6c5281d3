//! What `pointsman check` tries: to make a ring, to read Redis and the static routes, to run ip and nft.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::source_addresses::SourceAddresses;
use crate::config::{Config, KernelVersion, SyncSettings};
use crate::ring;
use crate::route::{Layer, Member, Table};
use crate::sync::{self, ChangeDetection, RedisState};
use crate::sys::interface_addresses;

/// How long reading all routes from Redis may take. The operator waits for it.
const REDIS_DEADLINE: Duration = Duration::from_secs(10);

/// Between two polls of the sync thread.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The routes of one source.
#[derive(Debug)]
pub(super) struct FoundRoutes {
    /// What the report says about them.
    pub summary: String,
    /// Which source addresses their members ask for.
    pub sources: SourceAddresses,
}

pub(super) fn ring(mask: Option<KernelVersion>) -> Result<String, String> {
    ring::probe(mask)
        .map(|features| features.to_string())
        .map_err(|error| error.to_string())
}

/// Reads the static routes as the start does. A backend at an address where the proxy listens is refused.
pub(super) fn routes(config: &Config) -> Result<FoundRoutes, String> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|listener| (listener.protocol, listener.address));
    let local = interface_addresses().map_err(|error| error.to_string())?;
    let mut of_start = config.sync.clone();
    of_start.backend_policy = of_start
        .backend_policy
        .with_listeners(listeners.collect(), local);
    let members = sync::check(&of_start).map_err(|error| error.to_string())?;
    let mut sources = SourceAddresses::default();
    for member in members.iter().filter_map(|text| Member::parse(text).ok()) {
        sources.add(&member);
    }
    let path = config.sync.routes_file.as_deref().unwrap_or(Path::new(""));
    let summary = path.display().to_string();
    Ok(FoundRoutes { summary, sources })
}

/// Runs a program that prints something and changes nothing. Returns what it printed.
pub(super) fn run(command: &[&str]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", command.join(" "), error.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn redis(settings: &SyncSettings) -> Result<FoundRoutes, String> {
    redis_within(settings, REDIS_DEADLINE)
}

/// Reads the routing table from Redis as the running process would, but writes no snapshot and has no
/// cores.
fn redis_within(settings: &SyncSettings, deadline: Duration) -> Result<FoundRoutes, String> {
    let only_redis = SyncSettings {
        static_routes: Vec::new(),
        routes_file: None,
        snapshot: None,
        ..settings.clone()
    };
    let begin = Instant::now();
    let table = Arc::new(Mutex::new(Table::new()));
    let published = table.clone();
    let publish = Box::new(move |update: Arc<_>| {
        let mut table = published.lock().unwrap_or_else(PoisonError::into_inner);
        table.apply(&update);
    });
    let handle = sync::start(only_redis, publish).map_err(|error| error.to_string())?;
    let status = loop {
        let status = handle.status();
        if status.redis == RedisState::Live || begin.elapsed() >= deadline {
            break status;
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    handle.stop();
    if status.redis != RedisState::Live {
        return Err(format!(
            "its routes were not read within {deadline:?} (state {}); the log says why; verify that \
             Redis runs, the URL and the password",
            status.redis.name()
        ));
    }
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let routes = table.routes(Layer::Redis);
    let mut sources = SourceAddresses::default();
    for backend in routes.flat_map(|(_, route)| route.backends()) {
        sources.add(backend.member());
    }
    let mode = status.mode.map_or("poll", ChangeDetection::name);
    let mut summary = format!("{} hosts, changes by {mode}", status.hosts);
    if status.rejected_keys + status.rejected_members > 0 {
        summary.push_str(&format!(
            "; {} keys and {} members are rejected, the log names them",
            status.rejected_keys, status.rejected_members
        ));
    }
    Ok(FoundRoutes { summary, sources })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::config::{Machine, read};

    #[test]
    fn a_ring_can_be_had_here() {
        assert!(ring(None).unwrap().contains("multishot_accept="));
    }

    fn config(file: &tempfile::NamedTempFile) -> Config {
        let arguments = ["pointsman", "--http", "127.0.0.1:81", "--routes"];
        let arguments = arguments.iter().map(OsString::from);
        let path = file.path().as_os_str().to_owned();
        let (_, typed) = read(arguments.chain([path]), []).unwrap();
        let machine = Machine {
            allowed_cores: vec![0],
        };
        typed.validate(&machine).unwrap()
    }

    #[test]
    fn a_routes_file_with_a_fault_is_named() {
        for (member, said) in [
            ("127.0.0.1:0", ":2: "),
            ("127.0.0.1:81", "is where this proxy listens"),
            ("127.0.0.1:1 source=client", ""),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "[routes]\n\"a.test\" = \"{member}\"\n").unwrap();
            match routes(&config(&file)) {
                Err(error) => assert!(!said.is_empty() && error.contains(said), "{error}"),
                Ok(found) => {
                    let none = SourceAddresses::default();
                    assert!(said.is_empty() && found.sources != none, "{member}");
                }
            }
        }
    }

    #[test]
    fn a_redis_that_does_not_answer_is_an_error_without_its_password() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let url = format!("redis://:hush@{address}");
        let settings = SyncSettings::of_options(&[("redis", &url)]).unwrap();
        let error = redis_within(&settings, Duration::from_millis(200)).unwrap_err();
        assert!(
            error.contains("the log says why") && !error.contains("hush"),
            "{error}"
        );
    }
}
