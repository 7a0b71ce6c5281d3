//! What a stopping proxy does to the connections that it does not wait for: a reset on both sides, at
//! times that are spread.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::backend;
use support::client::{self, Answer, Hello};
use support::http::Wire;
use support::proxy::{Options, Proxy};

/// Between two pieces of a stream that never ends.
const PAUSE: Duration = Duration::from_millis(5);
const PIECE: [u8; 1000] = [b'p'; 1000];

/// A connection under way: what the client sends first, whether it goes on sending, and what the backend
/// sends first, if it goes on with that.
struct Case {
    name: &'static str,
    tls: bool,
    request: Vec<u8>,
    uploads: bool,
    response: Option<&'static str>,
}

fn http(name: &'static str, fields: &str, uploads: bool, response: Option<&'static str>) -> Case {
    let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nX-Case: {name}\r\n{fields}\r\n");
    Case {
        name,
        tls: false,
        request: request.into_bytes(),
        uploads,
        response,
    }
}

fn tls(name: &'static str, uploads: bool, response: Option<&'static str>) -> Case {
    Case {
        name,
        tls: true,
        request: Hello::named(name).record(),
        uploads,
        response,
    }
}

fn cases() -> Vec<Case> {
    let length = "Content-Length: 99999999\r\n";
    let chunks = "Transfer-Encoding: chunked\r\n";
    let upgrade = "Upgrade: x\r\nConnection: Upgrade\r\n";
    vec![
        http("awaited", "", false, None),
        http("until-close", "", false, Some("HTTP/1.1 200 OK\r\n\r\n")),
        http(
            "with-length",
            "",
            false,
            Some("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
        ),
        http(
            "one-chunk",
            "",
            false,
            Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"),
        ),
        http("upload", length, true, None),
        http(
            "chunked-upload",
            &format!("{chunks}\r\nfffffff\r\n"),
            true,
            None,
        ),
        http(
            "tunnel",
            upgrade,
            true,
            Some("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
        ),
        tls("tls-down.test", false, Some("down")),
        tls("tls-up.test", true, None),
        tls("tls-both.test", true, Some("both")),
    ]
}

/// Sends pieces until the peer is gone; whether by a reset, which the reader is not told again.
fn stream_to(stream: &TcpStream) -> JoinHandle<bool> {
    let mut stream = stream.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        loop {
            if let Err(error) = stream.write_all(&PIECE) {
                return error.kind() == ErrorKind::ConnectionReset;
            }
            std::thread::sleep(PAUSE);
        }
    })
}

/// Reads to the end; whether that is a reset, for this or for who sends.
fn ends_with_reset(stream: &TcpStream, sender: Option<JoinHandle<bool>>) -> bool {
    is_reset(stream) || sender.is_some_and(|sender| sender.join().expect("it ends"))
}

