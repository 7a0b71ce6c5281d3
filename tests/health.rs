//! Active checks, end to end: backends that fail are found out without a client's help, get no new
//! connection while they are down and get them again afterwards; and nobody is asked more than once
//! per interval.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::backend::{self, Backend};
use support::client::{self, Response};
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::trio::Server;
use support::wait_until;

const SOON: Duration = Duration::from_secs(10);
/// Of every check here.
const INTERVAL: Duration = Duration::from_millis(100);
/// Clients of which each backend that may be chosen gets some.
const MANY: usize = 40;

/// As options in front of the members of a static route.
fn checked(options: &[&str], members: &[String]) -> Vec<String> {
    let usual = ["check-interval=100ms", "check-timeout=100ms"];
    let options = usual.iter().chain(options);
    let options = options.map(|option| format!("@{option}"));
    options.chain(members.iter().cloned()).collect()
}

fn start(host: &str, entries: &[String]) -> Proxy {
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    Options::new().route(host, &entries).start()
}

/// What the page says of the backend's checks.
fn checks(proxy: &Proxy, member: &str) -> Option<Vec<serde_json::Value>> {
    let page: serde_json::Value =
        serde_json::from_str(&proxy.admin_page("/backends")).expect("the page is JSON");
    let backends = page["backends"].as_array().expect("it lists backends");
    let entry = backends.iter().find(|entry| entry["backend"] == member)?;
    Some(entry["checks"].as_array().expect("it lists checks").clone())
}

/// Whether the page says so of each check of the backend, of which there is at least one.
fn is_up(proxy: &Proxy, member: &str) -> Option<bool> {
    let checks = checks(proxy, member)?;
    let ups: Option<Vec<bool>> = checks.iter().map(|check| check["up"].as_bool()).collect();
    let ups = ups.filter(|ups| !ups.is_empty())?;
    Some(ups.into_iter().all(|up| up))
}

fn wait_for_verdict(proxy: &Proxy, member: &str, up: bool) {
    wait_until(&format!("{member} is up: {up}"), SOON, || {
        is_up(proxy, member) == Some(up)
    });
}

fn count(proxy: &Proxy, series: &str) -> u64 {
    proxy.series(series).expect("there is such a series") as u64
}

fn tls_answers(proxy: &Proxy) -> Vec<String> {
    who_answers(|| client::tls_get(proxy.https(), "a.test", "/"))
}

fn http_answers(proxy: &Proxy) -> Vec<String> {
    who_answers(|| client::http_get(proxy.http(), "a.test", "/"))
}

/// Who answers many clients one after the other, each of which gets its answer.
fn who_answers(ask: impl Fn() -> io::Result<Response>) -> Vec<String> {
    let answers = (0..MANY).map(|_| ask().expect("every client is served"));
    let names: BTreeSet<String> = answers.map(|answer| answer.text().to_owned()).collect();
    names.into_iter().collect()
}

/// Three nginx behind one name, and the first of them fails without any client to notice.
fn a_server_fails(
    check: &str,
    cause: &str,
    fail: impl FnOnce(&mut Server),
    heal: impl FnOnce(&mut Server),
) {
    let mut servers = ["A", "B", "C"].map(Server::start);
    let members = servers
        .each_ref()
        .map(|server| server.address().to_string());
    let options = [check, "check-fall=2", "balance=round-robin"];
    let proxy = start("a.test", &checked(&options, &members));
    wait_until("the checks run", SOON, || {
        count(&proxy, "pointsman_health_checks_total{result=\"success\"}") >= 6
    });
    assert_eq!(tls_answers(&proxy), ["A", "B", "C"]);
    fail(&mut servers[0]);
    wait_for_verdict(&proxy, &members[0], false);
    assert_eq!(count(&proxy, "pointsman_backends{state=\"down\"}"), 1);
    assert_eq!(count(&proxy, "pointsman_backends{state=\"up\"}"), 2);
    let series = |member| format!("pointsman_backend_up{{backend=\"{member}\"}}");
    let ups = members
        .each_ref()
        .map(|member| count(&proxy, &series(member)));
    assert_eq!(ups, [0, 1, 1]);
    let summary = &proxy.status()["backends"];
    assert_eq!(
        (&summary["down"], &summary["checked"]),
        (&1.into(), &3.into())
    );
    let said = &checks(&proxy, &members[0]).expect("it is listed")[0];
    assert!(
        said["cause"]
            .as_str()
            .is_some_and(|said| said.contains(cause)),
        "{said}"
    );
    assert_eq!(said["name"], "a.test");
    assert!(
        said["latency_ms"].is_f64() && said["since_ms"].is_u64(),
        "{said}"
    );
    assert_eq!(tls_answers(&proxy), ["B", "C"]);
    let line = proxy.wait_for_line("backend is down", SOON);
    assert!(line.contains(&members[0]) && line.contains(cause), "{line}");
    assert!(line.contains(" in_a_row=2"), "{line}");
    heal(&mut servers[0]);
    wait_for_verdict(&proxy, &members[0], true);
    assert_eq!(tls_answers(&proxy), ["A", "B", "C"]);
    proxy.wait_for_line("backend is up again", SOON);
    // No connection of a client had to find out.
    assert_eq!(count(&proxy, "pointsman_outlier_ejections_total"), 0);
    assert_eq!(
        count(
            &proxy,
            "pointsman_upstream_retries_total{reason=\"unanswered\"}"
        ),
        0
    );
    assert_eq!(proxy.stderr().matches("backend is down").count(), 1);
}

