//! What is tried out rather than read: a ring, Redis, the static routes.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::source::Wanted;
use crate::config::{Config, KernelVersion, SyncSettings};
use crate::ring;
use crate::route::{Layer, Member, Table};
use crate::sync::{self, ChangeDetection, RedisState};
use crate::sys::own_addresses;

/// Given to Redis to be read whole; an operator waits for it.
const REDIS_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at the sync thread.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn ring(mask: Option<KernelVersion>) -> Result<String, String> {
    ring::probe(mask)
        .map(|features| features.to_string())
        .map_err(|error| error.to_string())
}

/// Reads the static routes as the start does: where the proxy listens no backend may be.
pub(super) fn routes(config: &Config, wanted: &mut Wanted) -> Result<String, String> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|listener| (listener.protocol, listener.address));
    let local = own_addresses().map_err(|error| error.to_string())?;
    let mut of_start = config.sync.clone();
    of_start.backend_policy = of_start
        .backend_policy
        .with_listeners(listeners.collect(), local);
    let members = sync::check(&of_start).map_err(|error| error.to_string())?;
    for member in members.iter().filter_map(|text| Member::parse(text).ok()) {
        wanted.add(&member);
    }
    let path = config.sync.routes_file.as_deref().unwrap_or(Path::new(""));
    Ok(path.display().to_string())
}

/// Runs a program that only prints.
pub(super) fn run(command: &[&str]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let said = Command::new(program).args(arguments).output();
    let said = said.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if !said.status.success() {
        let error = String::from_utf8_lossy(&said.stderr);
        return Err(format!("{}: {}", command.join(" "), error.trim()));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

pub(super) fn redis(settings: &SyncSettings, wanted: &mut Wanted) -> Result<String, String> {
    redis_within(settings, wanted, REDIS_DEADLINE)
}

/// Reads the table as the running program would, and touches neither snapshot nor cores.
fn redis_within(
    settings: &SyncSettings,
    wanted: &mut Wanted,
    deadline: Duration,
) -> Result<String, String> {
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
        std::thread::sleep(LOOK);
    };
    handle.stop();
    if status.redis != RedisState::Live {
        return Err(format!(
            "not read within {deadline:?} ({}); the log says why: check that it runs, the URL and \
             the password",
            status.redis.name()
        ));
    }
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let routes = table.routes(Layer::Redis);
    for backend in routes.flat_map(|(_, route)| route.backends()) {
        wanted.add(backend.member());
    }
    let mode = status.mode.map_or("poll", ChangeDetection::name);
    let mut found = format!("{} hosts, changes by {mode}", status.hosts);
    if status.rejected_keys + status.rejected_members > 0 {
        found.push_str(&format!(
            "; {} keys and {} members make no sense, the log names them",
            status.rejected_keys, status.rejected_members
        ));
    }
    Ok(found)
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
            let mut wanted = Wanted::default();
            match routes(&config(&file), &mut wanted) {
                Err(error) => assert!(!said.is_empty() && error.contains(said), "{error}"),
                Ok(_) => assert!(said.is_empty() && wanted != Wanted::default(), "{member}"),
            }
        }
    }

    #[test]
    fn a_redis_that_is_not_there_is_said_to_be_away() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let url = format!("redis://:hush@{address}");
        let settings = SyncSettings::of_options(&[("redis", &url)]).unwrap();
        let error = redis_within(
            &settings,
            &mut Wanted::default(),
            Duration::from_millis(200),
        )
        .unwrap_err();
        assert!(
            error.contains("the log says why") && !error.contains("hush"),
            "{error}"
        );
    }
}
