//! The input that was measured to trip other proxies of this kind, one row each: who is reached,
//! byte for byte what arrives there, and that neither depends on how the bytes were cut on their
//! way.
//!
//! `a.test` leads to A, `b.test` to B, any other name to the default D. What the peers do with the
//! same rows is measured for HAProxy 2.6.12, nginx 1.22.1 and sniproxy 0.6.0.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;

use support::backend;
use support::client::{
    self, Answer, Cut, DECODE_ERROR, Hello, PROTOCOL_VERSION, Response, exchange, records, send_cut,
};
use support::proxy::{Options, Proxy};

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// This backend gets every byte, and every byte it sends comes back.
    Reaches(&'static str),
    /// A TLS alert with this description, and no backend is reached.
    Alert(u8),
    /// An HTTP response with this status, and no backend is reached.
    Status(u16),
}

use Expected::{Alert, Reaches, Status};

struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

fn row(name: &'static str, bytes: Vec<u8>, expected: Expected) -> Row {
    Row {
        name,
        bytes,
        expected,
    }
}

impl Row {
    /// Sends the row in pieces and checks all that came of it.
    fn check(&self, address: SocketAddr, cut: Cut) {
        let name = self.name;
        let answer = exchange(address, &self.bytes, cut);
        assert!(!answer.reset, "{name}, {cut:?}: reset");
        match self.expected {
            Reaches(backend) => {
                let Some((who, got)) = answer.echoed() else {
                    panic!("{name}, {cut:?}: {backend} expected, but {answer:?}");
                };
                assert_eq!(who, backend, "{name}, {cut:?}");
                if got.first().is_some_and(u8::is_ascii_uppercase) {
                    // A request is written anew: what matters is that it has one host.
                    let got = String::from_utf8_lossy(got).to_ascii_lowercase();
                    let (head, _) = got.split_once("\r\n\r\n").expect("a whole head");
                    let head = format!("{head}\r\n");
                    assert_eq!(head.matches("\r\nhost: ").count(), 1, "{name}: {head}");
                    return;
                }
                // Not assert_eq: kilobytes of both sides would hide the message.
                assert!(
                    got == self.bytes,
                    "{name}, {cut:?}: {} bytes sent, {} arrived, the first {} alike",
                    self.bytes.len(),
                    got.len(),
                    got.iter()
                        .zip(&self.bytes)
                        .take_while(|(a, b)| a == b)
                        .count()
                );
            }
            Alert(description) => {
                assert_eq!(
                    answer.alert(),
                    Some(description),
                    "{name}, {cut:?}: {answer:?}"
                );
            }
            Status(status) => {
                assert_eq!(answer.status(), Some(status), "{name}, {cut:?}: {answer:?}");
            }
        }
    }

    /// Places to cut the row in two: its edges, its middle, and around its name.
    fn cuts(&self) -> BTreeSet<usize> {
        let length = self.bytes.len();
        let mut cuts = BTreeSet::from([1, 5, 6, length / 2, length - 1]);
        let lower = self.bytes.to_ascii_lowercase();
        if let Some(at) = lower.windows(6).position(|six| six == b"a.test") {
            cuts.extend([at, at + 3, at + 6]);
        }
        cuts.retain(|cut| (1..length).contains(cut));
        cuts
    }
}

/// All rows whole, in two, and byte by byte; rows wait for nothing but the network, so several are
/// under way at once.
fn check_all(address: SocketAddr, rows: &[Row]) {
    const AT_ONCE: usize = 8;
    let mut tasks = Vec::new();
    for row in rows {
        tasks.extend([(row, Cut::Whole), (row, Cut::EveryByte)]);
        tasks.extend(row.cuts().into_iter().map(|cut| (row, Cut::At(cut))));
    }
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let mine = tasks.iter().skip(first).step_by(AT_ONCE);
            scope.spawn(move || {
                for (row, cut) in mine {
                    row.check(address, *cut);
                }
            });
        }
    });
}

/// Where the name stands in a message.
fn name_at(message: &[u8]) -> usize {
    let at = message.windows(6).position(|six| six == b"a.test");
    at.expect("the message has the name")
}

