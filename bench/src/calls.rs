//! System calls per unit of work, counted with strace. That takes a window of its own, because strace makes
//! the proxy many times slower.

use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

/// How long strace takes to attach to every thread.
const ATTACHING: Duration = Duration::from_millis(500);

/// A running strace that counts the system calls of some processes.
#[derive(Debug)]
pub struct Counter {
    child: Child,
    directory: tempfile::TempDir,
}

impl Counter {
    /// Attaches to these processes and their threads. `None` where there is no strace.
    pub fn attach(tree: &[u32]) -> io::Result<Option<Counter>> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("strace");
        command
            .args(["-c", "-f", "-q", "-o"])
            .arg(directory.path().join("calls"));
        for pid in tree {
            command.args(["-p", &pid.to_string()]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        std::thread::sleep(ATTACHING);
        Ok(Some(Counter { child, directory }))
    }

    /// Detaches and returns the number of calls; `None` if strace could not attach.
    pub fn finish(mut self) -> io::Result<Option<u64>> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
            && self.child.try_wait()?.is_none()
        {
            kill_process(pid, Signal::INT)?;
        }
        self.child.wait()?;
        let text = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        Ok(parse_total(&text))
    }
}

/// The calls in the last line of a table by `strace -c`: share, seconds, µs per call, calls, errors
/// if there were any, `total`.
fn parse_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.ends_with(" total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_table() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            100.00    0.001000           3       333        12 splice\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.001000           3       333        12 total\n";
        assert_eq!(parse_total(table), Some(333));
        assert_eq!(
            parse_total("100.00    0.001000           3       334           total\n"),
            Some(334)
        );
        assert_eq!(parse_total(""), None);
    }
}
