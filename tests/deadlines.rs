//! Every wait has an end: for the head, for a backend to accept, and for another backend's turn.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::backend::{self, Backend};
use support::client::{self, Answer, Hello, INTERNAL_ERROR};
use support::http::Wire;
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
                    // Ten of them within the deadline.
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
    let failures = proxy.series("pointsman_upstream_connect_failures_total");
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
    let attempts = proxy.series("pointsman_upstream_connect_attempts_total");
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

/// One wait: its deadline in milliseconds, what the connection ends as, and the wait itself, which gives
/// back how long it was.
type Wait<'w> = (
    u64,
    &'w str,
    &'w str,
    Box<dyn Fn() -> Duration + Send + Sync + 'w>,
);

/// Each of them has another length, and none is twice another's.
const DEADLINES: [&str; 18] = [
    "--head-deadline",
    "1300ms",
    "--connect-deadline",
    "1100ms",
    "--backend-deadline",
    "1700ms",
    "--queue-deadline",
    "900ms",
    "--keep-alive-deadline",
    "1400ms",
    "--body-deadline",
    "1200ms",
    "--response-deadline",
    "1500ms",
    "--idle-deadline",
    "1000ms",
    "--eject-failures",
    "0",
];
/// What may pass beyond a deadline before its end is seen, on a machine that is busy with other tests.
/// Less than any of them, so that one that lasts twice as long is found.
const SLACK: Duration = Duration::from_millis(800);

/// Sends `pieces` with pauses between, and gives back how long after the last of them the end came.
fn end_after(address: SocketAddr, pieces: &[&[u8]]) -> Duration {
    let mut stream = client::connect(address);
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            // The piece before is to be read by itself.
            std::thread::sleep(Duration::from_millis(200));
        }
        stream.write_all(piece).expect("the proxy listens");
    }
    let began = Instant::now();
    // Answers that come before the end are not it.
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
    began.elapsed()
}

/// Sends as much as anybody takes, and gives back how long it took until there was an answer, behind which
/// a client may go on for a while.
fn not_read(address: SocketAddr, head: &[u8]) -> Duration {
    let mut stream = client::connect(address);
    stream.write_all(head).expect("the proxy listens");
    let began = Instant::now();
    let mut sender = stream.try_clone().expect("a descriptor");
    std::thread::spawn(move || while sender.write(&[b'u'; 64 * 1024]).is_ok() {});
    let _ = stream.read(&mut [0]);
    let took = began.elapsed();
    let _ = stream.shutdown(Shutdown::Both);
    took
}

/// A backend that answers a request for `/ok` and does with others what their path says.
fn stalling() -> Backend {
    backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request_head() {
            let answer: &[u8] = match request.head.split(' ').nth(1) {
                Some("/ok") => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some("/length") => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
                Some("/chunks") => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
                }
                Some("/close") => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
                Some("/tunnel") => {
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
                }
                // Longer than any deadline here.
                Some("/unread") => return std::thread::sleep(Duration::from_secs(6)),
                _ => return drop(wire.rest()),
            };
            wire.send(answer);
        }
    })
}

/// A backend that sends more than anybody takes, and how long it took to the end of that.
fn flooding() -> (Backend, Receiver<Duration>) {
    let (sender, stood) = mpsc::channel();
    let backend = backend::raw(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let began = Instant::now();
        while stream.write(&[b'f'; 64 * 1024]).is_ok() {}
        let _ = sender.send(began.elapsed());
    });
    (backend, stood)
}

/// A client that takes nothing of a flood.
fn not_reading(address: SocketAddr, head: &[u8], stood: &Receiver<Duration>) -> Duration {
    let mut stream = client::connect(address);
    stream.write_all(head).expect("the proxy listens");
    stood.recv_timeout(client::PATIENCE).expect("an end")
}