/// A hello with the name behind everything else.
fn name_last(bytes: usize) -> Vec<u8> {
    let name_extension = Hello::named("a.test").message().len() - Hello::new().message().len();
    Hello::new()
        .padded_to(bytes - name_extension)
        .sni(b"a.test")
        .message()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn hellos() -> Vec<Row> {
    // The size of a hello with a post-quantum key share.
    let usual = Hello::named("a.test").padded_to(1800);
    let message = usual.message();
    let at = name_at(&message);
    let named = |name: &str| Hello::named(name).padded_to(600).record();
    let mut early_data = usual.record();
    early_data.extend(b"\x14\x03\x03\0\x01\x01\x17\x03\x03\x08\0");
    early_data.extend(backend::pattern(2048));
    let mut early_data_behind_records = records(&message, &[700]);
    early_data_behind_records.extend(b"\x17\x03\x03\x08\0");
    early_data_behind_records.extend(backend::pattern(2048));
    let sslv2 = b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10\x01\0\x80\x03\0\x80\x07\0\xc0\
        \x06\0\x40\x02\0\x80\x04\0\x800123456789abcdef";
    vec![
        row("one record", usual.record(), Reaches("A")),
        row(
            "two records, split before the SNI",
            records(&message, &[at - 20, message.len()]),
            Reaches("A"),
        ),
        row(
            "two records, split inside the SNI",
            records(&message, &[at + 3, message.len()]),
            Reaches("A"),
        ),
        row(
            "two records, split after the SNI",
            records(&message, &[at + 6, message.len()]),
            Reaches("A"),
        ),
        row(
            "first record of 1 byte",
            records(&message, &[1, message.len()]),
            Reaches("A"),
        ),
        row(
            "first record of 4 bytes",
            records(&message, &[4, message.len()]),
            Reaches("A"),
        ),
        row(
            "records of 20 bytes",
            records(&message, &[20]),
            Reaches("A"),
        ),
        row("records of 1 byte", records(&message, &[1]), Reaches("A")),
        row(
            "5 KB",
            Hello::named("a.test").padded_to(5000).record(),
            Reaches("A"),
        ),
        row(
            "12 KB, SNI last",
            records(&name_last(12_000), &[12_000]),
            Reaches("A"),
        ),
        row(
            "20 KB, two records, SNI first",
            records(&Hello::named("a.test").padded_to(20_000).message(), &[]),
            Reaches("A"),
        ),
        row(
            "20 KB, two records, SNI last",
            records(&name_last(20_000), &[]),
            Reaches("A"),
        ),
        row("SNI A.TEST", named("A.TEST"), Reaches("A")),
        // A trailing dot names the same host; RFC 6066 has it left out, and clients send it.
        row("SNI a.test.", named("a.test."), Reaches("A")),
        row(
            "NUL in the SNI",
            named("a.test\0.evil"),
            Alert(DECODE_ERROR),
        ),
        row("empty SNI", named(""), Alert(DECODE_ERROR)),
        // Forbidden by RFC 6066, yet sent by clients, and unambiguous: a name without a route.
        row("SNI is an IPv4 literal", named("127.0.0.1"), Reaches("D")),
        row("no SNI", Hello::new().padded_to(600).record(), Reaches("D")),
        row(
            "no extensions",
            Hello::without_extensions().record(),
            Reaches("D"),
        ),
        row("SSLv2", sslv2.to_vec(), Alert(PROTOCOL_VERSION)),
        row("2 KB of early data behind", early_data, Reaches("A")),
        row(
            "2 KB of early data behind several records",
            early_data_behind_records,
            Reaches("A"),
        ),
    ]
}

fn requests() -> Vec<Row> {
    let text = |text: &str| text.as_bytes().to_vec();
    let headers: String = (0..100)
        .map(|index| format!("X-Header-{index:03}: {}\r\n", "x".repeat(190)))
        .collect();
    assert!(headers.len() > 20 * 1024);
    vec![
        row(
            "host:a.test, no space, lower case",
            text("GET / HTTP/1.1\r\nhost:a.test\r\n\r\n"),
            Reaches("A"),
        ),
        row(
            "Host: A.TEST:8080",
            text("GET / HTTP/1.1\r\nHost: A.TEST:8080\r\n\r\n"),
            Reaches("A"),
        ),
        row(
            "Host: a.test.",
            text("GET / HTTP/1.1\r\nHost: a.test.\r\n\r\n"),
            Reaches("A"),
        ),
        row(
            "absolute form of b.test with Host: a.test",
            text("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            Reaches("B"),
        ),
        row(
            "HTTP/1.1 without Host",
            text("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"),
            Status(400),
        ),
        row(
            "two Host lines",
            text("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
            Status(400),
        ),
        row(
            "bare LF lines",
            text("GET / HTTP/1.1\nHost: a.test\n\n"),
            Reaches("A"),
        ),
        row(
            "h2c preface",
            text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
            Status(400),
        ),
        row(
            "TLS hello",
            Hello::named("a.test").padded_to(600).record(),
            Status(400),
        ),
        row(
            "20 KB of headers before Host",
            text(&format!("GET / HTTP/1.1\r\n{headers}Host: a.test\r\n\r\n")),
            Reaches("A"),
        ),
        row(
            "leading CRLF",
            text("\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            Reaches("A"),
        ),
        row(
            "a body behind the head",
            text("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\nHost: b.test"),
            Reaches("A"),
        ),
    ]
}

/// The proxy before three backends that echo.
fn proxy_to(backends: &[backend::Backend; 3]) -> Proxy {
    let [a, b, d] = backends.each_ref().map(backend::Backend::member);
    Options::new()
        .route("a.test", &[&a])
        .route("b.test", &[&b])
        .route("default:https", &[&d])
        .route("default:http", &[&d])
        .start()
}

#[test]
fn hellos_that_trip_others() {
    let backends = ["A", "B", "D"].map(backend::echo);
    let proxy = proxy_to(&backends);
    check_all(proxy.https(), &hellos());
}

#[test]
fn requests_that_trip_others() {
    let backends = ["A", "B", "D"].map(backend::echo);
    let proxy = proxy_to(&backends);
    check_all(proxy.http(), &requests());
}

/// The row of two requests on one connection: each reaches the backend of its own host, where
/// sniproxy sends both to the first.
#[test]
fn each_request_of_a_connection_reaches_its_own_host() {
    let backends = ["A", "B", "D"].map(backend::http);
    let proxy = proxy_to(&backends);
    let mut stream = client::connect(proxy.http());
    for (host, who) in [
        ("a.test", "A"),
        ("b.test", "B"),
        ("a.test", "A"),
        ("c.test", "D"),
    ] {
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("a request");
        let response = Response::read(&mut stream).expect("an answer");
        assert_eq!(response.text(), who, "{host}");
    }
    // Pipelined: both are in the proxy's hands before the first is routed.
    let mut stream = client::connect(proxy.http());
    let two = b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\nGET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    send_cut(&mut stream, two, Cut::Whole);
    let answer = Answer::read(&mut stream);
    let text = String::from_utf8(answer.bytes).expect("text");
    let bodies: Vec<&str> = text.split("\r\n\r\n").skip(1).collect();
    assert!(bodies[0].starts_with('B') && bodies[1] == "A", "{text}");
}
