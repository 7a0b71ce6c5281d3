//! The whole process with a real Redis: changes reach every core and every new connection, and
//! no client fails because of what happens to Redis.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::backend::{self, Backend};
use support::client::{self, Response};
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::wait_until;

const SOON: Duration = Duration::from_secs(10);

fn with_redis(url: &str) -> Options {
    Options::new().cores("0-1").args(&[
        "--redis",
        url,
        "--redis-ping",
        "300ms",
        "--redis-ping-timeout",
        "500ms",
        "--redis-hold",
        "2s",
    ])
}

fn add(redis: &RedisServer, host: &str, backend: &Backend) {
    redis.run(&[&format!(
        "SADD hostnames:{host}:backends {}",
        backend.member()
    )]);
}

fn get(http: SocketAddr, host: &str) -> Response {
    client::http_get(http, host, "/").expect("an answer")
}

/// Asserts that all cores route alike. The kernel spreads connections over the cores, so several are made.
fn wait_for_answer(proxy: &Proxy, host: &str, text: &str) {
    wait_until(&format!("{host} is {text}"), SOON, || {
        (0..8).all(|_| get(proxy.http(), host).text() == text)
    });
}

fn wait_for_state(proxy: &Proxy, state: &str) {
    wait_until(&format!("Redis is {state}"), SOON, || {
        proxy.status()["sync"]["redis"] == state
    });
}

fn assert_cores_agree(proxy: &Proxy) {
    wait_until("all cores have the same table", SOON, || {
        let versions = proxy.per_core("table_version");
        let newest = proxy.status()["sync"]["version"].as_u64();
        versions.iter().all(|version| Some(*version) == newest)
    });
}