#[test]
fn a_killed_server_is_down_until_it_is_started_again() {
    a_server_fails(
        "check=tcp",
        "connection refused",
        Server::kill,
        Server::revive,
    );
}

#[test]
fn a_frozen_server_is_down_although_its_kernel_accepts() {
    let freeze = |server: &mut Server| server.signal("STOP");
    let thaw = |server: &mut Server| server.signal("CONT");
    a_server_fails("check=tls", "no answer within 100ms", freeze, thaw);
}

/// An HTTP server that answers the check's path with 503 while it is told to, and else with its name.
fn moody(name: &str, is_sick: Arc<AtomicBool>) -> Backend {
    let name = name.to_owned();
    backend::raw(move |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let asks = head.starts_with("GET /health HTTP/1.1\r\nHost: a.test\r\n");
        let status = if asks && is_sick.load(Ordering::SeqCst) {
            "503 Service Unavailable"
        } else {
            "200 OK"
        };
        let length = name.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
        );
        let _ = stream.write_all(answer.as_bytes());
    })
}

#[test]
fn a_server_that_answers_503_is_down_while_it_does() {
    let is_sick = Arc::new(AtomicBool::new(false));
    let well = || Arc::new(AtomicBool::new(false));
    let servers = [
        moody("A", is_sick.clone()),
        moody("B", well()),
        moody("C", well()),
    ];
    let members = servers.each_ref().map(Backend::member);
    let options = ["check=http", "check-path=/health", "balance=round-robin"];
    let proxy = start("a.test", &checked(&options, &members));
    assert_eq!(http_answers(&proxy), ["A", "B", "C"]);
    is_sick.store(true, Ordering::SeqCst);
    wait_for_verdict(&proxy, &members[0], false);
    let line = proxy.wait_for_line("backend is down", SOON);
    assert!(line.contains("status 503"), "{line}");
    assert_eq!(http_answers(&proxy), ["B", "C"]);
    is_sick.store(false, Ordering::SeqCst);
    wait_for_verdict(&proxy, &members[0], true);
    assert_eq!(http_answers(&proxy), ["A", "B", "C"]);
}

#[test]
fn hosts_that_share_a_check_ask_once_and_nobody_asks_when_it_is_gone() {
    let redis = RedisServer::start();
    let server = backend::echo("shared");
    let options = "check tcp check-interval 100ms";
    for host in ["a.test", "b.test"] {
        redis.run(&[
            &format!("SADD hostnames:{host}:backends {}", server.member()),
            &format!("HSET hostnames:{host}:options {options}"),
        ]);
    }
    let mut proxy = Options::new().args(&["--redis", &redis.url()]).start();
    // A question that is under way.
    proxy.expect_descriptors(1);
    wait_until("it is asked", SOON, || server.accepted() > 0);
    let per_second = |span: Duration| {
        let before = server.accepted();
        std::thread::sleep(span);
        (server.accepted() - before) as f64 / span.as_secs_f64()
    };
    let asked = per_second(Duration::from_secs(2));
    assert!((7.0..13.0).contains(&asked), "{asked} questions a second");
    redis.run(&["HDEL hostnames:a.test:options check"]);
    std::thread::sleep(5 * INTERVAL);
    let asked = per_second(Duration::from_secs(1));
    assert!(asked > 5.0, "{asked} questions a second for the other host");
    redis.run(&["HDEL hostnames:b.test:options check"]);
    wait_until("the check is gone", SOON, || {
        is_up(&proxy, &server.member()).is_none()
    });
    std::thread::sleep(3 * INTERVAL);
    assert_eq!(per_second(10 * INTERVAL), 0.0);
}