fn ask(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

/// Not sooner, and not twice as late: what was moved before a wait, or within it but not waited for, does
/// not prolong it.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_deadline_lasts_as_long_as_it_says() {
    let stalling = stalling();
    let mute = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"hello");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ((http_flood, http_stood), (tls_flood, tls_stood)) = (flooding(), flooding());
    let http_stood = Mutex::new(http_stood);
    let tls_stood = Mutex::new(tls_stood);
    let silent: Vec<_> = (0..4).map(|_| silent()).collect();
    let at = |number: usize| silent[number].1.to_string();
    let full = format!("{} max=1", mute.member());
    let proxy = Options::new()
        .route("a.test", &[&stalling.member()])
        .route("mute.test", &[&mute.member()])
        .route("flood.test", &[&http_flood.member()])
        .route("tls.flood.test", &[&tls_flood.member()])
        .route("silent.test", &[&at(0)])
        .route("three.test", &[&at(1), &at(2), &at(3)])
        .route("full.test", &[&full])
        .args(&DEADLINES)
        .start();
    let (http, https) = (proxy.http(), proxy.https());
    let hello = |name: &str| Hello::named(name).record();
    let request = client::request;
    let ok = ask("GET /ok", "");
    let part = b"GET / HTTP/1.1\r\nHo".as_slice();
    let upload = vec![b'u'; 3 << 20];
    let upload_head = ask("POST /never", "Content-Length: 3145728\r\n");
    // It stays for as long as this lives.
    let mut occupant = client::connect(https);
    occupant
        .write_all(&hello("full.test"))
        .expect("the proxy listens");
    occupant.read_exact(&mut [0; 5]).expect("an answer");
    let held = Instant::now();
    let waits: Vec<Wait> = vec![
        (
            1300,
            "http",
            "head_timeout",
            Box::new(|| end_after(http, &[part])),
        ),
        (
            1300,
            "http",
            "head_timeout",
            Box::new(|| end_after(http, &[&ok, part])),
        ),
        (
            1300,
            "tls",
            "head_timeout",
            Box::new(|| end_after(https, &[&hello("a.test")[..9]])),
        ),
        (
            1400,
            "http",
            "keep_alive_timeout",
            Box::new(|| end_after(http, &[&ok])),
        ),
        (
            1200,
            "http",
            "body_timeout",
            Box::new(|| {
                let head = ask("POST /", "Content-Length: 9\r\n");
                end_after(http, &[&[head, b"half".to_vec()].concat()])
            }),
        ),
        (
            1200,
            "http",
            "body_timeout",
            Box::new(|| end_after(http, &[&upload_head, &upload[..1 << 20]])),
        ),
        (
            1200,
            "http",
            "body_timeout",
            Box::new(|| {
                let head = ask("POST /", "Transfer-Encoding: chunked\r\n");
                end_after(http, &[&[head, b"4\r\nhalf\r\n".to_vec()].concat()])
            }),
        ),
        (
            1500,
            "http",
            "response_timeout",
            Box::new(|| end_after(http, &[&ask("GET /never", "")])),
        ),
        (
            1500,
            "http",
            "response_timeout",
            Box::new(|| end_after(http, &[&ok, &ask("GET /never", "")])),
        ),
        (
            1500,
            "http",
            "response_timeout",
            Box::new(|| {
                let whole = [ask("POST /never", "Content-Length: 3\r\n"), b"abc".to_vec()].concat();
                end_after(http, &[&whole])
            }),
        ),
        (
            1500,
            "http",
            "response_timeout",
            Box::new(|| end_after(http, &[&upload_head, &upload])),
        ),
        (
            1500,
            "http",
            "response_timeout",
            Box::new(|| not_read(http, &ask("POST /unread", "Content-Length: 99999999\r\n"))),
        ),
        (
            1000,
            "http",
            "idle_timeout",
            Box::new(|| end_after(http, &[&ask("GET /length", "")])),
        ),
        (
            1000,
            "http",
            "idle_timeout",
            Box::new(|| end_after(http, &[&ask("GET /chunks", "")])),
        ),
        (
            1000,
            "http",
            "idle_timeout",
            Box::new(|| end_after(http, &[&ask("GET /close", "")])),
        ),
        (
            1000,
            "http",
            "idle_timeout",
            Box::new(|| {
                let upgrade = ask("GET /tunnel", "Upgrade: x\r\nConnection: Upgrade\r\n");
                end_after(http, &[&upgrade])
            }),
        ),
        (
            1000,
            "http",
            "idle_timeout",
            Box::new(|| {
                let stood = http_stood.lock().expect("nobody panics");
                not_reading(http, &request("flood.test"), &stood)
            }),
        ),
        (
            1000,
            "tls",
            "idle_timeout",
            Box::new(|| {
                let stood = tls_stood.lock().expect("nobody panics");
                not_reading(https, &hello("tls.flood.test"), &stood)
            }),
        ),
        (
            1000,
            "tls",
            "idle_timeout",
            Box::new(|| end_after(https, &[&hello("mute.test")])),
        ),
        (
            1000,
            "tls",
            "idle_timeout",
            Box::new(|| end_after(https, &[&hello("mute.test"), b"more"])),
        ),
        (
            1100,
            "http",
            "backend_timeout",
            Box::new(|| end_after(http, &[&request("silent.test")])),
        ),
        (
            1100,
            "tls",
            "backend_timeout",
            Box::new(|| end_after(https, &[&hello("silent.test")])),
        ),
        (
            1700,
            "http",
            "backend_timeout",
            Box::new(|| end_after(http, &[&request("three.test")])),
        ),
        (
            1700,
            "tls",
            "backend_timeout",
            Box::new(|| end_after(https, &[&hello("three.test")])),
        ),
        (
            900,
            "http",
            "backends_full",
            Box::new(|| end_after(http, &[&request("full.test")])),
        ),
        (
            900,
            "tls",
            "backends_full",
            Box::new(|| end_after(https, &[&hello("full.test")])),
        ),
        // Of the one that takes the place, a byte now and then.
        (
            1000,
            "tls",
            "idle_timeout",
            Box::new(|| {
                let mut stream = occupant.try_clone().expect("a descriptor");
                let mut last = held;
                for _ in 0..8 {
                    // Three within the deadline.
                    std::thread::sleep(Duration::from_millis(300));
                    stream.write_all(b"x").expect("not idle");
                    last = Instant::now();
                }
                let _ = stream.read(&mut [0; 16]);
                last.elapsed()
            }),
        ),
    ];
    let took: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = waits.iter().map(|wait| scope.spawn(&wait.3)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|took| took.expect("it ends")).collect()
    });
    let mut ends: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (number, ((deadline_ms, protocol, outcome, _), took)) in waits.iter().zip(took).enumerate()
    {
        let deadline = Duration::from_millis(*deadline_ms);
        // What is measured begins a little behind what is waited for.
        let least = deadline - Duration::from_millis(50);
        assert!(
            (least..deadline + SLACK).contains(&took),
            "row {number}, {protocol} {outcome}: {took:?} instead of {deadline:?}"
        );
        *ends.entry((protocol, outcome)).or_default() += 1;
    }
    for ((protocol, outcome), count) in ends {
        proxy.wait_for_outcome(protocol, outcome, count);
    }
}

/// A client that resets while its backend is connected to is let go at once, and that is nobody's failure.
#[test]
fn a_client_that_resets_while_a_backend_is_connected_to_is_let_go() {
    let (_full, address) = silent();
    let proxy = start(
        &[&address.to_string()],
        &["--connect-deadline", "20s", "--backend-deadline", "20s"],
    );
    let hello = Hello::named("a.test").record();
    for (protocol, at, head) in [("http", proxy.http(), HEAD), ("tls", proxy.https(), &hello)] {
        // Sooner and later than the client begins to be watched.
        for pause_ms in [0, 5, 200] {
            let mut stream = client::connect(at);
            stream.write_all(head).expect("the proxy listens");
            std::thread::sleep(Duration::from_millis(pause_ms));
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a socket option");
        }
        proxy.wait_for_outcome(protocol, "client_reset", 3);
        assert_eq!(proxy.outcome(protocol, "backend_timeout"), 0);
    }
    assert_eq!(
        proxy.series("pointsman_upstream_connect_failures_total"),
        Some(0.0)
    );
    assert_eq!(proxy.series("pointsman_outlier_ejections_total"), Some(0.0));
}