/// Runs `disturb` while clients ask for `a.test` without a pause, and fails when one of them does
/// not get `text`.
fn under_load(proxy: &Proxy, text: &str, disturb: impl FnOnce()) {
    let http = proxy.http();
    let done = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(get(http, "a.test").text(), text);
                    served.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        disturb();
        done.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_change_in_redis_reaches_every_core_and_the_next_request_of_open_connections() {
    let redis = RedisServer::start();
    let (first, second) = (backend::http("first"), backend::http("second"));
    add(&redis, "a.test", &first);
    let proxy = with_redis(&redis.url()).start();
    wait_for_answer(&proxy, "a.test", "first");
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut open = client::connect(proxy.http());
    open.write_all(request).expect("the proxy reads");
    assert_eq!(
        Response::read(&mut open).expect("an answer").text(),
        "first"
    );

    add(&redis, "a.test", &second);
    redis.run(&[&format!(
        "SREM hostnames:a.test:backends {}",
        first.member()
    )]);
    wait_for_answer(&proxy, "a.test", "second");
    assert_cores_agree(&proxy);
    open.write_all(request).expect("the proxy reads");
    assert_eq!(
        Response::read(&mut open).expect("an answer").text(),
        "second"
    );

    add(&redis, "b.test", &first);
    wait_for_answer(&proxy, "b.test", "first");
    redis.run(&["DEL hostnames:a.test:backends"]);
    wait_until("the route is gone", SOON, || {
        (0..8).all(|_| get(proxy.http(), "a.test").status == 421)
    });
    open.write_all(request).expect("the proxy reads");
    assert_eq!(Response::read(&mut open).expect("an answer").status, 421);
    assert_cores_agree(&proxy);
}

#[test]
fn a_killed_redis_fails_no_client_and_its_successor_is_followed() {
    let mut redis = RedisServer::start();
    let (first, second) = (backend::http("first"), backend::http("second"));
    add(&redis, "a.test", &first);
    let proxy = with_redis(&redis.url()).start();
    wait_for_answer(&proxy, "a.test", "first");
    under_load(&proxy, "first", || {
        redis.kill();
        wait_for_state(&proxy, "lost");
        // Under load, without it.
        std::thread::sleep(Duration::from_millis(500));
    });
    redis.restart();
    add(&redis, "a.test", &second);
    wait_for_answer(&proxy, "a.test", "second");
    wait_for_state(&proxy, "live");
    assert_cores_agree(&proxy);
}

#[test]
fn a_frozen_redis_is_noticed_and_fails_no_client() {
    let redis = RedisServer::start();
    let (first, second) = (backend::http("first"), backend::http("second"));
    add(&redis, "a.test", &first);
    let proxy = with_redis(&redis.url()).start();
    wait_for_answer(&proxy, "a.test", "first");
    under_load(&proxy, "first", || {
        redis.freeze();
        wait_for_state(&proxy, "lost");
    });
    redis.thaw();
    wait_for_state(&proxy, "live");
    add(&redis, "a.test", &second);
    redis.run(&[&format!(
        "SREM hostnames:a.test:backends {}",
        first.member()
    )]);
    wait_for_answer(&proxy, "a.test", "second");
    assert_cores_agree(&proxy);
}

#[test]
fn a_flushed_redis_is_not_believed_at_once() {
    let redis = RedisServer::start();
    let first = backend::http("first");
    // The removal of a few hosts is not held back.
    let fill = || {
        add(&redis, "a.test", &first);
        for number in 0..50 {
            add(&redis, &format!("{number}.test"), &first);
        }
    };
    fill();
    let proxy = with_redis(&redis.url()).start();
    wait_for_answer(&proxy, "a.test", "first");
    // FLUSHALL and new data, as in a reload.
    under_load(&proxy, "first", || {
        redis.run(&["FLUSHALL"]);
        proxy.wait_for_line("most hosts are gone", SOON);
        // Under load, while the removal is held back.
        std::thread::sleep(Duration::from_millis(500));
        fill();
        // Longer than the hold.
        std::thread::sleep(Duration::from_millis(2500));
    });
    redis.run(&["FLUSHALL"]);
    wait_until("it stays empty and is believed", SOON, || {
        get(proxy.http(), "a.test").status == 421
    });
    assert_cores_agree(&proxy);
}

#[test]
fn a_wrong_password_is_said_once_a_while_and_never_shown() {
    let redis = RedisServer::start_with(&["--requirepass", "right-one"]);
    let fallback = backend::http("fallback");
    let url = format!("redis://:wrong-secret@127.0.0.1:{}", redis.port());
    let proxy = with_redis(&url)
        .args(&["--log", "debug"])
        .route("a.test", &[&fallback.member()])
        .start();
    wait_for_answer(&proxy, "a.test", "fallback");
    // How often the log complains shows only over a while.
    std::thread::sleep(Duration::from_secs(2));
    let said = proxy.stderr();
    assert!(!said.contains("wrong-secret"), "{said}");
    let complaints = said
        .lines()
        .filter(|line| line.contains("level=warn") && line.contains("assword"))
        .count();
    assert!((1..=10).contains(&complaints), "{said}");
    assert!(!proxy.admin_page("/status").contains("wrong-secret"));
    let right = format!("redis://:right-one@127.0.0.1:{}", redis.port());
    let proxy = with_redis(&right)
        .args(&["--log", "debug"])
        .route("a.test", &[&fallback.member()])
        .start();
    wait_for_state(&proxy, "live");
    assert!(!proxy.stderr().contains("right-one"));
}

#[test]
fn a_snapshot_serves_a_start_without_redis() {
    let mut redis = RedisServer::start();
    let (first, second) = (backend::http("first"), backend::http("second"));
    add(&redis, "a.test", &first);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("snapshot");
    let snapshot = ["--snapshot", file.to_str().expect("plain text")];
    let proxy = with_redis(&redis.url()).args(&snapshot).start();
    wait_for_answer(&proxy, "a.test", "first");
    wait_until("a snapshot", SOON, || file.exists());
    drop(proxy);
    redis.kill();
    let mut proxy = with_redis(&redis.url()).args(&snapshot).start();
    proxy.expect_descriptors(1);
    wait_for_answer(&proxy, "a.test", "first");
    redis.restart();
    add(&redis, "a.test", &second);
    wait_for_answer(&proxy, "a.test", "second");
    assert_cores_agree(&proxy);
}

#[test]
fn static_routes_serve_where_redis_has_none() {
    let redis = RedisServer::start();
    let (theirs, ours) = (backend::http("redis"), backend::http("static"));
    add(&redis, "a.test", &theirs);
    let proxy = with_redis(&redis.url())
        .route("a.test", &[&ours.member()])
        .route("b.test", &[&ours.member()])
        .start();
    wait_for_answer(&proxy, "a.test", "redis");
    wait_for_answer(&proxy, "b.test", "static");
    redis.run(&["DEL hostnames:a.test:backends"]);
    wait_for_answer(&proxy, "a.test", "static");
    assert_cores_agree(&proxy);
}

#[test]
fn poison_in_redis_hurts_only_its_own_route() {
    let redis = RedisServer::start();
    let good = backend::http("good");
    add(&redis, "a.test", &good);
    add(&redis, "mixed.test", &good);
    let long = vec![b'x'; 1 << 20];
    let members: [&[u8]; 7] = [
        b"127.0.0.1:0",
        b"127.0.0.1:70000",
        b"a\0b:80",
        b"",
        b"{\"json\": [",
        b"line\nlevel=error forged=yes",
        &long,
    ];
    for member in members {
        redis.run_words(&[b"SADD", b"hostnames:mixed.test:backends", member]);
    }
    redis.run(&["SET hostnames:string.test:backends 127.0.0.1:80"]);
    redis.run(&["HSET hostnames:hash.test:backends 127.0.0.1:80 1"]);
    redis.run_words(&[b"SADD", b"hostnames:bad\0name:backends", b"127.0.0.1:80"]);
    let proxy = with_redis(&redis.url()).start();
    wait_for_answer(&proxy, "a.test", "good");
    wait_for_answer(&proxy, "mixed.test", "good");
    // Somebody meant to serve these names, so they do not fall to the default.
    assert_eq!(get(proxy.http(), "string.test").status, 502);
    assert_eq!(get(proxy.http(), "hash.test").status, 502);
    let sync = proxy.status()["sync"].clone();
    assert_eq!(sync["rejected_members"], 7, "{sync}");
    assert_eq!(sync["rejected_keys"], 3, "{sync}");
    let said = proxy.stderr();
    assert!(
        !said.lines().any(|line| line.starts_with("level=error")),
        "{said}"
    );
    assert!(said.len() < 100_000, "{} bytes of log", said.len());
}

#[test]
fn a_rejected_routes_file_and_a_snapshot_that_fails_are_seen_from_outside() {
    let redis = RedisServer::start();
    let good = backend::http("good");
    add(&redis, "a.test", &good);
    let directory = tempfile::tempdir().expect("a directory");
    let routes = directory.path().join("routes.toml");
    let snapshot = directory.path().join("later/snapshot");
    let write = |member: &str| {
        let text = format!("[routes]\n\"file.test\" = \"{member}\"\n");
        std::fs::write(&routes, text).expect("a file");
    };
    write(&good.member());
    let plain = |path: &std::path::Path| path.to_str().expect("plain text").to_owned();
    let proxy = with_redis(&redis.url())
        .args(&["--routes", &plain(&routes), "--snapshot", &plain(&snapshot)])
        .start();
    let seen = |what: &str, rejected: u8, failed: u8| {
        wait_until(what, SOON, || {
            let sync = proxy.status()["sync"].clone();
            let metrics = proxy.admin_page("/metrics");
            let gauge = |name: &str, value| metrics.contains(&format!("\n{name} {value}\n"));
            sync["routes_file_error"].is_null() == (rejected == 0)
                && sync["snapshot_error"].is_null() == (failed == 0)
                && sync["snapshot_age_s"].is_null() == (failed == 1)
                && metrics.contains("pointsman_snapshot_age_seconds ") == (failed == 0)
                && gauge("pointsman_routes_file_rejected", rejected)
                && gauge("pointsman_snapshot_write_failed", failed)
        });
    };
    seen("the snapshot fails", 0, 1);
    write("10.0.0.1:0");
    seen("the file is rejected", 1, 1);
    let error = proxy.status()["sync"]["routes_file_error"].to_string();
    assert!(error.contains("routes.toml:2"), "{error}");
    wait_for_answer(&proxy, "file.test", "good");
    write(&good.member());
    std::fs::create_dir(directory.path().join("later")).expect("a directory");
    seen("all is well", 0, 0);
}
