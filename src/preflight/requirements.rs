//! What a start needs of the machine. The start and `pointsman check` both ask here, so that what one
//! finds the other finds as well.

use std::io;
use std::thread::Builder;

use crossbeam_channel::bounded;

use crate::config::{BackendCongestion, Config, Refused};
use crate::sys::Congestion;

/// Descriptors of the process besides its cores: standard streams, signals, the runtimes of Redis,
/// DNS and the admin endpoint, with their sockets, and some for a moment. 12 are counted.
const DESCRIPTORS: u64 = 24;
/// Of a core besides its listeners: two executors' rings and our own, wake-ups, an epoll. 8 are counted.
const DESCRIPTORS_PER_CORE: u64 = 8;

/// Log, signals, redis-sync, control, active checks, and what they ask others to do for a moment.
const THREADS: usize = 8;
/// Each core has one that its executor waits with.
const THREADS_PER_CORE: usize = 2;
/// Of a thread that only waits.
const STACK_BYTES: usize = 64 << 10;

/// Whether `open_files` descriptors are enough to serve anybody.
///
/// # Errors
/// Cause and remedy.
pub(crate) fn try_descriptors(config: &Config, open_files: u64) -> Result<(), String> {
    let cores = config.cores.len() as u64;
    let per_core = DESCRIPTORS_PER_CORE + config.listeners.len() as u64;
    let needed = DESCRIPTORS + cores * per_core;
    if open_files >= needed {
        return Ok(());
    }
    Err(format!(
        "the limit of open files is {open_files}, and {cores} cores need {needed} before the first client comes; raise it (LimitNOFILE= in systemd, ulimit -Hn), or use fewer --cores"
    ))
}

/// Whether all threads can be had at the same time. Those that are made end with the trial.
///
/// # Errors
/// Cause and remedy.
pub(crate) fn try_threads(config: &Config) -> Result<(), String> {
    let count = THREADS + THREADS_PER_CORE * config.cores.len();
    threads(count).map_err(|error| {
        format!(
            "{count} threads are not to be had: {error}; raise the limit (TasksMax= in systemd, pids.max of the cgroup, ulimit -u), or use fewer --cores"
        )
    })
}

fn threads(count: usize) -> io::Result<()> {
    let (hold, held) = bounded::<()>(0);
    std::thread::scope(|scope| {
        // Moved in, so that all of them end when one cannot be had, too.
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

/// The congestion control towards backends, as far as it differs from what every socket begins with.
///
/// # Errors
/// This kernel does not have it, or not for this process.
pub(crate) fn congestion(wanted: &BackendCongestion) -> Result<Option<Congestion>, Refused> {
    match wanted {
        BackendCongestion::Auto => Ok(Congestion::unpaced_if_system_paces()),
        BackendCongestion::System => Ok(None),
        BackendCongestion::Named(name) => Congestion::named(name).map(Some).map_err(|error| {
            Refused(format!(
                "--backend-congestion {name}: {error}; choose from sysctl net.ipv4.tcp_allowed_congestion_control, or load its module and give the process CAP_NET_ADMIN"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_can_be_had_here() {
        threads(20).unwrap();
    }
}
