//! Requests on whose end or host two readers could disagree: the cases of RFC 9112 section 11.2 and
//! the published families CL.TE, TE.CL, TE.TE, 0.CL, CL.0, TERM.EXT, EXT.TERM, TERM.SPILL and of
//! Expect. Each is refused by name, and the backend never sees a byte of what is ambiguous. Those
//! that are sound and play on what backends overlook are in `http_desync`.

mod support;

use std::sync::{Arc, Mutex};

use support::backend;
use support::client::{Cut, exchange};
use support::http::{Wire, reflecting};
use support::proxy::Options;
use support::smuggled::{BEHIND, cases};

#[test]
fn nothing_ambiguous_reaches_a_backend() {
    let reached = Arc::new(Mutex::new(Vec::new()));
    let writer = reached.clone();
    let backend = backend::raw(move |stream| {
        let bytes = Wire::new(stream).rest();
        let mut reached = writer.lock().expect("no panic");
        reached.push(bytes);
    });
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .route("default:http", &[&backend.member()])
        .start();
    let cases = cases();
    let mut counts = std::collections::HashMap::new();
    for (outcome, bytes) in &cases {
        for cut in [Cut::Whole, Cut::At(bytes.len() / 2)] {
            let answer = exchange(proxy.http(), bytes.as_bytes(), cut);
            let text = String::from_utf8_lossy(&answer.bytes);
            assert!(
                text.starts_with("HTTP/1.1 400 "),
                "{outcome}, {cut:?}: {bytes:?}: {text}"
            );
            assert!(
                text.contains(&format!("\r\nPointsman-Outcome: {outcome}\r\n")),
                "{bytes:?}: {text}"
            );
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
            *counts.entry(*outcome).or_insert(0) += 1;
        }
    }
    for (outcome, count) in counts {
        proxy.wait_for_outcome("http", outcome, count);
    }
    // A body that turns bad behind a good beginning has begun to reach the backend: that must not
    // look like an end there, and what is behind must not look like a request.
    for bytes in reached.lock().expect("no panic").iter() {
        let text = String::from_utf8_lossy(bytes);
        assert!(
            text.contains("\r\nTransfer-Encoding: chunked\r\n"),
            "{text}"
        );
        assert!(!text.contains("HTTP/1.1\r\nHost: a.test\r\n\r\n"), "{text}");
        assert!(!text.contains("GET "), "{text}");
        assert!(!text.contains("0\r\n\r\n"), "{text}");
    }
}

/// Behind a whole request what follows is a request of its own, with its own host, whatever the
/// first one's body looked like.
#[test]
fn a_body_that_looks_like_a_request_is_a_body() {
    let [a, b] = ["A", "B"].map(reflecting);
    let proxy = Options::new()
        .route("a.test", &[&a.member()])
        .route("b.test", &[&b.member()])
        .start();
    let inner = "GET /inner HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        wire.send(format!(
            "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{inner}GET /2 \
             HTTP/1.1\r\nHost: b.test\r\n\r\nPOST /3 HTTP/1.1\r\nHost: \
             a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x};x=y\r\n{inner}\r\n0\r\nX-Sum: 1\r\n\r\n",
            inner.len(),
            inner.len(),
        ));
        let answer = wire.response();
        assert!(
            answer.text().starts_with("A\nPOST /1 ") && answer.text().ends_with(inner),
            "{answer:?}"
        );
        let answer = wire.response();
        assert!(answer.text().starts_with("B\nGET /2 "), "{answer:?}");
        let answer = wire.response();
        assert!(
            answer.text().starts_with("A\nPOST /3 ") && answer.text().ends_with(inner),
            "{answer:?}"
        );
    }
}

/// A GET with a body, whose answer comes before the body does: the connection cannot be used again.
#[test]
fn an_early_answer_ends_the_connection() {
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let mut buffer = [0; 4096];
        use std::io::Read;
        let _ = wire.stream.read(&mut buffer);
        wire.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
        let _ = wire.rest();
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let mut wire = Wire::connect(proxy.http());
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 44\r\n\r\n");
    let answer = wire.response();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.field("connection"), Some("close"));
    let _ = std::io::Write::write_all(&mut wire.stream, BEHIND.as_bytes());
    assert_eq!(wire.rest(), b"");
    assert_eq!(proxy.per_core("backends_idle"), [0]);
}
