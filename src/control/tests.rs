//! The control thread as a whole, on threads that stand for cores.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::*;
use crate::cores::ANSWER_TIMEOUT;
use crate::cores::double::CoreThreads;
use crate::sync::{RedisState, SyncStatus};

/// Far longer than anything here takes, so that only a hang runs into it.
const SOON: Duration = Duration::from_secs(20);

struct Running {
    cores: Arc<CoreThreads>,
    events: Sender<Event>,
    reloads: Arc<AtomicUsize>,
    admin: SocketAddr,
    thread: ControlThread,
}

fn control(drain: Duration, latency_dir: Option<&Path>, reloads: Arc<AtomicUsize>) -> Control {
    Control {
        drain,
        latency_dir: latency_dir.map(|path| LatencyDir::open(path).unwrap()),
        admin: Some(
            Admin::bind("127.0.0.1:0".parse().unwrap())
                .unwrap()
                .with_hosts(vec!["listed.example".into()]),
        ),
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
            lookup: false,
            dropped_lines: Box::new(|| 4),
        },
    }
}

fn start(drain: Duration, latency_dir: Option<&Path>) -> Running {
    let cores = CoreThreads::start(&[0, 5]);
    let reloads = Arc::new(AtomicUsize::new(0));
    let control = control(drain, latency_dir, reloads.clone());
    let admin = control.admin.as_ref().unwrap().address().unwrap();
    let (events, mut signals) = SignalEvents::without_signals();
    let thread = control.start(&mut signals).unwrap();
    thread.serve(cores.clone());
    Running {
        cores,
        events,
        reloads,
        admin,
        thread,
    }
}

/// As [`start`], but not yet serving.
fn start_waiting() -> (ControlThread, SocketAddr, Sender<Event>) {
    let control = control(SOON, None, Arc::default());
    let admin = control.admin.as_ref().unwrap().address().unwrap();
    let (events, mut signals) = SignalEvents::without_signals();
    (control.start(&mut signals).unwrap(), admin, events)
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
    exchange(
        admin,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}

#[test]
fn connections_that_finish_in_time_end_the_process_with_0() {
    let running = start(SOON, None);
    running.cores.accept(0, 2);
    running.cores.accept(5, 1);
    running.events.blocking_send(Event::Stop).unwrap();
    eventually("draining", || {
        get(running.admin, "/ready").1 == "stopping\n"
    });
    running.cores.finish(0, 2);
    assert!(!running.thread.thread.is_finished());
    running.cores.finish(5, 1);
    let ended = running.thread.join();
    assert_eq!((ended.finished, ended.cut), (3, 0));
    assert_eq!(ended.exit_code(), 0);
}

#[test]
fn what_is_open_at_the_deadline_is_cut_and_the_status_says_so() {
    let running = start(Duration::from_millis(60), None);
    running.cores.accept(0, 2);
    running.cores.accept(5, 1);
    running.cores.finish(0, 1);
    running.events.blocking_send(Event::Stop).unwrap();
    let ended = running.thread.join();
    assert_eq!((ended.finished, ended.cut), (0, 2));
    assert_eq!(ended.exit_code(), 3);
}

#[test]
fn a_second_signal_ends_at_once() {
    let running = start(Duration::from_secs(3600), None);
    running.cores.accept(0, 1);
    let begin = Instant::now();
    running.events.blocking_send(Event::Stop).unwrap();
    running.events.blocking_send(Event::Stop).unwrap();
    let ended = running.thread.join();
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
    running.events.blocking_send(failed).unwrap();
    let ended = running.thread.join();
    assert_eq!((ended.cut, ended.exit_code()), (1, 1));
}

#[test]
fn hangup_reloads_and_stop_still_works() {
    let running = start(SOON, None);
    for _ in 0..3 {
        running.events.blocking_send(Event::Reload).unwrap();
    }
    eventually("reload", || running.reloads.load(Ordering::SeqCst) == 3);
    running.events.blocking_send(Event::Stop).unwrap();
    assert_eq!(running.thread.join().exit_code(), 0);
}

#[test]
fn a_storm_of_dump_requests_is_one_or_more_dumps() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(SOON, Some(directory.path()));
    running.cores.accept(0, 5);
    for _ in 0..200 {
        running.events.blocking_send(Event::Dump).unwrap();
    }
    let latest = directory.path().join("latest.txt");
    eventually("a dump", || latest.exists());
    running.cores.finish(0, 5);
    running.events.blocking_send(Event::Stop).unwrap();
    assert_eq!(running.thread.join().exit_code(), 0);
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
        "pointsman_accepted_connections_total 2",
        "pointsman_core_open_connections{core=\"5\"} 2",
        "pointsman_core_routing_table_version{core=\"0\"} 7",
        "pointsman_log_lines_dropped_total 4",
        "pointsman_redis_state{state=\"live\"} 1",
        "pointsman_redis_state{state=\"lost\"} 0",
        "pointsman_routing_table_age_seconds 1.5",
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
    let post = "POST /ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    assert!(exchange(running.admin, post).0.starts_with("HTTP/1.1 405"));
    let junk = exchange(running.admin, "\x16\x03\x01 no HTTP\r\n\r\n");
    assert!(junk.0.starts_with("HTTP/1.1 400"));
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000));
    let endless = exchange(running.admin, &endless).0;
    assert!(endless.starts_with("HTTP/1.1 431"), "{endless}");
    assert!(get(running.admin, "/ready").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn it_answers_before_anybody_is_served() {
    let (thread, admin, events) = start_waiting();
    let (head, body) = get(admin, "/ready");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(body, "waiting for the first routing table\n");
    assert!(get(admin, "/metrics").0.starts_with("HTTP/1.1 200"));
    let status: serde_json::Value = serde_json::from_str(&get(admin, "/status").1).unwrap();
    assert_eq!(
        (&status["ready"], &status["cores"]),
        (&false.into(), &serde_json::json!([]))
    );
    thread.serve(CoreThreads::start(&[0]));
    assert!(get(admin, "/ready").0.starts_with("HTTP/1.1 200"));
    // A signal that came before is not lost.
    events.blocking_send(Event::Stop).unwrap();
    assert_eq!(thread.join().exit_code(), 0);
}

#[test]
fn clients_that_are_slow_in_any_way_are_in_nobodys_way() {
    let running = start(SOON, None);
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(running.admin).unwrap())
        .collect();
    let mut half = TcpStream::connect(running.admin).unwrap();
    half.write_all(b"GET /ready HTTP/1.1\r\nHost: local")
        .unwrap();
    let mut unread = TcpStream::connect(running.admin).unwrap();
    unread
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let begin = Instant::now();
    assert!(get(running.admin, "/ready").0.starts_with("HTTP/1.1 200"));
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    // Each of them is let go at its deadline.
    for mut client in silent.into_iter().chain([half]) {
        client.set_read_timeout(Some(SOON)).unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
    }
    assert!(begin.elapsed() < SOON);
}

