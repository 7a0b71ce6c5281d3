//! Every wait has an end: for the head, for a backend to accept, and for another backend's turn.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::backend;
use support::client::{self, Answer, Hello, INTERNAL_ERROR};
use support::port::{refusing, silent};
use support::proxy::{Options, Proxy};

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// Reads to the end; what came and how long it took.
fn timed(mut stream: TcpStream) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = Answer::read(&mut stream);
    (answer, began.elapsed())
}

fn start(members: &[&str], args: &[&str]) -> Proxy {
    Options::new().route("a.test", members).args(args).start()
}

#[test]
fn a_head_has_one_deadline_however_it_comes() {
    let backend = backend::http("never");
    let proxy = start(&[&backend.member()], &["--head-deadline", "1s"]);
    let hello = Hello::named("a.test").record();
    // Nothing at all, also for a client that waits for the server to speak; a part; and a byte
    // every 100 ms, which must not count as a new beginning.
    for (address, bytes, is_http) in [
        (proxy.http(), HEAD, true),
        (proxy.https(), &hello[..], false),
    ] {
        for dripping in [None, Some(0), Some(25)] {
            let mut stream = client::connect(address);
            let began = Instant::now();
            let sent = dripping.map_or(0, |_| 5);
            stream.write_all(&bytes[..sent]).expect("the proxy listens");
            let mut sender = stream.try_clone().expect("a descriptor");
            let drip = bytes[sent..][..dripping.unwrap_or(0)].to_vec();
            let dripper = std::thread::spawn(move || {
                for byte in drip {
                    std::thread::sleep(Duration::from_millis(100));
                    if sender.write_all(&[byte]).is_err() {
                        return;
                    }
                }
            });
            let answer = Answer::read(&mut stream);
            let took = began.elapsed().as_millis();
            // A silent client is handed over by the kernel after a second (TCP_DEFER_ACCEPT).
            assert!((900..3500).contains(&took), "{dripping:?}: {took} ms");
            if is_http {
                assert!(answer.bytes.starts_with(b"HTTP/1.1 408 "), "{answer:?}");
            } else {
                assert_eq!(answer.bytes, b"", "{dripping:?}");
            }
            drop(stream);
            dripper.join().expect("it sends");
        }
    }
    proxy.wait_for_outcome("http", "head_timeout", 3);
    proxy.wait_for_outcome("tls", "head_timeout", 3);
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_client_that_finishes_within_its_head_is_let_go_at_once() {
    let backend = backend::http("never");
    let proxy = start(&[&backend.member()], &[]);
    let hello = Hello::named("a.test").record();
    for (address, bytes) in [(proxy.http(), HEAD), (proxy.https(), &hello[..])] {
        let mut stream = client::connect(address);
        stream.write_all(&bytes[..9]).expect("the proxy listens");
        stream.shutdown(Shutdown::Write).expect("connected");
        let (answer, took) = timed(stream);
        assert_eq!(answer.bytes, b"");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    proxy.wait_for_outcome("http", "client_left", 1);
    proxy.wait_for_outcome("tls", "client_left", 1);
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_backend_that_does_not_accept_has_a_deadline() {
    let (_full, address) = silent();
    let other = backend::http("other");
    let proxy = Options::new()
        .route("a.test", &[&address.to_string()])
        .route("b.test", &[&other.member()])
        .args(&["--connect-deadline", "600ms"])
        .start();
    let mut stream = client::connect(proxy.http());
    stream.write_all(HEAD).expect("the proxy listens");
    // Meanwhile other routes are served.
    let response = client::http_get(proxy.http(), "b.test", "/").expect("an answer");
    assert_eq!(response.text(), "other");
    let (answer, took) = timed(stream);
    assert_eq!(answer.status(), Some(504));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let mut stream = client::connect(proxy.https());
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    let (answer, took) = timed(stream);
    assert_eq!(answer.alert(), Some(INTERNAL_ERROR));
    let took = took.as_millis();
    assert!((500..3000).contains(&took), "{took} ms");
    proxy.wait_for_outcome("http", "backend_timeout", 1);
    proxy.wait_for_outcome("tls", "backend_timeout", 1);
}

#[test]
fn a_client_does_not_notice_a_backend_that_refuses_while_another_accepts() {
    let (_bound, refusing) = refusing();
    let serving = backend::http("serving");
    let members = [refusing.to_string(), serving.member()];
    let args = ["--balance", "round-robin", "--eject-failures", "0"];
    let proxy = start(&[&members[0], &members[1]], &args);
    for _ in 0..50 {
        let response = client::http_get(proxy.http(), "a.test", "/").expect("an answer");
        assert_eq!(response.text(), "serving");
    }
    let failures = proxy.series("pointsman_connect_failures_total");
    assert!(failures.expect("a counter") >= 20.0, "{failures:?}");
    proxy.wait_for_outcome("http", "relayed", 50);
}

#[test]
fn a_client_does_not_notice_a_backend_that_is_silent_while_another_accepts() {
    let (_full, silent) = silent();
    let serving = backend::http("serving");
    let members = [silent.to_string(), serving.member()];
    let proxy = start(
        &[&members[0], &members[1]],
        &["--balance", "round-robin", "--connect-deadline", "300ms"],
    );
    for _ in 0..4 {
        let response = client::http_get(proxy.http(), "a.test", "/").expect("an answer");
        assert_eq!(response.text(), "serving");
    }
}

#[test]
fn when_every_backend_refuses_the_client_is_told_at_once() {
    let bound = [refusing(), refusing(), refusing(), refusing()];
    let members: Vec<String> = bound.iter().map(|(_, at)| at.to_string()).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let proxy = start(&members, &["--connect-attempts", "3"]);
    let mut stream = client::connect(proxy.http());
    stream.write_all(HEAD).expect("the proxy listens");
    let (answer, took) = timed(stream);
    assert_eq!(answer.status(), Some(502));
    assert!(took < Duration::from_millis(500), "{took:?}");
    let attempts = proxy.series("pointsman_connect_attempts_total");
    assert_eq!(attempts, Some(3.0));
    let mut stream = client::connect(proxy.https());
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    let (answer, took) = timed(stream);
    assert_eq!(answer.alert(), Some(INTERNAL_ERROR));
    assert!(took < Duration::from_millis(500), "{took:?}");
    proxy.wait_for_outcome("http", "backend_unreachable", 1);
    proxy.wait_for_outcome("tls", "backend_unreachable", 1);
}

/// Once a backend has the head it may have acted on it, so nobody else is asked.
#[test]
fn a_backend_that_accepts_and_closes_is_not_replaced() {
    let closing = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
    });
    let proxy = start(&[&closing.member()], &[]);
    let mut stream = client::connect(proxy.http());
    stream.write_all(HEAD).expect("the proxy listens");
    let (answer, took) = timed(stream);
    assert_eq!(answer.status(), Some(502));
    assert!(took < Duration::from_secs(1), "{took:?}");
    proxy.wait_for_outcome("http", "backend_closed", 1);
    assert_eq!(closing.accepted(), 1);
}
