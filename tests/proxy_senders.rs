//! PROXY headers in: from HAProxy and from bytes made to order, from senders that are believed and
//! from all others, on the port that direct clients use too.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver as Channel, channel};

use pointsman::internals::proxy_protocol::{Endpoints, Reading, TlvKind, read};
use support::backend::{self, Backend};
use support::client::{self, Answer, Cut, DECODE_ERROR, Hello, PATIENCE, Response};
use support::proxy::{Options, Proxy};
use support::receiver;

/// Where senders are that the proxies of these tests believe.
const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// An address that no connection here can have, so that wherever it shows, a header was believed.
const CLAIMED: &str = "203.0.113.7";

/// With nothing in it that is said to the proxy alone, so that it arrives as it is.
const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const LAST_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 203.0.113.1 40000 443\r\n";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version_and_command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([version_and_command, family]);
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend(content);
    bytes
}

/// From [`CLAIMED`], with these TLVs.
fn v2_claim(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 203, 0, 113, 1, 0x9c, 0x40, 1, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], tlvs].concat())
}

/// A proxy that believes [`SENDER`], with one route to `member`.
/// A client as the log names it for whom the sender at 127.0.0.3 speaks.
fn spoken_for(client: SocketAddr) -> String {
    let (address, port) = (client.ip(), client.port());
    format!("client.address={address} client.port={port} network.peer.address=127.0.0.3 ")
}

fn start(member: &str, args: &[&str]) -> Proxy {
    Options::new()
        .route("a.test", &[member])
        .args(&["--proxy-from", "127.0.0.3/32", "--log", "debug"])
        .args(args)
        .start()
}

fn exchange_from(source: IpAddr, to: SocketAddr, bytes: &[u8], cut: Cut) -> Answer {
    let mut stream = client::connect_from(source, to);
    client::send_cut(&mut stream, bytes, cut);
    let _ = stream.shutdown(Shutdown::Write);
    Answer::read(&mut stream)
}

/// What the proxy says of the connection that ended so.
fn line(proxy: &Proxy, outcome: &str) -> String {
    proxy.wait_for_line(&format!("message={outcome} "), PATIENCE)
}

/// Chained: HAProxy before, HAProxy behind, and both know the client.
#[test]
fn haproxy_before_and_behind() {
    for (before, behind) in [
        ("send-proxy", "v1"),
        ("send-proxy-v2", "v2"),
        ("send-proxy", "v2"),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id", "v2"),
    ] {
        let last = receiver::haproxy();
        let proxy = start(&format!("{} proxy={behind}", last.address()), &[]);
        let first = receiver::haproxy_sender(proxy.https(), before);
        let stream = client::connect_from("127.0.0.2".parse().unwrap(), first.address());
        let own = stream.local_addr().expect("it is connected");
        let config = std::sync::Arc::new(client::tls_config());
        let mut stream = client::tls_over(config, stream, "a.test").expect("a handshake");
        stream.write_all(LAST_HEAD).expect("the connection is open");
        let response = Response::read(&mut stream).expect("a response");
        assert_eq!(response.text(), "haproxy");
        drop(stream);
        let theirs = last.wait_for_log(&format!("client={own} to={} ", first.address()));
        let ours = proxy.wait_for_line(&spoken_for(own), PATIENCE);
        if before.contains("unique-id") {
            // The sender's id goes through to the end.
            assert!(theirs.contains(" id=sender-"), "{theirs}");
            assert!(ours.contains("id=sender-"), "{ours}");
        }
    }
}

