//! Responses as real servers write them: what is clear reaches the client in proper form, and is the
//! last on its connection; what is ambiguous is refused by name; none of it is held against the backend.

mod support;

use std::time::Duration;

use support::backend::{Backend, pattern};
use support::http::{Wire, scripted};
use support::proxy::{Options, Proxy};

fn backend_of(answers: Vec<Vec<u8>>) -> Backend {
    scripted(move |request, _| {
        let path = request.head.split(' ').nth(1).expect("a target");
        let number: usize = path[1..].parse().expect("a number");
        Some(answers[number].clone())
    })
}

fn start(backend: &Backend) -> Proxy {
    Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--eject-failures", "1", "--log", "debug"])
        .start()
}

#[test]
fn what_is_clear_reaches_the_client_in_proper_form() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
    let shapes = [
        format!("{chunked}\r\n5  \r\nhello\r\n0\r\n\r\n"),
        format!("{chunked}\r\n5 ;a=b\r\nhello\r\n0\r\n\r\n"),
        format!("{chunked}\r\n5\nhello\n0\n\n"),
        format!("{chunked}Content-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"
            .to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
    ];
    let count = shapes.len();
    let backend = backend_of(shapes.map(String::into_bytes).to_vec());
    let proxy = start(&backend);
    let mut wire = Wire::connect(proxy.http());
    for number in 0..count {
        // The support's reader is strict: no blanks, no bare LF, one length.
        let answer = wire.get("a.test", &format!("/{number}"));
        assert_eq!((answer.status(), answer.text()), (200, "hello"), "{number}");
        let lengths =
            answer.fields("content-length").len() + answer.fields("transfer-encoding").len();
        assert_eq!(lengths, 1, "{number}: {}", answer.head);
    }
    assert_eq!(backend.accepted(), count, "none is used again");
    let many = "X-Y: z\r\n".repeat(2_000);
    let backend = backend_of(vec![
        b"HTTP/1.1 600 Odd\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        b"HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 5\r\n\r\nhello").into_bytes(),
    ]);
    let proxy = start(&backend);
    let mut wire = Wire::connect(proxy.http());
    for (number, status) in [600, 999, 200].into_iter().enumerate() {
        let answer = wire.get("a.test", &format!("/{number}"));
        assert_eq!((answer.status(), answer.text()), (status, "hello"));
    }
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn what_is_ambiguous_is_refused_by_name_and_held_against_nobody() {
    let cases = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            "content_lengths_differ",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "transfer_encoding",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 5\r\n",
            "chunk_size",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n ,5\r\n\r\n",
            "folded_length",
        ),
        ("220 smtp.test ESMTP\r\n\r\n", "status_line"),
    ];
    let backend = backend_of(
        cases
            .iter()
            .map(|(answer, _)| answer.as_bytes().to_vec())
            .collect(),
    );
    let proxy = start(&backend);
    for (number, (_, rule)) in cases.iter().enumerate() {
        let answer = Wire::connect(proxy.http()).get("a.test", &format!("/{number}"));
        assert_eq!(answer.status(), 502, "{rule}");
        assert_eq!(answer.field("pointsman-outcome"), Some("response_invalid"));
        // At any level of the log, beside host and backend.
        proxy.wait_for_line(&format!("rule={rule} left_out="), Duration::from_secs(5));
    }
    let ejected = proxy.series("pointsman_outlier_ejections_total");
    assert_eq!(ejected, Some(0.0));
}

/// HTTP/1.0 knows no chunks: small ones, large ones that are spliced, and what breaks off.
#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    const BYTES: usize = 6 << 20;
    let chunks = |sizes: &[usize]| {
        let mut message = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let body = pattern(BYTES);
        let mut rest = &body[..];
        for size in sizes.iter().cycle() {
            let (chunk, behind) = rest.split_at(rest.len().min(*size));
            message.extend(format!("{:x};x=y\r\n", chunk.len()).bytes());
            message.extend(chunk);
            message.extend(b"\r\n");
            rest = behind;
            if rest.is_empty() {
                message.extend(b"0\r\nX-Sum: 1\r\n\r\n");
                return message;
            }
        }
        unreachable!("sizes are cycled")
    };
    let mut cut = chunks(&[300_000]);
    cut.truncate(400_000);
    let backend = backend_of(vec![
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
        chunks(&[1_000, 7, 40_000]),
        chunks(&[1 << 20, 3, 300_000]),
    ]);
    let proxy = start(&backend);
    for (number, want) in [b"hello".to_vec(), pattern(BYTES), pattern(BYTES)]
        .iter()
        .enumerate()
    {
        let mut wire = Wire::connect(proxy.http());
        wire.send(format!(
            "GET /{number} HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n"
        ));
        let answer = wire.response();
        assert_eq!(answer.field("transfer-encoding"), None);
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(
            answer.body == *want,
            "{number}: {} bytes",
            answer.body.len()
        );
    }
    // What breaks off must not look whole.
    let backend = support::backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        wire.send(&cut);
    });
    let proxy = start(&backend);
    let head = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    let answer = support::client::exchange(proxy.http(), head, support::client::Cut::Whole);
    assert!(answer.reset, "{} bytes", answer.bytes.len());
}
