//! A start and `pointsman check` say the same of a configuration and of a machine, with the same exit
//! status.

mod support;

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::port::free_port;
use support::process::Process;

/// A debug build on a loaded machine is up or has given up long before.
const PATIENCE: Duration = Duration::from_secs(20);

const BINARY: &str = env!("CARGO_BIN_EXE_pointsman");

/// Runs to its end, as a start or as `check`.
fn run(subcommand: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(subcommand).args(arguments);
    command.output().expect("the binary runs")
}

#[test]
fn a_wrong_configuration_is_2_from_both() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let no_toml = write("no.toml", "[routes\n");
    let bad_route = write("bad.toml", "[routes]\n\"a.test\" = \"10.0.0.1:0\"\n");
    let bad_config = write("config.toml", "drian = \"1s\"\n");
    let missing = directory.path().join("missing");
    let missing = missing.to_str().expect("UTF-8");
    let port = free_port().to_string();
    let itself = format!("b.test=127.0.0.1:{port}");
    let listen = format!("127.0.0.1:{port}");
    for wrong in [
        &["--routes", &no_toml][..],
        &["--routes", &bad_route],
        &["--routes", missing],
        &["--config", &bad_config],
        &["--config", missing],
        &["--backend-congestion", "turbo"],
        &["--latency-dir", &no_toml],
        &["--error-page", "502=/"],
        &["--drain", "soon"],
        &["--route", "b.test=http://127.0.0.1:9"],
        &["--route", "b.test=127.0.0.1:9 weight=2,127.0.0.1:9"],
        &["--route", &itself],
        &["--drian", "1s"],
    ] {
        let arguments = ["--http", &listen, "--route", "a.test=127.0.0.1:9"];
        let arguments = [&arguments[..], wrong].concat();
        for subcommand in [&[][..], &["check"]] {
            let output = run(subcommand, &arguments);
            let code = output.status.code();
            assert_eq!(code, Some(2), "{subcommand:?} {wrong:?}: {output:?}");
        }
    }
    let output = run(&["chekc"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("'check'"), "{said}");
}

#[test]
fn every_mistake_of_a_routes_file_has_its_line_from_both() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("routes.toml");
    let text = "[routes]\n\"a b\" = \"10.0.0.1\"\n\"a.test\" = [\"10.0.0.1:0\", 5]\n[more]\n";
    std::fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("UTF-8");
    let arguments = ["--http", "127.0.0.1:0", "--routes", path];
    for (subcommand, before) in [
        (&[][..], "pointsman: "),
        (&["check"], "FAIL  routes         "),
    ] {
        let output = run(subcommand, &arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        let before = format!("{before}{path}:");
        let of_file = text.lines().filter_map(|line| line.strip_prefix(&before));
        let lines: Vec<&str> = of_file
            .map(|line| line.split(':').next().unwrap_or_default())
            .collect();
        assert_eq!(lines, ["2", "3", "3", "4"], "{text}");
    }
}

#[test]
fn every_mistake_has_its_line_from_both() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, "drian = \"1s\"\nqueue = \"x\"\nbacklog = 0\n").expect("a file");
    let arguments = ["--config", path.to_str().expect("UTF-8")];
    for (subcommand, before) in [
        (&[][..], "pointsman: "),
        (&["check"], "FAIL  configuration  "),
    ] {
        let output = run(subcommand, &arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("UTF-8");
        let expected = [
            format!(
                "{before}{}:1: there is no option \"drian\"; write drain",
                path.display()
            ),
            format!("{before}{}:2: queue: ", path.display()),
            format!("{before}{}:3: backlog: ", path.display()),
            format!("{before}https, http: there is no address to listen on"),
            format!("{before}redis, route, routes: there is no source of routes"),
        ];
        assert_eq!(said.lines().count(), expected.len(), "{said}");
        for (line, expected) in said.lines().zip(expected) {
            assert!(line.starts_with(&expected), "{line}\nis not {expected}");
        }
    }
}

#[test]
fn with_few_open_files_check_fails_where_the_start_does() {
    let arguments = [
        "--http=127.0.0.1:0",
        "--https=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--route=a.test=127.0.0.1:9",
        "--cores=0",
    ];
    let mut starts = Vec::new();
    for files in [12, 20, 30, 33, 34, 40, 64] {
        let limited = |subcommand: &[&str]| {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={files}:{files}")).arg(BINARY);
            command.args(subcommand).args(arguments);
            command
        };
        let check = limited(&["check"]).output().expect("it runs");
        let mut start = Process::start(limited(&[]));
        let ready = start.wait_for_line(PATIENCE, |line| line.starts_with("ready "));
        let code = match ready {
            Some(_) => Some(0),
            None => start.wait_for_exit(PATIENCE).expect("it ends").code(),
        };
        let said = start.said();
        assert_eq!(code, check.status.code(), "{files}: {check:?}\n{said}");
        starts.push(code == Some(0));
    }
    assert!(starts.contains(&true) && starts.contains(&false));
}

#[test]
fn a_report_that_nobody_can_read_is_no_panic() {
    let full = OpenOptions::new().write(true).open("/dev/full");
    let output = Command::new(BINARY)
        .args(["check", "--http=127.0.0.1:0", "--route=a.test=127.0.0.1:9"])
        .stdout(Stdio::from(full.expect("the kernel has it")))
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
    assert!(!said.contains("panic"), "{said}");
}
