//! How HTTP connections end: with their last answer whole, when the client has finished sending, and
//! at every limit with an answer that names it.

mod support;

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use socket2::SockRef;
use support::backend::pattern;
use support::client::{Cut, exchange};
use support::http::{Wire, reflecting, scripted};
use support::proxy::{Options, Proxy};

fn start(member: &str, args: &[&str]) -> Proxy {
    Options::new().route("a.test", &[member]).args(args).start()
}

/// The client has sent more behind its last request than anybody reads, and takes its answer slowly.
#[test]
fn the_last_answer_comes_whole_whatever_is_sent_behind_its_request() {
    const BYTES: usize = 8 << 20;
    let backend = scripted(|_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        Some([head.as_bytes(), &pattern(BYTES)].concat())
    });
    let proxy = start(&backend.member(), &["--requests-per-connection-max", "1"]);
    let mut wire = Wire::connect(proxy.http());
    let mut sender = wire.stream.try_clone().expect("a descriptor");
    let thread = std::thread::spawn(move || {
        let one = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        // What nobody takes is no error: the proxy closes.
        let _ = sender
            .write_all(one)
            .and_then(|()| sender.write_all(&pattern(2 << 20)));
    });
    // The upload is to stand before the answer is read.
    std::thread::sleep(Duration::from_millis(500));
    let head = wire.response_head();
    assert_eq!(head.field("connection"), Some("close"));
    let mut body = wire.take_buffered();
    let want = pattern(BYTES);
    let mut piece = vec![0; 1 << 20];
    while body.len() < BYTES {
        // A client that is slow.
        std::thread::sleep(Duration::from_millis(200));
        let read = std::io::Read::read(&mut wire.stream, &mut piece).expect("no reset");
        assert!(read > 0, "the end after {} bytes", body.len());
        body.extend_from_slice(&piece[..read]);
    }
    assert!(body == want);
    drop(wire);
    thread.join().expect("it has sent");
}

#[test]
fn a_client_that_has_finished_sending_gets_every_answer() {
    let backend = reflecting("A");
    let proxy = start(&backend.member(), &[]);
    let requests: String = (0..20)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        .collect();
    let mut wire = Wire::connect(proxy.http());
    wire.send(requests);
    wire.finish();
    for number in 0..20 {
        let want = format!("A\nGET /{number} HTTP/1.1\r\n");
        assert!(wire.response().text().starts_with(&want), "{want}");
    }
    assert_eq!(wire.rest(), b"");
    proxy.wait_for_outcome("http", "relayed", 1);
}

#[test]
fn every_limit_has_an_answer_that_names_it() {
    let backend = reflecting("A");
    let proxy = start(&backend.member(), &["--request-head-bytes-max", "4KiB"]);
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    let chunks = |body: &str| head("Transfer-Encoding: chunked\r\n") + body;
    let long = "x".repeat(9_000);
    let cases = [
        (
            "request_head_too_large",
            "431",
            head(&format!("X: {long}\r\n")),
        ),
        ("request_head_too_large", "431", format!("GET /{long}")),
        ("request_head_too_large", "431", "\r\n".repeat(2_100)),
        ("too_many_headers", "431", head(&"X: y\r\n".repeat(300))),
        ("chunk_extension", "400", chunks(&format!("1;{long}"))),
        ("chunk_overflow", "400", chunks(&"0".repeat(40))),
        (
            "trailers_too_large",
            "431",
            chunks(&format!("0\r\nX: {long}")),
        ),
        (
            "connect_method",
            "405",
            "CONNECT a.test:1 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        ),
    ];
    let mut counts = std::collections::HashMap::new();
    for (outcome, status, bytes) in cases {
        // In a fresh connection and behind another request.
        for before in ["", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"] {
            for cut in [Cut::Whole, Cut::At(before.len() + 30)] {
                let sent = format!("{before}{bytes}");
                let answer = exchange(proxy.http(), sent.as_bytes(), cut);
                let text = String::from_utf8_lossy(&answer.bytes);
                let at = text.rfind("HTTP/1.1 ").expect("an answer");
                let last = &text[at..];
                assert!(
                    last.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{outcome}: {text}"
                );
                assert!(
                    last.contains("\r\nConnection: close\r\n"),
                    "{outcome}: {text}"
                );
                let named = format!("\r\nPointsman-Outcome: {outcome}\r\n");
                assert!(last.contains(&named), "{outcome}: {text}");
                let count = counts.entry(outcome).or_insert(0);
                *count += 1;
                proxy.wait_for_outcome("http", outcome, *count);
            }
        }
    }
}

/// A backend's head that comes byte by byte is no progress, and one that never ends has a limit.
#[test]
fn a_response_head_has_a_deadline_and_a_limit() {
    let slow = support::backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        let _ = wire.stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while wire.stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let endless = support::backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        let _ = wire.stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while wire
            .stream
            .write_all(b"X: yyyyyyyyyyyyyyyyyyyy\r\n")
            .is_ok()
        {}
    });
    let stalled =
        scripted(|_, _| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()));
    let proxy = Options::new()
        .route("slow.test", &[&slow.member()])
        .route("endless.test", &[&endless.member()])
        .route("stalled.test", &[&stalled.member()])
        .args(&["--response-deadline", "600ms", "--idle-deadline", "700ms"])
        .start();
    for (host, status, outcome) in [
        ("slow.test", 504, "response_timeout"),
        ("endless.test", 502, "response_head_too_large"),
    ] {
        let answer = Wire::connect(proxy.http()).get(host, "/");
        assert_eq!(answer.status(), status, "{host}");
        assert_eq!(answer.field("pointsman-outcome"), Some(outcome));
        proxy.wait_for_outcome("http", outcome, 1);
    }
    // Within a body there is nothing left to say.
    let answer = exchange(
        proxy.http(),
        b"GET / HTTP/1.1\r\nHost: stalled.test\r\n\r\n",
        Cut::Whole,
    );
    assert!(
        answer.reset && answer.bytes.ends_with(b"half"),
        "{answer:?}"
    );
    proxy.wait_for_outcome("http", "idle_timeout", 1);
}

