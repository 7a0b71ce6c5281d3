//! What a start needs of the machine. The start and `pointsman check` share this file, so that they agree.

use std::io;
use std::thread::Builder;

use crossbeam_channel::bounded;

use crate::config::{BackendCongestion, Config, Refused};
use crate::sys::Congestion;

/// Descriptors of the process besides its cores: standard streams, signals, the runtimes of Redis, DNS
/// and the admin endpoint, and their sockets. 12 were counted; the rest is for short-lived ones.
const DESCRIPTORS: u64 = 24;
/// Descriptors of a core besides its listeners: two rings of its executor and its own, wake-ups, an epoll.
/// 8 were counted.
const DESCRIPTORS_PER_CORE: u64 = 8;

/// Threads of the process besides its cores: log, signals, redis-sync, control and health checks, and
/// short-lived ones.
const THREADS: usize = 8;
/// A core's own thread, and the one in which its executor would make blocking calls.
const THREADS_PER_CORE: usize = 2;
/// The stack of a thread that only waits.
const STACK_BYTES: usize = 64 << 10;

/// Whether a limit of `open_files` is enough for the process itself, without any client.
///
/// # Errors
/// It is not. The text has cause and remedy.
pub(crate) fn try_descriptors(config: &Config, open_files: u64) -> Result<(), String> {
    let cores = config.cores.len() as u64;
    let per_core = DESCRIPTORS_PER_CORE + config.listeners.len() as u64;
    let needed = DESCRIPTORS + cores * per_core;
    if open_files >= needed {
        return Ok(());
    }
    Err(format!(
        "the limit of open files is {open_files}, and {cores} cores alone need {needed}; raise it \
         (LimitNOFILE= in systemd, ulimit -Hn), or use fewer --cores"
    ))
}

/// Whether the process may have all of its threads at the same time. Starts as many, and ends them.
///
/// # Errors
/// It may not. The text has cause and remedy.
pub(crate) fn try_threads(config: &Config) -> Result<(), String> {
    let count = THREADS + THREADS_PER_CORE * config.cores.len();
    threads(count).map_err(|error| {
        format!(
            "{count} threads cannot be started: {error}; raise the limit (TasksMax= in systemd, pids.max \
             of the cgroup, ulimit -u), or use fewer --cores"
        )
    })
}

fn threads(count: usize) -> io::Result<()> {
    let (hold, held) = bounded::<()>(0);
    std::thread::scope(|scope| {
        // Moved in, and dropped on every way out: then the threads that wait for it end.
        let _hold = hold;
        for _ in 0..count {
            let held = held.clone();
            let wait = move || {
                let _ = held.recv();
            };
            Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, wait)?;
        }
        Ok(())
    })
}

/// The congestion control to set on connections to backends; `None`: the system's default stays.
///
/// # Errors
/// This kernel lacks the algorithm, or refuses it to this process.
pub(crate) fn congestion(wanted: &BackendCongestion) -> Result<Option<Congestion>, Refused> {
    match wanted {
        BackendCongestion::Auto => Ok(Congestion::unpaced_if_system_paces()),
        BackendCongestion::System => Ok(None),
        BackendCongestion::Named(name) => Congestion::named(name).map(Some).map_err(|error| {
            Refused(format!(
                "--backend-congestion {name}: {error}; choose from sysctl \
                 net.ipv4.tcp_allowed_congestion_control, or load its module and give the process \
                 CAP_NET_ADMIN"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_room_for_threads() {
        threads(20).unwrap();
    }
}
