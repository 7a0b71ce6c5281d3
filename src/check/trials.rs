//! What is tried out rather than read: a ring, Redis, the routes file.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::source::Wanted;
use crate::config::KernelVersion;
use crate::protect::BackendPolicy;
use crate::ring;
use crate::route::{Layer, Member, Table};
use crate::sync::{self, Mode, RedisState, SyncConfig};

/// Given to Redis to be read whole; an operator waits for it.
const REDIS_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at the sync thread.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn ring(mask: Option<KernelVersion>) -> Result<String, String> {
    ring::probe(mask)
        .map(|features| features.to_string())
        .map_err(|error| error.to_string())
}

pub(super) fn routes_file(
    path: &Path,
    policy: &BackendPolicy,
    wanted: &mut Wanted,
) -> Result<String, String> {
    let only_file = SyncConfig {
        routes_file: Some(path.to_owned()),
        backend_policy: policy.clone(),
        ..SyncConfig::default()
    };
    let members = sync::check(&only_file).map_err(|error| error.to_string())?;
    for member in members.iter().filter_map(|text| Member::parse(text).ok()) {
        wanted.add(&member);
    }
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

pub(super) fn redis(config: &SyncConfig, wanted: &mut Wanted) -> Result<String, String> {
    redis_within(config, wanted, REDIS_DEADLINE)
}

/// Reads the table as the running program would, and touches neither snapshot nor cores.
fn redis_within(
    config: &SyncConfig,
    wanted: &mut Wanted,
    deadline: Duration,
) -> Result<String, String> {
    let only_redis = SyncConfig {
        redis: config.redis.clone(),
        full_comparison: config.full_comparison,
        ping: config.ping,
        ping_timeout: config.ping_timeout,
        dns_servers: config.dns_servers.clone(),
        backend_policy: config.backend_policy.clone(),
        ..SyncConfig::default()
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
    let mode = status.mode.map_or("poll", Mode::name);
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
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::sync::RedisConfig;

    #[test]
    fn a_ring_can_be_had_here() {
        assert!(ring(None).unwrap().contains("multishot_accept="));
    }

    #[test]
    fn a_routes_file_with_a_fault_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[routes]\n\"a.test\" = \"127.0.0.1:0\"\n")
            .unwrap();
        let error = routes_file(
            file.path(),
            &BackendPolicy::default(),
            &mut Wanted::default(),
        )
        .unwrap_err();
        assert!(error.contains(":2: "), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[routes]\n\"a.test\" = \"127.0.0.1:1 source=client\"\n")
            .unwrap();
        let mut wanted = Wanted::default();
        assert!(routes_file(file.path(), &BackendPolicy::default(), &mut wanted).is_ok());
        assert_ne!(wanted, Wanted::default());
    }

    #[test]
    fn a_redis_that_is_not_there_is_said_to_be_away() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let config = SyncConfig {
            redis: Some(RedisConfig::new(format!("redis://:hush@{address}"))),
            ..SyncConfig::default()
        };
        let error =
            redis_within(&config, &mut Wanted::default(), Duration::from_millis(200)).unwrap_err();
        assert!(
            error.contains("the log says why") && !error.contains("hush"),
            "{error}"
        );
    }
}