#[test]
fn a_client_that_has_finished_sending_gets_its_page() {
    let running = start(SOON, None);
    // The page has to wait for a core that does not answer.
    running.cores.stall(5, true);
    let mut client = TcpStream::connect(running.admin).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut page = String::new();
    client.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("pointsman_uptime_seconds"), "{page}");
}

#[test]
fn more_connections_than_it_has_places_for_are_served_after_the_head_deadline() {
    let running = start(SOON, None);
    let _silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(running.admin).unwrap())
        .collect();
    assert!(get(running.admin, "/ready").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn a_request_for_another_host_is_refused() {
    let running = start(SOON, None);
    for host in ["evil.example", "127.0.0.2", "localhost.evil.example:80"] {
        for target in ["/backends", "/ready"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (head, body) = exchange(running.admin, &request);
            assert!(head.starts_with("HTTP/1.1 421"), "{host}: {head}");
            assert!(body.contains("--admin-host"), "{body}");
        }
    }
    for host in [
        running.admin.to_string().as_str(),
        "listed.example:1",
        "LOCALHOST",
    ] {
        let request = format!("GET /ready HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert!(
            exchange(running.admin, &request)
                .0
                .starts_with("HTTP/1.1 200")
        );
    }
}

#[test]
fn a_core_that_hangs_holds_up_neither_ready_nor_the_end() {
    let running = start(Duration::from_millis(60), None);
    running.cores.accept(0, 1);
    running.cores.stall(5, true);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let admin = running.admin;
            std::thread::spawn(move || get(admin, "/metrics").0)
        })
        .collect();
    let begin = Instant::now();
    assert!(get(running.admin, "/ready").0.starts_with("HTTP/1.1 200"));
    assert!(begin.elapsed() < ANSWER_TIMEOUT, "{:?}", begin.elapsed());
    for page in asking {
        assert!(page.join().unwrap().starts_with("HTTP/1.1 200"));
    }
    assert!(
        begin.elapsed() < 8 * ANSWER_TIMEOUT,
        "{:?}",
        begin.elapsed()
    );
    running.events.blocking_send(Event::Stop).unwrap();
    assert_eq!(running.thread.join().exit_code(), 3);
    assert!(begin.elapsed() < SOON);
}

#[test]
fn a_disk_that_hangs_under_a_dump_holds_up_neither_pages_nor_the_end() {
    for second_signal in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let drain = if second_signal { 3600 } else { 1 };
        let running = start(Duration::from_secs(drain), Some(directory.path()));
        running.cores.accept(0, 1);
        // Whoever opens it for writing waits for a reader that never comes.
        let name = format!(".pointsman-{}-1.hlog.partial", std::process::id());
        let fifo = directory.path().join(name);
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for _ in 0..3 {
            running.events.blocking_send(Event::Dump).unwrap();
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            assert!(get(running.admin, "/status").0.starts_with("HTTP/1.1 200"));
            assert!(get(running.admin, "/metrics").0.starts_with("HTTP/1.1 200"));
        }
        running.events.blocking_send(Event::Stop).unwrap();
        if second_signal {
            running.events.blocking_send(Event::Stop).unwrap();
        }
        assert_eq!(running.thread.join().exit_code(), 3);
        assert!(begin.elapsed() < SOON / 2, "{:?}", begin.elapsed());
        // Lets the thread that hangs in it go.
        drop(fs::OpenOptions::new().read(true).write(true).open(&fifo));
    }
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
    let mut signals = SignalEvents::catch().unwrap();
    let cores = CoreThreads::start(&[0]);
    cores.accept(0, 1);
    let reloads = Arc::new(AtomicUsize::new(0));
    let control = control(
        Duration::from_secs(3600),
        Some(Path::new(latency_dir)),
        reloads,
    );
    let admin = control.admin.as_ref().unwrap().address().unwrap();
    let thread = control.start(&mut signals).unwrap();
    signals.hold_stop();
    thread.serve(cores);
    println!("admin {admin}");
    let ended = thread.join();
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