/// The routes' options hold for the default, too.
#[test]
fn the_default_route_can_redirect_or_refuse() {
    let backend = reflecting("A");
    for (option, status) in [("@redirect=https", 308), ("@unknown=404", 404)] {
        let proxy = Options::new()
            .route("a.test", &[&backend.member()])
            .route("default:http", &[option])
            .start();
        let mut wire = Wire::connect(proxy.http());
        assert_eq!(wire.get("a.test", "/").status(), 200);
        let answer = wire.get("other.test", "/x?y");
        assert_eq!(answer.status(), status);
        if status == 308 {
            assert_eq!(answer.field("location"), Some("https://other.test/x?y"));
        }
    }
}

/// A client that has not read the answers before it yet gets all of them, and the 101 behind them.
#[test]
fn a_101_for_a_full_socket_waits_for_its_turn() {
    const BEHIND: usize = 60_000;
    let (sender, asked) = mpsc::channel();
    let backend = scripted(move |request, _| {
        if let Some(bytes) = request.head.strip_prefix("GET /big/") {
            let bytes: usize = bytes.split(' ').next()?.parse().ok()?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            return Some([head.into_bytes(), vec![b'b'; bytes]].concat());
        }
        let _ = sender.send(());
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
        Some([head.as_bytes(), &[b'w'; BEHIND]].concat())
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    // Whether a first answer of so many bytes leaves the socket room for the second request's, and
    // whether all came then.
    let trial = |bytes: usize| {
        let mut wire = Wire::connect(proxy.http());
        let _ = SockRef::from(&wire.stream).set_recv_buffer_size(64 << 10);
        wire.send(format!(
            "GET /big/{bytes} HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: \
             a.test\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
        ));
        asked.recv_timeout(Duration::from_millis(400)).ok()?;
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(wire.response().body.len(), bytes, "the answer before");
        assert_eq!(wire.response_head().status(), 101, "{bytes}");
        let mut behind = wire.take_buffered().len();
        let mut piece = [0; 16 * 1024];
        while behind < BEHIND {
            match wire.stream.read(&mut piece) {
                Ok(read @ 1..) => behind += read,
                end => panic!("{behind} bytes behind the 101 after {bytes}, then {end:?}"),
            }
        }
        Some(())
    };
    let (mut fits, mut is_too_much) = (1000usize, 16 << 20);
    while is_too_much - fits > 30_000 {
        let middle = fits.midpoint(is_too_much);
        match trial(middle) {
            Some(()) => fits = middle,
            None => is_too_much = middle,
        }
    }
    for step in 0..6 {
        trial(fits.saturating_sub(40_000) + step * 12_000);
    }
}