/// HAProxy's own checks say LOCAL and close, or reset; that is nothing to worry about.
#[test]
fn health_checks_of_haproxy_have_an_outcome_of_their_own() {
    let backend = backend::http("never");
    let proxy = start(&backend.member(), &[]);
    let options = "send-proxy-v2 check check-send-proxy inter 50ms";
    let sender = receiver::haproxy_sender(proxy.http(), options);
    support::wait_until("some checks have come", PATIENCE, || {
        proxy.outcome("http", "health_check") >= 3
    });
    drop(sender);
    let ended = proxy.metrics();
    let others: Vec<&str> = ended
        .lines()
        .filter(|line| line.starts_with("pointsman_connections_total"))
        .filter(|line| !line.ends_with(" 0"))
        // A check that was reset before it was looked at is nobody's.
        .filter(|line| !line.contains("health_check") && !line.contains("client_left"))
        .collect();
    assert_eq!(others, [""; 0]);
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn headers_are_taken_off_however_they_are_cut() {
    let backend = backend::echo("echo");
    let proxy = start(&backend.member(), &[]);
    let hello = Hello::named("a.test").record();
    for header in [V1.to_vec(), v2_claim(&[]), v2_claim(b"\xea\0\x03abc")] {
        for (to, head) in [(proxy.http(), HEAD), (proxy.https(), &hello)] {
            let bytes = [&header[..], head].concat();
            let length = header.len();
            let cuts = [1, 6, 12, 15, length - 1, length, length + 1].map(Cut::At);
            for cut in [Cut::Whole, Cut::EveryByte].into_iter().chain(cuts) {
                let answer = exchange_from(SENDER, to, &bytes, cut);
                assert_eq!(answer.echoed(), Some(("echo", head)), "{cut:?}");
            }
        }
    }
    let said = line(&proxy, "relayed");
    assert!(
        said.contains(&spoken_for(
            "203.0.113.7:40000".parse().expect("an address")
        )),
        "{said}"
    );
}

/// What they claim is looked at nowhere: not in the log, and not by the backend.
#[test]
fn who_is_not_listed_is_refused_by_name() {
    let backend = backend::echo("echo");
    let listed = start(&backend.member(), &[]);
    let nobody = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--log", "debug"])
        .start();
    let direct: IpAddr = "127.0.0.1".parse().unwrap();
    for proxy in [&listed, &nobody] {
        let mut refused = 0;
        for header in [V1.to_vec(), v2_claim(&[]), b"PROXY nonsense".to_vec()] {
            for cut in [Cut::Whole, Cut::EveryByte] {
                let bytes = [&header[..], HEAD].concat();
                let answer = exchange_from(direct, proxy.http(), &bytes, cut);
                // Bytes that were still on their way may destroy the answer.
                assert!(answer.status() == Some(400) || cut == Cut::EveryByte);
                let answer = exchange_from(direct, proxy.https(), &bytes, cut);
                assert!(answer.alert() == Some(DECODE_ERROR) || cut == Cut::EveryByte);
                refused += 1;
            }
        }
        proxy.wait_for_outcome("http", "proxy_untrusted", refused);
        proxy.wait_for_outcome("tls", "proxy_untrusted", refused);
        assert!(!proxy.stderr().contains(CLAIMED), "{}", proxy.stderr());
        // Direct clients use the same port.
        let response = client::exchange(proxy.http(), HEAD, Cut::Whole);
        assert_eq!(response.echoed(), Some(("echo", HEAD)));
    }
    assert_eq!(backend.accepted(), 2);
}

#[test]
fn a_listed_sender_has_to_send_a_header_unless_told_otherwise() {
    let backend = backend::echo("echo");
    let required = start(&backend.member(), &[]);
    let answer = exchange_from(SENDER, required.http(), HEAD, Cut::Whole);
    assert_eq!(answer.status(), Some(400));
    required.wait_for_outcome("http", "proxy_missing", 1);
    // To open and to close again is allowed to everybody.
    drop(client::connect_from(SENDER, required.http()));
    required.wait_for_outcome("http", "client_left", 1);
    let optional = start(&backend.member(), &["--proxy-in", "optional"]);
    for (bytes, logged) in [
        (HEAD.to_vec(), String::from("client.address=127.0.0.3 ")),
        (
            [V1, HEAD].concat(),
            spoken_for("203.0.113.7:40000".parse().expect("an address")),
        ),
    ] {
        let answer = exchange_from(SENDER, optional.http(), &bytes, Cut::Whole);
        assert_eq!(answer.echoed(), Some(("echo", HEAD)));
        optional.wait_for_line(&logged, PATIENCE);
    }
}

#[test]
fn broken_headers_are_refused_by_name() {
    let backend = backend::echo("never");
    let proxy = start(&backend.member(), &[]);
    let mut content = vec![1; 12];
    content.extend([3, 0, 4, 1, 2, 3, 4]);
    let long_line = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    for (header, outcome) in [
        (
            &b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n"[..],
            "proxy_v1_malformed",
        ),
        (
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 70000\r\n",
            "proxy_v1_malformed",
        ),
        (&long_line, "proxy_v1_too_long"),
        (&v2(0x31, 0x11, &[1; 12]), "proxy_v2_version"),
        (&v2(0x21, 0x11, &[1; 4097]), "proxy_v2_too_long"),
        (&v2(0x21, 0x51, &[1; 12]), "proxy_v2_family"),
        (&v2(0x21, 0x21, &[1; 12]), "proxy_v2_length"),
        (&v2_claim(&[2, 0, 9, b'a']), "proxy_v2_tlv"),
        (&v2(0x21, 0x11, &content), "proxy_v2_checksum"),
    ] {
        let before = proxy.outcome("http", outcome);
        let bytes = [header, HEAD].concat();
        let answer = exchange_from(SENDER, proxy.http(), &bytes, Cut::Whole);
        assert_eq!(answer.status(), Some(400), "{outcome}");
        proxy.wait_for_outcome("http", outcome, before + 1);
    }
    assert!(!proxy.stderr().contains(CLAIMED), "{}", proxy.stderr());
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_header_that_stops_short_ends_with_the_deadline_or_the_sender() {
    let backend = backend::echo("never");
    let proxy = start(&backend.member(), &["--head-deadline", "300ms"]);
    let (first, second) = (V1.to_vec(), v2_claim(b"\x02\0\x01a"));
    let mut cut_short = 0;
    for header in [&first, &second] {
        for end in 1..header.len() {
            let mut stream = client::connect_from(SENDER, proxy.http());
            stream.write_all(&header[..end]).expect("the proxy listens");
            drop(stream);
            cut_short += 1;
        }
    }
    proxy.wait_for_outcome("http", "client_left", cut_short);
    for (number, header) in [&first[..9], &second[..20], &first[..], &second[..]]
        .into_iter()
        .enumerate()
    {
        let mut stream = client::connect_from(SENDER, proxy.http());
        stream.write_all(header).expect("the proxy listens");
        assert_eq!(Answer::read(&mut stream).status(), Some(408));
        proxy.wait_for_outcome("http", "head_timeout", number as u64 + 1);
    }
    assert_eq!(backend.accepted(), 0);
}

/// Hands over what each connection brought, up to the end of the head.
fn recorder() -> (Backend, Channel<Vec<u8>>) {
    let (sender, received) = channel();
    let backend = backend::raw(move |mut stream| {
        let mut all = Vec::new();
        let mut byte = [0];
        while !all.ends_with(HEAD) && matches!(stream.read(&mut byte), Ok(1)) {
            all.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        let _ = sender.send(all);
    });
    (backend, received)
}

fn carried(proxy: &Proxy, header: &[u8], channel: &Channel<Vec<u8>>) -> (SocketAddr, Vec<u8>) {
    let mut stream: TcpStream = client::connect_from(SENDER, proxy.http());
    let own = stream.local_addr().expect("it is connected");
    stream
        .write_all(&[header, HEAD].concat())
        .expect("the proxy listens");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = Answer::read(&mut stream);
    (
        own,
        channel
            .recv_timeout(PATIENCE)
            .expect("the backend is reached"),
    )
}

/// A sender that speaks for itself is the client; one that speaks for a unix socket has none that
/// could be named.
#[test]
fn local_unknown_and_unix() {
    let (backend, channel) = recorder();
    for version in ["v1", "v2"] {
        let proxy = start(&format!("{} proxy={version}", backend.member()), &[]);
        for header in [
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x11, &[203, 0, 113, 7]),
            v2(0x21, 0x00, &[]),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN 203.0.113.7 whatever\r\n".to_vec(),
        ] {
            let (own, bytes) = carried(&proxy, &header, &channel);
            let Reading::Found {
                header,
                bytes: length,
            } = read(&bytes)
            else {
                panic!("{}", bytes.escape_ascii());
            };
            let Endpoints::Tcp(addresses) = header.endpoints else {
                panic!("{header:?}");
            };
            assert_eq!(addresses.source(), own);
            assert_eq!(addresses.destination(), proxy.http());
            assert_eq!(&bytes[length..], HEAD);
        }
        let (_, bytes) = carried(&proxy, &v2(0x21, 0x31, &[0; 216]), &channel);
        let unknown = match version {
            "v1" => b"PROXY UNKNOWN\r\n".to_vec(),
            _ => v2(0x20, 0x00, &[]),
        };
        assert_eq!(bytes, [&unknown[..], HEAD].concat());
        assert!(!proxy.stderr().contains(CLAIMED), "{}", proxy.stderr());
    }
}

/// A client may have come to the sender by another family than the sender comes to us.
#[test]
fn families_of_client_and_sender_may_differ() {
    let (backend, channel) = recorder();
    let member = format!("{} proxy=v1", backend.member());
    let proxy = Options::new()
        .listen("--http", "127.0.0.1:0")
        .listen("--http", "[::1]:0")
        .route("a.test", &[&member])
        .args(&["--proxy-from", "127.0.0.0/8", "--proxy-from", "::1"])
        .start();
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n";
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:203.0.113.1 40000 443\r\n";
    for to in proxy.http_all() {
        for (header, expected) in [(V1, V1), (v6, v6), (mapped, V1)] {
            let mut stream = client::connect(*to);
            let bytes = [header, HEAD].concat();
            stream.write_all(&bytes).expect("the proxy listens");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = Answer::read(&mut stream);
            let carried = channel.recv_timeout(PATIENCE).expect("it is reached");
            assert_eq!(carried, [expected, HEAD].concat());
        }
    }
}

#[test]
fn senders_may_be_everybody_but_not_unnoticed() {
    let backend = backend::http("b");
    let proxy = start(&backend.member(), &["--proxy-from", "0.0.0.0/0"]);
    proxy.wait_for_line("proxy-from lists every address", PATIENCE);
    assert!(
        !start(&backend.member(), &[])
            .stderr()
            .contains("every address")
    );
}

#[test]
fn what_the_sender_said_of_its_tls_goes_on() {
    let (backend, channel) = recorder();
    let proxy = start(&format!("{} proxy=v2", backend.member()), &[]);
    let tlvs = [
        &b"\x02\0\x05other"[..],
        b"\x01\0\x02h2",
        b"\x04\0\x02xx",
        b"\x05\0\x06its-id",
        b"\x20\0\x05\x01\0\0\0\0",
    ]
    .concat();
    let (_, bytes) = carried(&proxy, &v2_claim(&tlvs), &channel);
    let Reading::Found { header, .. } = read(&bytes) else {
        panic!("{}", bytes.escape_ascii());
    };
    for (kind, value) in [
        (TlvKind::AUTHORITY, Some(&b"a.test"[..])),
        (TlvKind::ALPN, Some(b"h2")),
        (TlvKind::NOOP, None),
        (TlvKind::UNIQUE_ID, Some(b"its-id")),
        (TlvKind::SSL, Some(b"\x01\0\0\0\0")),
    ] {
        assert_eq!(header.tlvs.value(kind), value, "{kind:?}");
    }
    let said = line(&proxy, "relayed");
    assert!(said.contains("id=its-id"), "{said}");
}

/// The bound of the header does not count against that of the head.
#[test]
fn the_largest_header_before_the_largest_head() {
    let (backend, channel) = recorder();
    let limit = ["--request-head-bytes-max", "1KiB"];
    let proxy = start(&format!("{} proxy=v2", backend.member()), &limit);
    let largest = v2_claim(&[&[4, 0x0f, 0xf1][..], &[0; 4081]].concat());
    assert_eq!(largest.len(), 16 + 4096);
    let (_, bytes) = carried(&proxy, &largest, &channel);
    assert!(bytes.ends_with(HEAD));
    let long = [&largest[..], b"GET / HTTP/1.1\r\nX: ", &[b'x'; 1100]].concat();
    let answer = exchange_from(SENDER, proxy.http(), &long, Cut::Whole);
    assert_eq!(answer.status(), Some(431));
}
