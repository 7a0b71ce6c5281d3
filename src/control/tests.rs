//! The control thread as a whole, on threads that stand for cores.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::double::CoreThreads;
use super::*;
use crate::sync::RedisState;

/// Far longer than anything here takes, so that only a hang runs into it.
const SOON: Duration = Duration::from_secs(20);

struct Running {
    cores: Arc<CoreThreads>,
    events: Sender<Event>,
    reloads: Arc<AtomicUsize>,
    admin: SocketAddr,
    thread: JoinHandle<Ended>,
}

fn control(
    cores: Arc<CoreThreads>,
    drain: Duration,
    latency_dir: Option<&Path>,
    reloads: Arc<AtomicUsize>,
) -> Control {
    Control {
        cores,
        drain,
        latency_dir: latency_dir.map(|path| LatencyDir::open(path).unwrap()),
        admin: Some(Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap()),
        reload: Box::new(move || {
            reloads.fetch_add(1, Ordering::SeqCst);
        }),
        reports: Reports {
            sync: Box::new(|| SyncStatus {
                redis: RedisState::Live,
                table_age: Some(Duration::from_millis(1500)),
                hosts: 3,
                ..SyncStatus::default()
            }),
            backends: Box::new(Vec::new),
            ready: Box::new(|| true),
            lookup: false,
            dropped_lines: Box::new(|| 4),
        },
    }
}

