//! What a reader does who pastes the examples of a page.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::page::{blocks, text};
use super::support::port::free_port;
use super::support::process::Process;
use super::support::wait_until;

/// What a change in Redis has to be seen in what the next command prints.
const PATIENCE: Duration = Duration::from_secs(10);
/// A debug build on a loaded machine is up long before.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What a reader does who pastes the blocks of a page one after the other, in an empty directory. The
/// ports are others, so that pages can be tried at the same time.
pub(super) struct Session {
    directory: tempfile::TempDir,
    /// In the order of their start.
    running: Vec<Process>,
}

/// One command of a page, and what it is to print.
struct Step {
    command: String,
    expected: Vec<String>,
}

impl Session {
    pub(super) fn run(page: &str) {
        let source = text(page);
        let ports = ports(&source);
        let mut session = Session {
            directory: tempfile::tempdir().expect("a temporary directory"),
            running: Vec::new(),
        };
        session.write_commands(&ports);
        let mut steps = 0;
        for (language, block) in blocks(&source) {
            let block = with_ports(&block, &ports);
            match &*language {
                "sh" => {
                    for step in steps_of(&block) {
                        session.take(page, &step);
                        steps += 1;
                    }
                }
                // A file of an example says its own name.
                "toml" => {
                    let name = block
                        .lines()
                        .next()
                        .and_then(|line| line.strip_prefix("# "));
                    if let Some(name) = name {
                        fs::write(session.directory.path().join(name), &block).expect("it is ours");
                    }
                }
                _ => {}
            }
        }
        assert!(steps > 0, "{page} has no example");
        // Each waits for its own end when it is dropped; the proxies need a second.
        for process in &session.running {
            process.signal("TERM");
        }
    }

    fn bin(&self) -> PathBuf {
        self.directory.path().join(".bin")
    }

    /// What the shell finds as `pointsman` and `redis-cli`.
    fn write_commands(&self, ports: &BTreeMap<String, String>) {
        fs::create_dir(self.bin()).expect("a temporary directory");
        symlink(
            env!("CARGO_BIN_EXE_pointsman"),
            self.bin().join("pointsman"),
        )
        .expect("it is ours");
        if let Some(port) = ports.get("6379") {
            let path = std::env::var("PATH").unwrap_or_default();
            let script = format!("#!/bin/sh\nPATH='{path}' exec redis-cli -p {port} \"$@\"\n");
            let file = self.bin().join("redis-cli");
            fs::write(&file, script).expect("it is ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .args(["-c", command])
            .current_dir(self.directory.path())
            .env("PATH", format!("{}:{path}", self.bin().display()))
            .env("POINTSMAN_CORES", "0")
            .env("POINTSMAN_DRAIN", "1s");
        shell
    }

    fn take(&mut self, page: &str, step: &Step) {
        match step.command.strip_suffix('&') {
            Some(command) => self.start(page, command.trim()),
            None => self.ask(page, step),
        }
    }

    /// Starts what is to run beside the rest, and waits until it listens.
    fn start(&mut self, page: &str, command: &str) {
        let process = Process::start(self.shell(&format!("exec {command}")));
        if command.starts_with("pointsman ") {
            let is_ready = |line: &str| line.split(' ').next() == Some("ready");
            let ready = process.wait_for_line(START_PATIENCE, is_ready);
            assert!(ready.is_some(), "{page}: {command}\n{}", process.said());
        } else {
            let numbers = || command.split(|char: char| !char.is_ascii_digit());
            wait_until(command, START_PATIENCE, || {
                numbers().any(is_listening) || process.has_ended()
            });
        }
        self.running.push(process);
    }

    /// Runs a command to its end. A change in Redis takes a moment, so that what it is to print is
    /// waited for.
    fn ask(&self, page: &str, step: &Step) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.shell(&step.command).output().expect("bash is there");
            let printed = [output.stdout, output.stderr]
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let printed = printed.join("\n");
            let missing = step
                .expected
                .iter()
                .find(|part| !printed.contains(&***part));
            if output.status.success() && missing.is_none() {
                return;
            }
            assert!(
                Instant::now() < deadline && missing.is_some(),
                "{page}: {} printed no {missing:?} ({}), but:\n{printed}",
                step.command,
                output.status,
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The commands of a block. Behind each, `#=> ` and what it is to print.
fn steps_of(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.replace("\\\n", "").lines() {
        if let Some(expected) = line.strip_prefix("#=> ") {
            let step = steps
                .last_mut()
                .expect("a command comes before what it prints");
            step.expected.push(expected.to_owned());
        } else if !line.trim().is_empty() {
            steps.push(Step {
                command: line.trim().to_owned(),
                expected: Vec::new(),
            });
        }
    }
    steps
}

/// A free port for each that the examples of a page use: numbers of four digits from 6000 on.
fn ports(page: &str) -> BTreeMap<String, String> {
    let mut ports = BTreeMap::new();
    for (language, block) in blocks(page) {
        if language != "sh" {
            continue;
        }
        for word in block.split(|char: char| !char.is_ascii_alphanumeric()) {
            if word.len() == 4 && word.parse().is_ok_and(|port: u16| port >= 6000) {
                let free = || free_port().to_string();
                ports.entry(word.to_owned()).or_insert_with(free);
            }
        }
    }
    ports
}

fn with_ports(block: &str, ports: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for part in block.split_inclusive(|char: char| !char.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
        match ports.get(word) {
            Some(port) => out.push_str(&part.replacen(word, port, 1)),
            None => out.push_str(part),
        }
    }
    out
}

/// Whether somebody listens on this TCP port. Asked of the kernel, because some servers of the examples
/// serve one connection only.
fn is_listening(port: &str) -> bool {
    let Some(port) = port.parse::<u16>().ok().filter(|port| *port >= 1024) else {
        return false;
    };
    let local = format!(":{port:04X}");
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_local = fields
            .next()
            .is_some_and(|address| address.ends_with(&local));
        is_local && fields.nth(1) == Some("0A")
    };
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        table.lines().any(listens)
    })
}
