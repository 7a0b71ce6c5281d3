//! The proxy's processes in `/proc`: processor time, memory, and the processors on which they may run.
//!
//! Threads that io_uring makes for a process (io-wq) are threads of that process and counted.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

/// One tick of `/proc/*/stat`: USER_HZ is 100 on every architecture Linux still has for servers.
const TICK: Duration = Duration::from_millis(10);

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub parent: u32,
    /// utime + stime of all threads, ended ones included.
    pub processor_time: Duration,
}

/// Parses one line of `/proc/PID/stat` (proc_pid_stat(5)). The second field is a name in
/// parentheses that may itself hold blanks and parentheses.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line[line.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    // Behind the name come state (field 3), ppid (4), …, utime (14), stime (15).
    Some(Stat {
        parent: ticks(1)?,
        processor_time: TICK * (ticks(11)?.checked_add(ticks(12)?)?),
    })
}

/// The first number of a line `NAME: 123 kB`, in bytes, of a file of such lines.
pub fn parse_kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Expands a list of processors as the kernel prints it, `0-3,6`.
pub fn parse_processors(list: &str) -> Option<Vec<usize>> {
    let mut processors = Vec::new();
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        processors.extend(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?);
    }
    Some(processors)
}

/// Busy time of one processor out of `/proc/stat`: everything but idle and iowait.
pub fn parse_processor_busy(text: &str, processor: usize) -> Option<Duration> {
    let name = format!("cpu{processor}");
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(&name))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal guest…; guest is in user already.
    let busy: u64 = ticks.iter().take(8).sum::<u64>() - ticks.get(3)? - ticks.get(4)?;
    Some(Duration::from_millis(busy * TICK.as_millis() as u64))
}

/// Busy time of a processor since boot.
pub fn processor_busy(processor: usize) -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_processor_busy(&text, processor)
        .ok_or_else(|| io::Error::other(format!("/proc/stat does not know processor {processor}")))
}

/// A process and its descendants.
pub fn process_tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            parents.push((pid, stat.parent));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    Ok(tree)
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Processor time of a process tree at one moment, by thread.
#[derive(Debug, Clone, Default)]
pub struct ProcessorTime {
    /// Nanoseconds by thread, from `schedstat`.
    threads: BTreeMap<u32, u64>,
    /// From `stat`: whole ticks, but ended threads included.
    ticks: Duration,
}

impl ProcessorTime {
    pub fn of(tree: &[u32]) -> io::Result<ProcessorTime> {
        let mut time = ProcessorTime::default();
        for pid in tree {
            for thread in threads(*pid)? {
                let path = format!("/proc/{pid}/task/{thread}/schedstat");
                let Ok(text) = fs::read_to_string(path) else {
                    continue;
                };
                if let Some(run) = text.split(' ').next().and_then(|run| run.parse().ok()) {
                    time.threads.insert(thread, run);
                }
            }
            time.ticks += stat(*pid).map_or(Duration::ZERO, |stat| stat.processor_time);
        }
        Ok(time)
    }

    /// Processor time used since `earlier`: exact to the nanosecond while no thread ended between,
    /// otherwise in whole ticks.
    pub fn since(&self, earlier: &ProcessorTime) -> Duration {
        let used = self.threads.iter().map(|(thread, now)| {
            now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        });
        let used = Duration::from_nanos(used.sum());
        let complete = earlier
            .threads
            .keys()
            .all(|thread| self.threads.contains_key(thread));
        if complete {
            used
        } else {
            used.max(self.ticks.saturating_sub(earlier.ticks))
        }
    }
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        if let Some(thread) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            threads.push(thread);
        }
    }
    Ok(threads)
}

/// Memory of a process tree, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    pub resident: u64,
    /// Shared pages divided among those who share them.
    pub proportional: u64,
}

impl Memory {
    pub fn of(tree: &[u32]) -> io::Result<Memory> {
        let mut memory = Memory::default();
        for pid in tree {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            memory.resident += parse_kilobytes(&status, "VmRSS").unwrap_or(0);
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            memory.proportional += parse_kilobytes(&rollup, "Pss").unwrap_or(0);
        }
        Ok(memory)
    }
}

/// Memory that the system has available, in bytes.
pub fn memory_available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse_kilobytes(&text, "MemAvailable")
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}

/// Where each thread of a process tree may run.
pub fn allowed_processors(tree: &[u32]) -> io::Result<Vec<Vec<usize>>> {
    let mut allowed = Vec::new();
    for pid in tree {
        for thread in threads(*pid)? {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")) else {
                continue;
            };
            let list = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            allowed.push(list.and_then(parse_processors).unwrap_or_default());
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_awkward_name() {
        let line = "30441 (a) b (c) R 30392 30392 17724 0 -1 4194304 102 0 0 0 7 5 0 0 20 0 1 0 \
            363752 3133440 393";
        let stat = parse_stat(line).expect("it parses");
        assert_eq!(stat.parent, 30_392);
        assert_eq!(stat.processor_time, Duration::from_millis(120));
        assert_eq!(parse_stat("1 (x"), None);
        assert_eq!(parse_stat("1 (x) R 2"), None);
    }

    #[test]
    fn the_busy_time_of_one_processor() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 10 1 20 400 30 2 3 4 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(
            parse_processor_busy(text, 1),
            Some(Duration::from_millis(400))
        );
        assert_eq!(parse_processor_busy(text, 2), None);
    }

    #[test]
    fn lists_and_sizes() {
        assert_eq!(parse_processors("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_processors("all"), None);
        assert_eq!(
            parse_kilobytes("VmHWM:\t 9 kB\nVmRSS:\t 12 kB\n", "VmRSS"),
            Some(12_288)
        );
        assert_eq!(parse_kilobytes("", "VmRSS"), None);
    }

    #[test]
    fn processor_time_survives_a_thread_that_ended() {
        let at = |threads: &[(u32, u64)], ticks: u32| ProcessorTime {
            threads: threads.iter().copied().collect(),
            ticks: TICK * ticks,
        };
        let earlier = at(&[(1, 100), (2, 50)], 10);
        let exact = at(&[(1, 150), (2, 50), (3, 7)], 10).since(&earlier);
        assert_eq!(exact, Duration::from_nanos(57));
        assert_eq!(
            at(&[(1, 150)], 14).since(&earlier),
            Duration::from_millis(40)
        );
    }
}
