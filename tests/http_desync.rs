//! Sound requests that play on what backends overlook or do differently: bodies left unread (0.CL,
//! CL.0), expectations that are never met, names that some take for others, upgrades that come to
//! nothing. What of it reaches a backend is unambiguous, and no answer reaches anybody but its asker.

mod support;

use std::io::{Read, Write};

use support::backend::{self, Backend};
use support::http::{Message, Wire, reflecting, scripted};
use support::proxy::{Options, Proxy};

/// A request inside a body, whose answer must reach nobody.
const INNER: &str = "GET /stolen HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn start(member: &str) -> Proxy {
    Options::new().route("a.test", &[member]).start()
}

/// Reads heads only, and so takes bodies for requests; answers with the first line of each. Before
/// that it says `interim` where the client waits for it.
fn careless(interim: &'static str) -> Backend {
    backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(head)) = wire.request_head() {
            let line = head.head.lines().next().expect("a request line");
            let body = if line.starts_with("HEAD ") { "" } else { line };
            let expects = head.field("expect").is_some();
            let before = if expects { interim } else { "" };
            let answer = format!(
                "{before}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                line.len()
            );
            if wire.stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn reused(proxy: &Proxy) -> u64 {
    let value = proxy.series("pointsman_upstream_connections_reused_total");
    value.expect("a counter") as u64
}

fn ask(wire: &mut Wire, request: &str) -> Message {
    wire.send(request);
    wire.try_response(request.starts_with("HEAD "))
        .expect("an answer")
}

#[test]
fn a_connection_with_a_body_that_nobody_may_have_read_is_not_used_again() {
    let backend = careless("");
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    for (round, method) in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]
        .iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        let length = INNER.len();
        let request = format!(
            "{method} /{round} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{INNER}"
        );
        let answer = ask(&mut wire, &request);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.field("connection"), None, "the client's is good");
        let answer = wire.get("a.test", "/mine");
        assert_eq!(answer.text(), "GET /mine HTTP/1.1", "behind {method}");
        // Only what came without a body leaves its connection for another.
        assert_eq!(reused(&proxy), round as u64);
    }
}

#[test]
fn a_connection_whose_backend_never_asked_for_the_body_is_not_used_again() {
    for interim in ["", "HTTP/1.1 102 Processing\r\n\r\n"] {
        let backend = careless(interim);
        let proxy = start(&backend.member());
        let mut wire = Wire::connect(proxy.http());
        wire.send(format!(
            "POST /1 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{INNER}",
            INNER.len()
        ));
        if !interim.is_empty() {
            assert_eq!(wire.response_head().status(), 102);
        }
        assert_eq!(wire.response().text(), "POST /1 HTTP/1.1");
        let mut other = Wire::connect(proxy.http());
        let answer = other.get("a.test", "/mine");
        assert_eq!(answer.text(), "GET /mine HTTP/1.1", "{interim:?}");
        assert_eq!(reused(&proxy), 0);
    }
}

/// The answer comes although the body was never asked for: neither connection goes on.
#[test]
fn an_answer_instead_of_100_ends_the_connection() {
    let backend = careless("");
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    wire.send(
        "POST /1 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 44\r\n\r\n",
    );
    let answer = wire.response();
    assert_eq!(answer.field("connection"), Some("close"));
    let _ = wire.stream.write_all(INNER.as_bytes());
    assert_eq!(wire.rest(), b"");
    assert_eq!(proxy.per_core("backends_idle"), [0]);
}

/// Where the word was given, everything was read, and the connection is used again.
#[test]
fn a_body_that_was_asked_for_leaves_the_connection_good() {
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(head)) = wire.request_head() {
            if head.field("expect").is_some() {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = wire.request_body(&head).expect("a body");
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            wire.send(body);
        }
    });
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    for round in 0..3 {
        wire.send(
            "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n",
        );
        assert_eq!(wire.response_head().status(), 100);
        wire.send("body");
        assert_eq!(wire.response().text(), "body");
        assert_eq!(reused(&proxy), round);
    }
}

#[test]
fn a_backend_gets_no_name_that_it_could_take_for_another() {
    let backend = reflecting("A");
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    let fields = "Content_Length: 44\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: \
        10.0.0.1\r\nconnection: content-length, host, transfer-encoding\r\nContent-Length: 4\r\n";
    for end in ["\r\n", "\n"] {
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").replace("\r\n", end);
        for _ in 0..2 {
            wire.send(format!("{head}body"));
            assert_eq!(
                wire.response().text(),
                "A\nPOST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"
            );
        }
    }
    // Nor two hosts, nor an expectation about nothing.
    wire.send("GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(
        wire.response().text(),
        "A\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"
    );
    assert_eq!(backend.accepted(), 1);
}

/// An upgrade that its backend refuses is a request like any other, and what is behind it is
/// another.
#[test]
fn a_refused_upgrade_opens_no_tunnel() {
    let refusing =
        scripted(|_, _| Some(b"HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno".to_vec()));
    let other = reflecting("B");
    let proxy = Options::new()
        .route("a.test", &[&refusing.member()])
        .route("b.test", &[&other.member()])
        .start();
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        wire.send(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: \
            websocket\r\nSec-WebSocket-Version: 777\r\n\r\nGET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n",
        );
        assert_eq!(wire.response().status(), 426);
        assert!(wire.response().text().starts_with("B\nGET /2 HTTP/1.1\r\n"));
    }
}

/// A body behind the head that answers HEAD, as broken servers send it, is nobody's.
#[test]
fn a_body_in_answer_to_head_reaches_nobody() {
    let backend = scripted(|_, _| {
        Some(
            b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: \
            0\r\nX: Y\r\n\r\n"
                .to_vec(),
        )
    });
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..5 {
        let answer = ask(&mut wire, "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(answer.field("content-length"), Some("42"));
        assert_eq!(answer.field("x"), None);
    }
    assert_eq!(reused(&proxy), 0);
    let mut buffer = [0; 1];
    wire.finish();
    assert!(
        matches!(wire.stream.read(&mut buffer), Ok(0)),
        "nothing else"
    );
}