/// Reads to the end; whether that is a reset.
fn is_reset(mut stream: &TcpStream) -> bool {
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Serves each case by its response, and tells how the proxy ended it.
fn serve(mut stream: TcpStream, ends: &Sender<(&'static str, bool)>) {
    let mut head = vec![0; 4096];
    let Ok(read @ 1..) = stream.read(&mut head) else {
        return;
    };
    let text = String::from_utf8_lossy(&head[..read]).into_owned();
    let cases = cases();
    let case = cases.iter().find(|case| text.contains(case.name));
    let case = case.expect("a request of a case");
    let sender = case.response.map(|response| {
        let _ = stream.write_all(response.as_bytes());
        stream_to(&stream)
    });
    let _ = ends.send((case.name, ends_with_reset(&stream, sender)));
}

fn open(proxy: &Proxy, case: &Case) -> (TcpStream, Option<JoinHandle<bool>>) {
    let mut stream = client::connect(if case.tls {
        proxy.https()
    } else {
        proxy.http()
    });
    stream.write_all(&case.request).expect("the proxy listens");
    let sender = case.uploads.then(|| stream_to(&stream));
    (stream, sender)
}

/// Every case under way while `signals` are sent: both sides see a reset.
fn all_are_reset(drain: &str, signals: usize) {
    let (sender, ends) = mpsc::channel();
    let sender = Mutex::new(sender);
    let backend = backend::raw(move |stream| {
        let sender = sender.lock().expect("nobody panics").clone();
        serve(stream, &sender);
    });
    let cases = cases();
    let mut options = Options::new()
        .drain(drain)
        .route("a.test", &[&backend.member()]);
    for case in cases.iter().filter(|case| case.tls) {
        options = options.route(case.name, &[&backend.member()]);
    }
    let mut proxy = options.start();
    let clients: Vec<_> = cases.iter().map(|case| open(&proxy, case)).collect();
    // Each is to be at the stage that its name says.
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    for _ in 0..signals {
        proxy.signal("TERM");
        // Two at once are one.
        proxy.wait_for_line("stopping", client::PATIENCE);
    }
    for (case, (client, sender)) in cases.iter().zip(clients) {
        let is_reset = ends_with_reset(&client, sender);
        assert!(is_reset, "the client of {}", case.name);
    }
    for _ in &cases {
        let (name, is_reset) = ends.recv_timeout(client::PATIENCE).expect("an end");
        assert!(is_reset, "the backend of {name}");
    }
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(3));
    assert!(began.elapsed() < Duration::from_secs(5));
    let last = proxy.wait_for_line("stopped", client::PATIENCE);
    assert!(last.contains(&format!("cut={}", cases.len())), "{last}");
}

#[test]
fn what_the_drain_deadline_cuts_is_reset_on_both_sides() {
    all_are_reset("1s", 1);
}

#[test]
fn what_a_second_signal_cuts_is_reset_on_both_sides() {
    all_are_reset("60s", 2);
}

/// A client that has not read all yet gets that first.
#[test]
fn what_was_sent_before_the_cut_arrives() {
    const BYTES: usize = 200_000;
    let backend = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&[b'b'; BYTES]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut proxy = Options::new()
        .drain("60s")
        .route("a.test", &[&backend.member()])
        .start();
    let mut stream = client::connect(proxy.https());
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    stream.read_exact(&mut [0; 10]).expect("an answer");
    // The proxy waits for the client, with the rest of it in sockets and pipes.
    std::thread::sleep(Duration::from_millis(200));
    proxy.signal("TERM");
    proxy.wait_for_line("stopping", client::PATIENCE);
    proxy.signal("TERM");
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.bytes.len(), answer.reset), (BYTES - 10, true));
    proxy.wait_for_exit(client::PATIENCE).expect("it ends");
}

/// How long after the signal each of many connections ended, and whether by a reset.
fn ends_of(proxy: &Proxy, clients: &mut [TcpStream]) -> Vec<(Duration, bool)> {
    proxy.signal("TERM");
    let began = Instant::now();
    let mut ends: Vec<(Duration, bool)> = std::thread::scope(|scope| {
        let reading: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(move || {
                    let is_reset = is_reset(client);
                    (began.elapsed(), is_reset)
                })
            })
            .collect();
        let ends = reading.into_iter().map(|thread| thread.join());
        ends.map(|end| end.expect("an end")).collect()
    });
    ends.sort();
    ends
}

/// They began in `from..to`, and no third of them ended within an eighth of that.
fn assert_spread(ends: &[(Duration, bool)], from_ms: u64, to_ms: u64) {
    let (from, to) = (Duration::from_millis(from_ms), Duration::from_millis(to_ms));
    // The machine may be busy.
    let slack = Duration::from_millis(500);
    let (first, last) = (ends[0].0, ends[ends.len() - 1].0);
    assert!(first >= from && last <= to + slack, "{first:?} to {last:?}");
    let third = ends.len() / 3;
    for window in ends.windows(third) {
        let span = window[third - 1].0 - window[0].0;
        assert!(span > (to - from) / 8, "{third} within {span:?}: {ends:?}");
    }
}

#[test]
fn idle_clients_are_let_go_in_the_first_half_of_the_drain() {
    let backend = backend::http("one");
    let mut proxy = Options::new()
        .drain("4s")
        .route("a.test", &[&backend.member()])
        .start();
    let mut clients: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut wire = Wire::connect(proxy.http());
            assert_eq!(wire.get("a.test", "/").text(), "one");
            wire.stream
        })
        .collect();
    let ends = ends_of(&proxy, &mut clients);
    assert_spread(&ends, 0, 2000);
    assert!(ends.iter().all(|(_, is_reset)| !is_reset), "{ends:?}");
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn relays_are_reset_in_the_second_half_of_the_drain() {
    let backend = backend::echo("one");
    let mut proxy = Options::new()
        .drain("4s")
        .route("a.test", &[&backend.member()])
        .start();
    let hello = Hello::named("a.test").record();
    let mut clients: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = client::connect(proxy.https());
            stream.write_all(&hello).expect("the proxy listens");
            let mut back = vec![0; 4 + hello.len()];
            stream.read_exact(&mut back).expect("the echo");
            stream
        })
        .collect();
    let ends = ends_of(&proxy, &mut clients);
    assert_spread(&ends, 2000, 4000);
    assert!(ends.iter().all(|(_, is_reset)| *is_reset), "{ends:?}");
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(3));
}