#[test]
fn a_check_that_redis_brings_later_starts_at_once_and_says_its_name_behind_a_header() {
    let redis = RedisServer::start();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let server = backend::raw(move |mut stream| {
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        seen.lock().unwrap().push(bytes);
        // A fatal unrecognized_name.
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 112]);
    });
    let member = format!("{} proxy=v2", server.member());
    let mut proxy = Options::new().args(&["--redis", &redis.url()]).start();
    // The prober's runtime, and a question that is under way.
    proxy.expect_descriptors(5);
    redis.run_words(&[b"SADD", b"hostnames:*.a.test:backends", member.as_bytes()]);
    redis.run(&["HSET hostnames:*.a.test:options check tls check-interval 100ms"]);
    wait_for_verdict(&proxy, &member, false);
    let line = proxy.wait_for_line("backend is down", SOON);
    assert!(line.contains("alert 112"), "{line}");
    // The backend needs the list to answer, so it is not held.
    let head = heads.lock().unwrap().last().expect("it was asked").clone();
    let (header, hello) = head.split_at(16);
    assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert!(hello.windows(6).any(|part| part == b"a.test"));
    // The only backend there is: it is tried all the same.
    let error = client::tls_get(proxy.https(), "www.a.test", "/").err();
    let error = error.expect("the backend wants no such name").to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
}

/// A server that answers one question after the other with these, then always with the last one.
fn scripted(script: Arc<Mutex<VecDeque<u16>>>) -> Backend {
    backend::raw(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let mut script = script.lock().unwrap();
        let status = match script.len() {
            1 => script[0],
            _ => script.pop_front().expect("it never gets empty"),
        };
        let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes());
    })
}

#[test]
fn only_as_many_answers_in_a_row_as_are_asked_for_turn_a_verdict() {
    let script = Arc::new(Mutex::new(VecDeque::from([200])));
    let server = scripted(script.clone());
    let options = ["check=http", "check-fall=4", "check-rise=3"];
    let proxy = start("a.test", &checked(&options, &[server.member()]));
    let play = |answers: &[u16]| {
        *script.lock().unwrap() = answers.iter().copied().collect();
        wait_until("all are given", SOON, || script.lock().unwrap().len() == 1);
        // A question follows when the verdict on the answer before is made; the last answer is
        // thus given twice at least.
        let before = server.accepted();
        wait_until("it goes on", SOON, || server.accepted() >= before + 2);
    };
    let turns = || {
        let said = proxy.stderr();
        let times = |line| said.matches(line).count();
        (times("backend is down"), times("backend is up again"))
    };
    play(&[503, 503, 503, 200, 503, 503, 503, 200]);
    assert_eq!(
        (turns(), is_up(&proxy, &server.member())),
        ((0, 0), Some(true))
    );
    play(&[503, 503, 503, 503, 200, 200, 503, 200, 200, 503]);
    proxy.wait_for_line("backend is down", SOON);
    assert_eq!(
        (turns(), is_up(&proxy, &server.member())),
        ((1, 0), Some(false))
    );
    play(&[200, 200, 200]);
    let line = proxy.wait_for_line("backend is up again", SOON);
    assert!(line.contains(" in_a_row=3"), "{line}");
    assert_eq!(
        (turns(), is_up(&proxy, &server.member())),
        ((1, 1), Some(true))
    );
    // It is up, and says why it was not.
    let said = &checks(&proxy, &server.member()).expect("it is listed")[0];
    assert_eq!(said["cause"], "status 503");
}

#[test]
fn a_unix_socket_is_asked_behind_a_header_and_under_the_name_of_the_option() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let server = backend::raw_unix(&path, move |mut stream| {
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).unwrap_or(0);
        seen.lock()
            .unwrap()
            .push(String::from_utf8_lossy(&bytes[..count]).into_owned());
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let member = format!("{} proxy=v1", server.member());
    let options = [
        "check=http",
        "check-path=/up?deep=1",
        "check-name=other.test",
    ];
    let options = [&options[..], &["check-status=204"]].concat();
    let proxy = start("a.test", &checked(&options, std::slice::from_ref(&member)));
    wait_until("good answers", SOON, || {
        count(&proxy, "pointsman_health_checks_total{result=\"success\"}") >= 2
    });
    let want = format!(
        "PROXY UNKNOWN\r\nGET /up?deep=1 HTTP/1.1\r\nHost: other.test\r\n\
         User-Agent: pointsman-health/{}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let head = heads.lock().unwrap().first().expect("it was asked").clone();
    assert!(
        head.starts_with(&want) && head.contains("Connection: close\r\n"),
        "{head}"
    );
    assert_eq!(
        count(&proxy, "pointsman_health_checks_total{result=\"failure\"}"),
        0
    );
    // The listener is gone, and with it the backend.
    drop(server);
    let text = format!("unix:{} proxy=v1", path.display());
    wait_for_verdict(&proxy, &text, false);
    let line = proxy.wait_for_line("backend is down", SOON);
    assert!(line.contains("connection refused"), "{line}");
}
