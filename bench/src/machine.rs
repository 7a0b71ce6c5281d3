//! The machine of a run: pinning threads, limits, and what the results say about the machine.

use std::process::Command;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::procfs;

/// Descriptors needed by the largest scenario: 5,000 connections with both ends in this process.
const OPEN_FILES_NEEDED: u64 = 10_500;

/// Which processors a run uses.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Processors {
    pub proxy: usize,
    pub load: usize,
}

/// What the result of a run depends on, besides the programs that are compared.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub host: String,
    pub kernel: String,
    pub processor: String,
    pub processors_total: usize,
    pub memory: u64,
    pub port_range: String,
    /// The congestion control that every socket of the run begins with.
    pub congestion_control: String,
    /// The largest pipe, in bytes (fs.pipe-max-size).
    pub pipe_max_bytes: String,
    pub open_files: u64,
}

impl Machine {
    pub fn read() -> Machine {
        let line = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .replace('\t', "-")
        };
        let cpuinfo = line("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        let meminfo = line("/proc/meminfo");
        Machine {
            host: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            processor: model.to_owned(),
            processors_total: std::thread::available_parallelism().map_or(1, usize::from),
            memory: procfs::parse_kilobytes(&meminfo, "MemTotal").unwrap_or(0),
            port_range: line("/proc/sys/net/ipv4/ip_local_port_range"),
            congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
            pipe_max_bytes: line("/proc/sys/fs/pipe-max-size"),
            open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }
}

/// Pins this thread to the load's processor and reads it back.
///
/// # Errors
/// When the thread may still run elsewhere: figures taken then are not to be believed.
pub fn pin_load(processors: Processors) -> io::Result<()> {
    if processors.proxy == processors.load {
        return Err(io::Error::other(
            "the proxy and the load need a processor each; this machine or --proxy-processor and \
             --load-processor give them the same",
        ));
    }
    core_affinity::set_for_current(core_affinity::CoreId {
        id: processors.load,
    });
    let allowed = procfs::allowed_processors(&[std::process::id()])?;
    if allowed != [[processors.load]] {
        return Err(io::Error::other(format!(
            "could not pin the load to processor {} (may run on {allowed:?}); is it in this \
             process's cpuset?",
            processors.load
        )));
    }
    Ok(())
}

/// Checks that every thread of a process tree may run on the proxy's processor only.
pub fn check_proxy_pinned(tree: &[u32], processors: Processors) -> io::Result<()> {
    let allowed = procfs::allowed_processors(tree)?;
    if allowed.is_empty() || allowed.iter().any(|one| one != &[processors.proxy]) {
        return Err(io::Error::other(format!(
            "the proxy is not pinned to processor {}: its threads may run on {allowed:?}",
            processors.proxy
        )));
    }
    Ok(())
}

/// Raises the limit of open files to its hard limit.
///
/// # Errors
/// When the hard limit is too low for the largest scenario.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit
        .maximum
        .is_some_and(|maximum| maximum < OPEN_FILES_NEEDED)
    {
        return Err(io::Error::other(format!(
            "{OPEN_FILES_NEEDED} open files are needed, the hard limit is {:?}; raise it (ulimit \
             -Hn, LimitNOFILE=)",
            limit.maximum
        )));
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// The first line that a program prints about its version, on standard output or standard error.
pub fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Some(
        text.lines()
            .find(|line| !line.is_empty())?
            .trim()
            .to_owned(),
    )
}
