//! What a client is told where it reaches nobody: for each way to be refused, what it reads, that
//! it can read it, and what is counted.

mod support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use support::backend;
use support::client::{
    self, Answer, Cut, DECODE_ERROR, Hello, INTERNAL_ERROR, PROTOCOL_VERSION, RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE, UNRECOGNIZED_NAME, alert_of, exchange, http_get, request, tls_connect,
};
use support::port::{refusing, silent};
use support::proxy::Options;

#[test]
fn an_unknown_name_is_told_so() {
    let known = backend::tls("known");
    let proxy = Options::new().route("a.test", &[&known.member()]).start();
    let error = tls_connect(proxy.https(), "b.test").expect_err("nobody is there");
    assert_eq!(alert_of(&error), Some(AlertDescription::UnrecognisedName));
    let response = http_get(proxy.http(), "b.test", "/").expect("an answer");
    assert_eq!(response.status, 421);
    assert!(response.text().starts_with("unknown_name:"), "{response:?}");
    assert!(response.head.contains("Connection: close"), "{response:?}");
    proxy.wait_for_outcome("tls", "unknown_name", 1);
    proxy.wait_for_outcome("http", "unknown_name", 1);
    assert_eq!(known.accepted(), 0);
}

#[test]
fn no_name_at_all_is_told_so() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new().route("a.test", &[&known.member()]).start();
    for hello in [Hello::new(), Hello::without_extensions()] {
        let answer = exchange(proxy.https(), &hello.record(), Cut::Whole);
        assert_eq!(answer.alert(), Some(UNRECOGNIZED_NAME), "{hello:?}");
    }
    proxy.wait_for_outcome("tls", "no_name", 2);
    let answer = exchange(proxy.http(), b"GET / HTTP/1.0\r\n\r\n", Cut::Whole);
    assert_eq!(answer.status(), Some(400));
    proxy.wait_for_outcome("http", "no_name", 1);
    let answer = exchange(proxy.http(), b"GET / HTTP/1.1\r\n\r\n", Cut::Whole);
    assert_eq!(answer.status(), Some(400));
    proxy.wait_for_outcome("http", "host_missing", 1);
    assert_eq!(known.accepted(), 0);
}

/// Bytes that are refused, the outcome that this is counted as, and what the client is told.
type Refused = (&'static str, u8, Vec<u8>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn refused_hellos() -> Vec<Refused> {
    let named = Hello::named("a.test");
    let message = named.message();
    let mut lying = named.record();
    *lying.last_mut().expect("it is not empty") = 0xff;
    let mut other_kind = message.clone();
    other_kind[0] = 2;
    let finished = b"\x14\0\0\0".to_vec();
    let mut trailing = message.clone();
    trailing.push(0);
    trailing[3] += 1;
    let mut interrupted = client::records(&message[..20], &[20]);
    interrupted.extend([21, 3, 3, 0, 2, 1, 0]);
    let two_names = b"\0\x0c\0\0\x03one\0\0\x03two".to_vec();
    let framing = [
        ("not_tls", DECODE_ERROR, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("http_on_tls_port", DECODE_ERROR, request("a.test")),
        (
            "sslv2_hello",
            PROTOCOL_VERSION,
            b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10".to_vec(),
        ),
        (
            "record_version",
            PROTOCOL_VERSION,
            b"\x16\x02\0\0\x04\x01\0\0\0".to_vec(),
        ),
        (
            "record_empty",
            UNEXPECTED_MESSAGE,
            b"\x16\x03\x01\0\0".to_vec(),
        ),
        (
            "record_too_long",
            RECORD_OVERFLOW,
            b"\x16\x03\x01\x40\x01".to_vec(),
        ),
        ("record_not_handshake", UNEXPECTED_MESSAGE, interrupted),
        (
            "not_client_hello",
            UNEXPECTED_MESSAGE,
            client::records(&other_kind, &[]),
        ),
        (
            "not_client_hello",
            UNEXPECTED_MESSAGE,
            client::records(&finished, &[]),
        ),
    ];
    let versions = [[0, 0], [0, 2], [2, 0], [2, 0xff]];
    let versions = versions.map(|version| ("hello_version", PROTOCOL_VERSION, of_version(version)));
    let lengths = named.clone().extension(77, Vec::new());
    let hellos = [
        (
            "hello_length",
            b"\x16\x03\x01\0\x06\x01\0\0\x02\x03\x03".to_vec(),
        ),
        ("hello_trailing_data", client::records(&trailing, &[])),
        ("sni_repeated", named.clone().sni(b"b.test").record()),
        (
            "sni_several_names",
            Hello::new().extension(0, two_names).record(),
        ),
        ("sni_empty", Hello::named("").record()),
        ("sni_bad_byte", Hello::named("a\0.test").record()),
        ("sni_bad_name", Hello::named("a..test").record()),
        ("sni_too_long", Hello::named(&"a.".repeat(200)).record()),
        (
            "extension_repeated",
            lengths.extension(77, Vec::new()).record(),
        ),
        ("hello_length", lying_extension()),
    ];
    let hellos = hellos.map(|(outcome, bytes)| (outcome, DECODE_ERROR, bytes));
    framing.into_iter().chain(versions).chain(hellos).collect()
}

/// A sound hello that claims this version.
fn of_version(version: [u8; 2]) -> Vec<u8> {
    let mut record = Hello::named("a.test").record();
    // Behind the headers of the record and of the message.
    record[9..11].copy_from_slice(&version);
    record
}

/// A hello whose last extension claims more bytes than there are.
fn lying_extension() -> Vec<u8> {
    let hello = Hello::named("a.test").extension(77, vec![0; 4]);
    let mut message = hello.message();
    let length_at = message.len() - 5;
    message[length_at] = 5;
    client::records(&message, &[])
}

#[test]
fn a_hello_that_is_none_gets_the_alert_that_servers_send() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new()
        .route("a.test", &[&known.member()])
        .route("default:https", &[&known.member()])
        .start();
    let mut counts = HashMap::new();
    for (outcome, alert, bytes) in refused_hellos() {
        let answer = exchange(proxy.https(), &bytes, Cut::Whole);
        assert_eq!(answer.alert(), Some(alert), "{outcome}: {answer:?}");
        assert!(!answer.reset, "{outcome}");
        *counts.entry(outcome).or_insert(0) += 1;
        proxy.wait_for_outcome("tls", outcome, counts[outcome]);
    }
    assert_eq!(known.accepted(), 0);
}