fn start(drain: Duration, latency_dir: Option<&Path>) -> Running {
    let cores = CoreThreads::start(&[0, 5]);
    let reloads = Arc::new(AtomicUsize::new(0));
    let control = control(cores.clone(), drain, latency_dir, reloads.clone());
    let admin = control.admin.as_ref().unwrap().address().unwrap();
    let (events, signals) = SignalEvents::without_signals();
    let thread = std::thread::spawn(move || control.run(&signals).unwrap());
    Running {
        cores,
        events,
        reloads,
        admin,
        thread,
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn exchange(admin: SocketAddr, request: &str) -> (String, String) {
    let mut client = TcpStream::connect(admin).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn get(admin: SocketAddr, path: &str) -> (String, String) {
    exchange(admin, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

#[test]
fn connections_that_finish_in_time_end_the_process_with_0() {
    let running = start(SOON, None);
    running.cores.accept(0, 2);
    running.cores.accept(5, 1);
    running.events.send(Event::Stop).unwrap();
    eventually("draining", || {
        get(running.admin, "/ready").1 == "stopping\n"
    });
    running.cores.finish(0, 2);
    assert!(!running.thread.is_finished());
    running.cores.finish(5, 1);
    let ended = running.thread.join().unwrap();
    assert_eq!((ended.finished, ended.cut), (3, 0));
    assert_eq!(ended.exit_code(), 0);
}

#[test]
fn what_is_open_at_the_deadline_is_cut_and_the_status_says_so() {
    let running = start(Duration::from_millis(60), None);
    running.cores.accept(0, 2);
    running.cores.accept(5, 1);
    running.cores.finish(0, 1);
    running.events.send(Event::Stop).unwrap();
    let ended = running.thread.join().unwrap();
    assert_eq!((ended.finished, ended.cut), (0, 2));
    assert_eq!(ended.exit_code(), 3);
}

#[test]
fn a_second_signal_ends_at_once() {
    let running = start(Duration::from_secs(3600), None);
    running.cores.accept(0, 1);
    let begin = Instant::now();
    running.events.send(Event::Stop).unwrap();
    running.events.send(Event::Stop).unwrap();
    let ended = running.thread.join().unwrap();
    assert_eq!((ended.cut, ended.exit_code()), (1, 3));
    assert!(begin.elapsed() < SOON);
}

#[test]
fn a_failed_core_ends_the_process_with_1() {
    let running = start(SOON, None);
    running.cores.accept(0, 1);
    running.cores.kill(5);
    let failed = Event::CoreFailed {
        core: 5,
        cause: "panicked".into(),
    };
    running.events.send(failed).unwrap();
    let ended = running.thread.join().unwrap();
    assert_eq!((ended.cut, ended.exit_code()), (1, 1));
}

#[test]
fn hangup_reloads_and_stop_still_works() {
    let running = start(SOON, None);
    for _ in 0..3 {
        running.events.send(Event::Reload).unwrap();
    }
    eventually("reload", || running.reloads.load(Ordering::SeqCst) == 3);
    running.events.send(Event::Stop).unwrap();
    assert_eq!(running.thread.join().unwrap().exit_code(), 0);
}

#[test]
fn a_storm_of_dump_requests_is_one_or_more_dumps() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(SOON, Some(directory.path()));
    running.cores.accept(0, 5);
    for _ in 0..200 {
        running.events.send(Event::Dump).unwrap();
    }
    let latest = directory.path().join("latest.txt");
    eventually("a dump", || latest.exists());
    running.cores.finish(0, 5);
    running.events.send(Event::Stop).unwrap();
    assert_eq!(running.thread.join().unwrap().exit_code(), 0);
    let page = fs::read_to_string(latest).unwrap();
    assert!(page.contains("all 2 cores"), "{page}");
    let accepted = page
        .lines()
        .find(|line| line.trim_start().starts_with("accepted"))
        .unwrap();
    assert!(accepted.ends_with(" 5"), "{accepted}");
}

#[test]
fn the_admin_endpoint_answers_its_three_pages() {
    let running = start(SOON, None);
    running.cores.accept(5, 2);
    let (head, body) = get(running.admin, "/metrics?x=1");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"));
    for line in [
        "pointsman_accepted_total 2",
        "pointsman_core_live_connections{core=\"5\"} 2",
        "pointsman_core_table_version{core=\"0\"} 7",
        "pointsman_log_lines_dropped_total 4",
        "pointsman_redis_state{state=\"live\"} 1",
        "pointsman_redis_state{state=\"lost\"} 0",
        "pointsman_table_age_seconds 1.5",
        "pointsman_hosts 3",
    ] {
        assert!(body.lines().any(|got| got == line), "no {line} in\n{body}");
    }
    let (_, body) = get(running.admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["cores"][1]["live"], 2);
    assert_eq!(status["sync"]["redis"], "live");
    assert_eq!(status["sync"]["table_age_s"], 1.5);
    assert_eq!(status["log_lines_dropped"], 4);
    assert_eq!(status["draining"], false);
    let (head, body) = get(running.admin, "/ready");
    assert!(head.starts_with("HTTP/1.1 200") && body == "ready\n");
    assert!(get(running.admin, "/").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn the_admin_endpoint_refuses_what_it_does_not_serve_and_goes_on() {
    let running = start(SOON, None);
    let (head, body) = exchange(running.admin, "HEAD /ready HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 6") && body.is_empty());
    let post = "POST /ready HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    assert!(exchange(running.admin, post).0.starts_with("HTTP/1.1 405"));
    let junk = exchange(running.admin, "\x16\x03\x01 no HTTP\r\n\r\n");
    assert!(junk.0.starts_with("HTTP/1.1 400"));
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000));
    assert!(
        exchange(running.admin, &endless)
            .0
            .starts_with("HTTP/1.1 400")
    );
    // One that says nothing costs the others its deadline and no more.
    let silent = TcpStream::connect(running.admin).unwrap();
    let begin = Instant::now();
    assert!(get(running.admin, "/ready").0.starts_with("HTTP/1.1 200"));
    assert!(begin.elapsed() < SOON);
    drop(silent);
}

#[test]
fn a_core_without_an_answer_is_named_in_the_status() {
    let running = start(SOON, None);
    running.cores.kill(5);
    let (_, body) = get(running.admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["cores_without_answer"], serde_json::json!([5]));
}

/// Set for the child process of the test below; names the directory to dump into.
const CHILD: &str = "CONTROL_TEST_LATENCY_DIR";

/// In the child process: the control thread with real signals.
fn child(latency_dir: &str) -> ! {
    let signals = SignalEvents::catch().unwrap();
    let cores = CoreThreads::start(&[0]);
    cores.accept(0, 1);
    let reloads = Arc::new(AtomicUsize::new(0));
    let control = control(
        cores,
        Duration::from_secs(3600),
        Some(Path::new(latency_dir)),
        reloads,
    );
    let admin = control.admin.as_ref().unwrap().address().unwrap();
    println!("admin {admin}");
    let ended = control.run(&signals).unwrap();
    std::process::exit(ended.exit_code().into());
}

fn signal(process: &Child, name: &str) {
    let kill = format!("kill -{name} {}", process.id());
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

#[test]
fn real_signals_dump_reload_drain_and_end() {
    if let Ok(latency_dir) = std::env::var(CHILD) {
        child(&latency_dir);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "control::tests::real_signals_dump_reload_drain_and_end",
            "--nocapture",
        ])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let admin: SocketAddr = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("admin ")?.1.parse().unwrap()))
        .unwrap();
    // Until this answer SIGTERM may still have its default effect.
    assert!(get(admin, "/ready").0.starts_with("HTTP/1.1 200"));
    for _ in 0..20 {
        signal(&process, "USR1");
    }
    let latest = directory.path().join("latest.hlog");
    eventually("a dump", || latest.exists());
    signal(&process, "HUP");
    signal(&process, "TERM");
    eventually("draining", || get(admin, "/ready").1 == "stopping\n");
    assert!(process.try_wait().unwrap().is_none());
    signal(&process, "INT");
    assert_eq!(process.wait().unwrap().code(), Some(3));
}
