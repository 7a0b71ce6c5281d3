//! Clients of a backend that has as many connections as it may: first come, first served, on whatever
//! cores they are, and only for as long as they stay.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::backend::{self, Backend};
use support::client::{self, Hello};
use support::http::Wire;
use support::proxy::{Options, Proxy};
use support::wait_until;

const SOON: Duration = Duration::from_secs(5);

/// Says `o` to whatever it is sent, as an HTTP response that has no end where that is HTTP, and stays
/// until its client leaves.
fn staying() -> Backend {
    backend::raw(|mut stream| {
        let mut first = [0; 1024];
        let read = stream.read(&mut first).unwrap_or(0);
        let answer: &[u8] = if first[..read].starts_with(b"GET ") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\no"
        } else {
            b"o"
        };
        let _ = stream.write_all(answer);
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

fn start(member: &str, args: &[&str]) -> Proxy {
    Options::new()
        .cores("0-1")
        .route("a.test", &[member])
        .args(args)
        .start()
}

/// A client that has said what it wants.
fn open(proxy: &Proxy, is_tls: bool) -> TcpStream {
    let mut stream = client::connect(if is_tls { proxy.https() } else { proxy.http() });
    let first = if is_tls {
        Hello::named("a.test").record()
    } else {
        client::request("a.test")
    };
    stream.write_all(&first).expect("the proxy listens");
    stream
}

/// Whether it is served within `patience`; an answer of the proxy itself is a failure.
fn is_served(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("a socket");
    let mut first = [0; 64];
    match stream.read(&mut first) {
        Ok(read) if first[..read].starts_with(b"o") || first.starts_with(b"HTTP/1.1 200") => true,
        Ok(read) => panic!("it was told {:?}", first[..read].escape_ascii().to_string()),
        Err(_) => false,
    }
}

fn queued(proxy: &Proxy) -> u64 {
    let value = proxy.series("pointsman_upstream_queued_total");
    value.expect("a counter") as u64
}

fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    let linger = Some(Duration::ZERO);
    socket.set_linger(linger).expect("a socket option");
}

#[test]
fn places_go_round_in_the_order_of_arrival() {
    let backend = staying();
    let member = format!("{} max=2", backend.member());
    let proxy = start(&member, &["--queue-deadline", "30s"]);
    for is_tls in [true, false] {
        let mut served: Vec<TcpStream> = (0..2).map(|_| open(&proxy, is_tls)).collect();
        for stream in &mut served {
            assert!(is_served(stream, SOON), "there is room");
        }
        let before = queued(&proxy);
        let mut waiting = Vec::new();
        for nth in 1..=8 {
            waiting.push(open(&proxy, is_tls));
            wait_until("it waits", SOON, || queued(&proxy) == before + nth);
        }
        for nth in 0..8 {
            reset(served.remove(0));
            let mut next = waiting.remove(0);
            assert!(is_served(&mut next, SOON), "the {nth}th");
            served.push(next);
        }
        served.into_iter().for_each(reset);
        wait_until("all have ended", SOON, || proxy.live() == 0);
    }
}

#[test]
fn nobody_is_refused_while_the_queue_moves_fast_enough() {
    let backend = support::http::scripted(|_, _| {
        std::thread::sleep(Duration::from_millis(10));
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_vec())
    });
    let member = format!("{} max=4", backend.member());
    let proxy = start(&member, &["--queue-deadline", "4s"]);
    let (served, longest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let began = Instant::now();
                    let answer = client::http_get(proxy.http(), "a.test", "/");
                    assert_eq!(answer.expect("an answer").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                    let took = began.elapsed().as_millis() as usize;
                    longest.fetch_max(took, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), 300);
    assert_eq!(proxy.outcome("http", "backends_full"), 0);
}

#[test]
fn who_has_left_waits_no_longer_and_is_given_no_backend() {
    let backend = staying();
    let member = format!("{} max=1", backend.member());
    let args = ["--queue", "4", "--queue-deadline", "30s"];
    for (is_tls, leaves_by_reset) in [(true, true), (true, false), (false, true), (false, false)] {
        let what = format!("tls {is_tls}, reset {leaves_by_reset}");
        // Without a word from the operator an HTTP client may still read.
        let aborts = !is_tls && !leaves_by_reset;
        let finished = if aborts { "abort" } else { "wait" };
        let proxy = start(
            &member,
            &[&args[..], &["--client-finished", finished]].concat(),
        );
        let mut served = open(&proxy, is_tls);
        assert!(is_served(&mut served, SOON), "{what}");
        let (reached, before) = (backend.accepted(), queued(&proxy));
        let departing: Vec<TcpStream> = (0..4).map(|_| open(&proxy, is_tls)).collect();
        wait_until("all wait", SOON, || queued(&proxy) == before + 4);
        for stream in departing {
            if leaves_by_reset {
                reset(stream);
            } else {
                drop(stream);
            }
        }
        wait_until(&format!("all have gone: {what}"), SOON, || {
            proxy.live() == 1
        });
        let mut next = open(&proxy, is_tls);
        wait_until("it waits", SOON, || queued(&proxy) == before + 5);
        reset(served);
        assert!(is_served(&mut next, SOON), "{what}");
        assert_eq!(backend.accepted(), reached + 1, "{what}");
        reset(next);
        wait_until("all have ended", SOON, || proxy.live() == 0);
    }
}

/// It may still read, and nothing tells.
#[test]
fn an_http_client_that_has_finished_sending_keeps_its_turn() {
    let (release, released) = std::sync::mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let backend = support::http::scripted(move |_, _| {
        let released = released.lock().expect("nobody panics");
        released.recv_timeout(SOON).expect("it is released");
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\no".to_vec())
    });
    let member = format!("{} max=1", backend.member());
    let proxy = start(&member, &["--queue-deadline", "30s"]);
    let mut served = open(&proxy, false);
    wait_until("it has the place", SOON, || backend.accepted() == 1);
    let mut half_closed = open(&proxy, false);
    half_closed.shutdown(Shutdown::Write).expect("connected");
    wait_until("it waits", SOON, || queued(&proxy) == 1);
    for stream in [&mut served, &mut half_closed] {
        release.send(()).expect("the backend lives");
        assert!(is_served(stream, SOON));
    }
}

/// A place is not all that one may wait for.
#[test]
fn who_waits_takes_what_comes_instead_of_a_place() {
    let (backend, spare) = (staying(), support::http::reflecting("spare"));
    let redis = support::redis::RedisServer::start();
    let key = "hostnames:a.test:backends";
    let full = format!("{} max=1", backend.member());
    redis.run_words(&[b"SADD", key.as_bytes(), full.as_bytes()]);
    let backup = format!("{} backup", spare.member());
    redis.run_words(&[b"SADD", key.as_bytes(), backup.as_bytes()]);
    let args = ["--queue-deadline", "30s", "--eject-failures", "1"];
    let proxy = Options::new()
        .args(&["--redis", &redis.url()])
        .args(&args)
        .start();
    let mut served = open(&proxy, false);
    assert!(is_served(&mut served, SOON));
    let mut waiting = Wire::connect(proxy.http());
    waiting.send(client::request("a.test"));
    wait_until("it waits", SOON, || queued(&proxy) == 1);
    drop(backend);
    // The next one finds nobody, so that the backend is out and the backup serves.
    reset(served);
    assert_eq!(waiting.response().status(), 200);
}

/// What has answered one request answers the next, instead of being connected to anew for each that
/// has waited.
#[test]
fn who_has_waited_uses_the_connection_that_became_free() {
    let backend = support::http::scripted(|_, _| {
        std::thread::sleep(Duration::from_millis(20));
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let member = format!("{} max=1", backend.member());
    let proxy = Options::new()
        .route("a.test", &[&member])
        .args(&["--queue-deadline", "10s"])
        .start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = client::http_get(proxy.http(), "a.test", "/");
                assert_eq!(answer.expect("an answer").status, 200);
            });
        }
    });
    assert!(queued(&proxy) > 0);
    assert_eq!(backend.accepted(), 1);
}