/// Which version is spoken is between client and backend (RFC 8446 section 4.2.1).
#[test]
fn a_hello_of_a_version_that_nobody_knows_yet_reaches_its_backend() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new().route("a.test", &[&known.member()]).start();
    for version in [[3, 0], [3, 4], [4, 1], [0xfe, 0xfe], [0xff, 0xff]] {
        let hello = of_version(version);
        let answer = exchange(proxy.https(), &hello, Cut::Whole);
        assert_eq!(answer.echoed(), Some(("KNOWN", &hello[..])), "{version:?}");
    }
}

#[test]
fn a_request_that_is_none_gets_400() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new()
        .route("a.test", &[&known.member()])
        .route("default:http", &[&known.member()])
        .start();
    for (outcome, bytes) in [
        ("not_http", &b"\0\x01\x02\x03"[..]),
        ("tls_on_http_port", &Hello::named("a.test").record()),
        ("http2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("request_line", b"GET /\r\n\r\n"),
        ("http_version", b"GET / HTTP/3.0\r\nHost: a.test\r\n\r\n"),
        ("target_invalid", b"GET a HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        (
            "target_fragment",
            b"GET /a#b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "target_scheme",
            b"GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "target_userinfo",
            b"GET http://u@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        ("host_missing", b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"),
        (
            "host_repeated",
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        ),
        ("host_list", b"GET / HTTP/1.1\r\nHost: a.test,b\r\n\r\n"),
        ("host_empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("host_port", b"GET / HTTP/1.1\r\nHost: a.test:x\r\n\r\n"),
        ("host_bad_byte", b"GET / HTTP/1.1\r\nHost: a_\xc3\r\n\r\n"),
        ("host_bad_name", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"),
        (
            "space_before_colon",
            b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        ),
        (
            "folded_header",
            b"GET / HTTP/1.1\r\nHost: a.test\r\n b\r\n\r\n",
        ),
        ("bare_cr", b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
        ("nul_byte", b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"),
        ("header_name", b"GET / HTTP/1.1\r\nHost\r\n\r\n"),
    ] {
        let answer = exchange(proxy.http(), bytes, Cut::Whole);
        assert_eq!(answer.status(), Some(400), "{outcome}: {answer:?}");
        assert!(!answer.reset, "{outcome}");
        proxy.wait_for_outcome("http", outcome, 1);
    }
    let connect = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let answer = exchange(proxy.http(), connect, Cut::Whole);
    assert_eq!(answer.status(), Some(405), "{answer:?}");
    proxy.wait_for_outcome("http", "connect_method", 1);
    assert_eq!(known.accepted(), 0);
}

#[test]
fn a_head_that_is_too_large_is_told_so() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new()
        .route("a.test", &[&known.member()])
        .args(&["--hello-bytes-max", "4096"])
        .args(&["--request-head-bytes-max", "2048"])
        .start();
    // Sizes are in the message's own header, so the refusal does not wait for the bytes.
    let large = Hello::named("a.test").padded_to(4096).record();
    for sent in [&large[..], &large[..100]] {
        let answer = exchange(proxy.https(), sent, Cut::Whole);
        assert_eq!(answer.alert(), Some(DECODE_ERROR), "{answer:?}");
    }
    proxy.wait_for_outcome("tls", "hello_too_large", 2);
    let fits = Hello::named("a.test").padded_to(4096 - 5).record();
    let answer = exchange(proxy.https(), &fits, Cut::Whole);
    assert_eq!(answer.echoed(), Some(("KNOWN", &fits[..])));

    let of_size = |bytes: usize| {
        let bare = "GET / HTTP/1.1\r\nHost: a.test\r\nX: \r\n\r\n".len();
        let filler = "x".repeat(bytes - bare);
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {filler}\r\n\r\n").into_bytes()
    };
    let answer = exchange(proxy.http(), &of_size(2049), Cut::Whole);
    assert_eq!(answer.status(), Some(431), "{answer:?}");
    let answer = exchange(proxy.http(), &of_size(2048)[..2047], Cut::Whole);
    assert!(answer.bytes.is_empty(), "{answer:?}");
    let answer = exchange(proxy.http(), &of_size(2048), Cut::Whole);
    assert_eq!(answer.echoed(), Some(("KNOWN", &of_size(2048)[..])));
    let headers = "X: y\r\n".repeat(300);
    let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n");
    let answer = exchange(proxy.http(), many.as_bytes(), Cut::Whole);
    assert_eq!(answer.status(), Some(431), "{answer:?}");
    proxy.wait_for_outcome("http", "too_many_headers", 1);
    proxy.wait_for_outcome("http", "request_head_too_large", 1);
}

#[test]
fn without_a_reachable_backend_the_client_is_told_so() {
    let (_bound, closed) = refusing();
    let closed = closed.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let no_socket = format!("unix:{}/none", directory.path().display());
    let alive = backend::echo("ALIVE");
    let proxy = Options::new()
        .route("down.test", &[&closed])
        .route("gone.test", &[&no_socket])
        .route("half.test", &[&closed, &no_socket, &alive.member()])
        .route("unresolved.test", &["no-such-name.invalid:80"])
        .start();
    let mut unreachable = 0;
    for name in ["down.test", "gone.test"] {
        let error = tls_connect(proxy.https(), name).expect_err("nobody is there");
        assert_eq!(alert_of(&error), Some(AlertDescription::InternalError));
        let response = http_get(proxy.http(), name, "/").expect("an answer");
        assert_eq!(response.status, 502, "{name}");
        unreachable += 1;
        proxy.wait_for_outcome("tls", "backend_unreachable", unreachable);
        proxy.wait_for_outcome("http", "backend_unreachable", unreachable);
    }
    let response = http_get(proxy.http(), "unresolved.test", "/").expect("an answer");
    assert_eq!(response.status, 502);
    proxy.wait_for_outcome("http", "no_address", 1);
    // With three attempts each of the three members gets its turn.
    for _ in 0..8 {
        let hello = Hello::named("half.test").record();
        let answer = exchange(proxy.https(), &hello, Cut::Whole);
        assert_eq!(answer.echoed(), Some(("ALIVE", &hello[..])));
    }
}

#[test]
fn a_backend_that_does_not_answer_is_a_timeout() {
    let ((_one_full, first), (_other_full, second)) = (silent(), silent());
    let alive = backend::echo("ALIVE");
    let [first, second] = [first, second].map(|address| address.to_string());
    let proxy = Options::new()
        .route("one.test", &[&first])
        .route("two.test", &[&first, &second])
        .route("some.test", &[&first, &alive.member()])
        .args(&["--connect-deadline", "500ms"])
        .start();
    for (name, attempts) in [("one.test", 1), ("two.test", 2)] {
        let started = Instant::now();
        let answer = exchange(proxy.http(), &request(name), Cut::Whole);
        let took = started.elapsed();
        assert_eq!(answer.status(), Some(504), "{name}: {answer:?}");
        let least = Duration::from_millis(500) * attempts;
        assert!(least <= took && took < least * 4, "{name}: {took:?}");
    }
    proxy.wait_for_outcome("http", "backend_timeout", 2);
    let answer = exchange(
        proxy.https(),
        &Hello::named("one.test").record(),
        Cut::Whole,
    );
    assert_eq!(answer.alert(), Some(INTERNAL_ERROR));
    proxy.wait_for_outcome("tls", "backend_timeout", 1);
    for _ in 0..4 {
        let answer = exchange(proxy.http(), &request("some.test"), Cut::Whole);
        assert_eq!(answer.echoed().map(|(who, _)| who), Some("ALIVE"));
    }
}

#[test]
fn an_answer_arrives_whole_though_the_client_sends_much_more() {
    let (_bound, closed) = refusing();
    let proxy = Options::new()
        .route("a.test", &[&closed.to_string()])
        .start();
    let behind = vec![b'x'; 200 * 1024];
    let garbage = b"\0\x01\x02\x03".to_vec();
    for (address, head, status) in [
        (proxy.http(), request("unknown.test"), Some(421)),
        (proxy.http(), request("a.test"), Some(502)),
        (proxy.http(), garbage.clone(), Some(400)),
        (proxy.https(), Hello::named("unknown.test").record(), None),
        (proxy.https(), garbage, None),
    ] {
        for late in [false, true] {
            let mut stream = client::connect(address);
            stream.write_all(&head).expect("the head is taken");
            if late {
                stream.peek(&mut [0]).expect("the proxy has answered");
            }
            stream.write_all(&behind).expect("the rest is taken");
            stream.shutdown(Shutdown::Write).expect("an end");
            let answer = Answer::read(&mut stream);
            assert!(!answer.reset, "{answer:?}");
            assert_eq!(answer.status(), status, "{answer:?}");
            assert_eq!(answer.alert().is_some(), status.is_none(), "{answer:?}");
        }
    }
}

/// It is read in vain for as long as the body deadline says: then the connection is cut, behind the
/// answer.
#[test]
fn an_answer_arrives_whole_though_the_client_never_stops() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new()
        .route("a.test", &[&known.member()])
        .args(&["--body-deadline", "1s"])
        .start();
    let behind = vec![b'x'; 64 * 1024];
    for (address, head, status) in [
        (proxy.http(), request("unknown.test"), Some(421)),
        (proxy.https(), Hello::named("unknown.test").record(), None),
    ] {
        let mut stream = client::connect(address);
        stream.write_all(&head).expect("the head is taken");
        let began = Instant::now();
        let cut = loop {
            if let Err(error) = stream.write_all(&behind) {
                break error;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = began.elapsed();
        assert!(
            matches!(
                cut.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            "{cut}"
        );
        assert!(
            took > Duration::from_millis(900) && took < Duration::from_secs(4),
            "{took:?}"
        );
        let answer = Answer::read(&mut stream);
        assert_eq!(answer.status(), status, "{answer:?}");
        assert_eq!(answer.alert().is_some(), status.is_none(), "{answer:?}");
    }
}

#[test]
fn nothing_is_answered_on_a_part_of_a_head() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new()
        .route("a.test", &[&known.member()])
        .route("default:https", &[&known.member()])
        .route("default:http", &[&known.member()])
        .start();
    let hello = client::records(&Hello::named("a.test").message(), &[50]);
    let http = b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n";
    let mut waiting = Vec::new();
    for (address, head) in [(proxy.https(), &hello[..]), (proxy.http(), &http[..])] {
        for cut in [1, 5, 6, 40, head.len() - 1] {
            let mut stream = client::connect(address);
            stream.write_all(&head[..cut]).expect("a part of the head");
            waiting.push((stream, head, cut));
        }
    }
    support::assert_stays("no backend", Duration::from_millis(300), || {
        known.accepted() == 0
    });
    for (mut stream, head, cut) in waiting {
        stream.set_nonblocking(true).expect("a socket option");
        let early = stream.read(&mut [0; 64]);
        assert!(early.is_err(), "{early:?} came on {cut} bytes");
        stream.set_nonblocking(false).expect("a socket option");
        stream
            .write_all(&head[cut..])
            .expect("the rest of the head");
        stream.shutdown(Shutdown::Write).expect("an end");
        let answer = Answer::read(&mut stream);
        assert_eq!(answer.echoed(), Some(("KNOWN", head)), "cut at {cut}");
    }
    // A client that leaves in the middle of its head is told nothing and reaches nobody.
    let before = known.accepted();
    for (address, head) in [(proxy.https(), &hello[..]), (proxy.http(), &http[..])] {
        let answer = exchange(address, &head[..head.len() - 1], Cut::Whole);
        assert!(answer.bytes.is_empty() && !answer.reset, "{answer:?}");
    }
    proxy.wait_for_outcome("tls", "client_left", 1);
    proxy.wait_for_outcome("http", "client_left", 1);
    assert_eq!(known.accepted(), before);
}
