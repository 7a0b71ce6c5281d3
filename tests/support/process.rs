//! A child process whose standard error is read as it comes. It is ended by its own process id.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From SIGTERM to SIGKILL; longer than any drain that a test asks for.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A running process; dropping it ends it.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let lines = log.clone();
        let reader = std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { break };
                lines.push(line);
            }
            lines.end();
        });
        Process {
            child,
            log,
            reader: Some(reader),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it wrote to standard error so far.
    pub fn said(&self) -> String {
        self.log.text()
    }

    /// The first line on standard error for which `fits` is true; `None` if there is none within `patience`
    /// or before the process ends.
    pub fn wait_for_line(&self, patience: Duration, fits: impl Fn(&str) -> bool) -> Option<String> {
        self.log.wait_for(patience, fits)
    }

    /// Sends a signal by its name, such as `TERM`. Returns whether it was sent.
    pub fn signal(&self, name: &str) -> bool {
        signal(self.child.id(), name)
    }

    /// Whether it has closed its standard error, which it does when it ends.
    pub fn has_ended(&self) -> bool {
        self.log.lines.lock().unwrap().has_ended
    }

    /// The exit status; `None` if the process does not end within `patience`.
    pub fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        let status = loop {
            let status = self.child.try_wait().expect("it is our own child");
            if status.is_some() || Instant::now() >= deadline {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if status.is_some() {
            self.read_the_rest();
        }
        status
    }

    /// Sends SIGTERM, and SIGKILL if that does not end it within [`STOP_PATIENCE`].
    pub fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal("TERM");
            if self.wait_for_exit(STOP_PATIENCE).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        self.read_the_rest();
    }

    fn read_the_rest(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Sends a signal by its name to a process that the test started.
pub fn signal(pid: u32, name: &str) -> bool {
    let pid = pid.to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    status.is_ok_and(|status| status.success())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the process wrote to standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    read: Vec<String>,
    /// Standard error was closed.
    has_ended: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap().read.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lines.lock().unwrap().has_ended = true;
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().read.join("\n")
    }

    /// The first line for which `fits` is true. Waits until the log ends or `patience` has passed.
    fn wait_for(&self, patience: Duration, fits: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.read.iter().find(|line| fits(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.has_ended || left.is_zero() {
                return None;
            }
            lines = self.changed.wait_timeout(lines, left).unwrap().0;
        }
    }
}
