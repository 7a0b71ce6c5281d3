//! PROXY headers out, read by HAProxy, nginx and Apache, and by a backend that keeps every byte.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Channel, channel};
use std::time::Duration;

use pointsman::internals::proxy_protocol::{
    Addresses, Endpoints, Header, OutgoingTlvs, Reading, TlvKind, read, write,
};
use pointsman::internals::route::ProxyVersion;
use pointsman::internals::sniff::ja4;
use support::backend::{self, Backend};
use support::client::{self, Hello, PATIENCE, Response};
use support::http::Wire;
use support::port::refusing;
use support::proxy::{Options, Proxy};
use support::receiver::{self, Receiver};
use support::redis::RedisServer;

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// One TLS request for `a.test`; where it came from and where it went, as the client sees it.
fn request(from: IpAddr, to: SocketAddr, alpn: &[&str]) -> (SocketAddr, SocketAddr, Response) {
    let mut config = client::tls_config();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = client::connect_from(from, to);
    let own = stream.local_addr().expect("it is connected");
    let mut stream = client::tls_over(Arc::new(config), stream, "a.test").expect("a handshake");
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    )
    .expect("the connection is open");
    let response = Response::read(&mut stream).expect("a response");
    let _ = stream.read_to_end(&mut Vec::new());
    (own, to, response)
}

/// A proxy on both families with one route to `member`.
fn start(member: &str, args: &[&str]) -> Proxy {
    Options::new()
        .listen("--https", "127.0.0.1:0")
        .listen("--https", "[::1]:0")
        .listen("--http", "127.0.0.1:0")
        .route("a.test", &[member])
        .args(args)
        .start()
}

/// Both versions, both families: the server's own log has the client's address.
fn sees_the_client(
    receiver: &Receiver,
    args: &[&str],
    logged: impl Fn(SocketAddr, SocketAddr) -> String,
) {
    for version in ["v1", "v2"] {
        let member = format!("{} proxy={version}", receiver.address());
        let proxy = start(&member, args);
        for (from, to) in [(V4, proxy.https_all()[0]), (V6, proxy.https_all()[1])] {
            let (client, destination, _) = request(from, to, &["http/1.1"]);
            receiver.wait_for_log(&logged(client, destination));
        }
        proxy.wait_for_outcome("tls", "relayed", 2);
    }
}

/// As the proxy writes it in its log.
fn logged(client: SocketAddr) -> String {
    let (address, port) = (client.ip(), client.port());
    format!("client.address={address} client.port={port} ")
}

/// As servers write them in logs, IPv6 without brackets.
fn plain(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

#[test]
fn haproxy_sees_the_client() {
    sees_the_client(
        &receiver::haproxy(),
        &["--proxy-ja4", "yes"],
        |client, to| format!("client={} to={} ", plain(client), plain(to)),
    );
}

/// nginx before 1.23.2 takes headers of at most 108 bytes, so without a fingerprint.
#[test]
fn nginx_sees_the_client() {
    sees_the_client(&receiver::nginx(), &[], |client, to| {
        format!("client={} to={}", plain(client), plain(to))
    });
}

#[test]
fn apache_sees_the_client() {
    sees_the_client(&receiver::apache(), &["--proxy-ja4", "yes"], |client, _| {
        format!("client={}", plain(client))
    });
}

/// So that what HAProxy takes from us has a right one.
#[test]
fn haproxy_drops_a_header_with_a_wrong_checksum() {
    let receiver = receiver::haproxy();
    let addresses = Addresses::new(
        "203.0.113.7:1".parse().unwrap(),
        "203.0.113.1:2".parse().unwrap(),
    );
    let mut header = Vec::new();
    let tlvs = OutgoingTlvs::default();
    write(&mut header, ProxyVersion::V2, Some(&addresses), &tlvs);
    let hello = Hello::named("a.test").record();
    for is_wrong in [false, true] {
        *header.last_mut().expect("a checksum") ^= u8::from(is_wrong);
        let mut stream = client::connect(receiver.address());
        let bytes = [&header[..], &hello].concat();
        stream.write_all(&bytes).expect("it listens");
        let length = stream.read(&mut [0; 16]).unwrap_or(0);
        assert_eq!(length == 0, is_wrong);
    }
}

#[test]
fn haproxy_reads_the_name_and_the_id_that_our_log_has_too() {
    let receiver = receiver::haproxy();
    let member = format!("{} proxy=v2", receiver.address());
    let proxy = start(&member, &["--log", "debug"]);
    let (client, ..) = request(V4, proxy.https(), &[]);
    let theirs = receiver.wait_for_log(&format!("client={client} "));
    assert!(theirs.contains("authority=a.test "), "{theirs}");
    let ours = proxy.wait_for_line(&logged(client), PATIENCE);
    let id = |line: &str| {
        let (_, rest) = line.split_once(" id=").expect("a line with an id");
        rest.split(' ').next().expect("a word").replace('"', "")
    };
    assert_eq!(id(&theirs).len(), 16);
    assert_eq!(id(&theirs), id(&ours));
    assert!(!ours.contains("network.peer"), "{ours}");
}

/// A backend that hands over what each connection's first read brought, and then the rest.
fn recorder() -> (Backend, Channel<Vec<u8>>) {
    let (sender, received) = channel();
    let backend = backend::raw(move |mut stream| {
        let mut first = vec![0; 64 * 1024];
        let length = stream.read(&mut first).unwrap_or(0);
        first.truncate(length);
        let _ = sender.send(first);
        let _ = stream.write_all(b"x");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let _ = sender.send(rest);
    });
    (backend, received)
}

fn next(channel: &Channel<Vec<u8>>) -> Vec<u8> {
    channel
        .recv_timeout(PATIENCE)
        .expect("the backend is reached")
}

/// The header in front of `bytes`, and what lies behind it.
fn split(bytes: &[u8]) -> (Header, &[u8]) {
    match read(bytes) {
        Reading::Found {
            header,
            bytes: length,
        } => (header, &bytes[length..]),
        other => panic!("{other:?} of {}", bytes.escape_ascii()),
    }
}

/// Sends `bytes`, waits for the backend's byte, sends a tail, and gives what the backend read.
fn carried(mut stream: TcpStream, bytes: &[u8], channel: &Channel<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    stream.write_all(bytes).expect("the proxy listens");
    let first = next(channel);
    stream.read_exact(&mut [0]).expect("the backend's byte");
    stream.write_all(b"tail").expect("the connection is open");
    drop(stream);
    (first, next(channel))
}

/// As [`carried`] with a request, which has no tail; the client leaves with a reset.
fn requested(
    mut stream: TcpStream,
    bytes: &[u8],
    channel: &Channel<Vec<u8>>,
) -> (Vec<u8>, Vec<u8>) {
    stream.write_all(bytes).expect("the proxy listens");
    let first = next(channel);
    let linger = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    linger.expect("a socket option");
    drop(stream);
    (first, next(channel))
}

#[test]
fn header_and_head_are_one_segment_and_the_header_comes_once() {
    let (backend, channel) = recorder();
    let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
    let hello = Hello::named("a.test").record();
    for version in ["v1", "v2"] {
        let proxy = start(&format!("{} proxy={version}", backend.member()), &[]);
        for (to, bytes) in [(proxy.http(), &head[..]), (proxy.https(), &hello[..])] {
            let stream = client::connect_from(V4, to);
            let own = stream.local_addr().expect("it is connected");
            let is_http = to == proxy.http();
            let (first, rest) = if is_http {
                requested(stream, bytes, &channel)
            } else {
                carried(stream, bytes, &channel)
            };
            let (header, behind) = split(&first);
            assert_eq!(behind, bytes);
            assert_eq!(rest, if is_http { &b""[..] } else { b"tail" });
            let Endpoints::Tcp(addresses) = header.endpoints else {
                panic!("{header:?}");
            };
            assert_eq!((addresses.source(), addresses.destination()), (own, to));
        }
    }
}

/// Each backend has its own wish, and only the one that is reached is told.
#[test]
fn the_header_is_that_of_the_backend_that_was_reached() {
    let (backend, channel) = recorder();
    let member = backend.member();
    let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let (_bound, refusing) = refusing();
    for (dead, alive) in [("v1", "v2"), ("v2", "v1"), ("v2", ""), ("", "v2")] {
        let option = |version: &str| match version {
            "" => String::new(),
            version => format!(" proxy={version}"),
        };
        let dead = format!("{}{}", refusing, option(dead));
        let proxy = Options::new()
            .route("a.test", &[&dead, &format!("{member}{}", option(alive))])
            .args(&["--balance", "round-robin"])
            .start();
        for _ in 0..2 {
            let (first, _) = carried(client::connect(proxy.http()), head, &channel);
            if alive.is_empty() {
                assert_eq!(first, head);
                continue;
            }
            let (header, behind) = split(&first);
            assert_eq!(behind, head);
            let version = format!("{:?}", header.version).to_lowercase();
            assert_eq!(version, alive);
        }
        let failures = proxy.series("pointsman_upstream_connect_failures_total");
        assert!(failures >= Some(1.0), "the dead backend was not tried");
    }
}

#[test]
fn version_2_tells_the_only_protocol_and_the_fingerprint_when_asked_to() {
    let (backend, channel) = recorder();
    let member = format!("{} proxy=v2", backend.member());
    let alpn = |names: &[&str]| {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat())
            .collect();
        let length = (list.len() as u16).to_be_bytes();
        [&length[..], &list].concat()
    };
    for with_ja4 in ["no", "yes"] {
        let proxy = start(&member, &["--proxy-ja4", with_ja4]);
        for (names, told) in [
            (&["h2"][..], Some(&b"h2"[..])),
            (&["h2", "http/1.1"], None),
            (&[], None),
        ] {
            let mut hello = Hello::named("a.test");
            if !names.is_empty() {
                hello = hello.extension(16, alpn(names));
            }
            let hello = hello.record();
            let (first, _) = carried(client::connect(proxy.https()), &hello, &channel);
            let (header, behind) = split(&first);
            assert_eq!(behind, hello);
            assert_eq!(header.tlvs.value(TlvKind::ALPN), told, "{names:?}");
            assert_eq!(header.tlvs.value(TlvKind::AUTHORITY), Some(&b"a.test"[..]));
            assert_eq!(header.tlvs.value(TlvKind::SSL), None);
            let computed = ja4(&hello).filter(|_| with_ja4 == "yes");
            let computed = computed.as_ref().map(|ja4| ja4.as_str().as_bytes());
            assert_eq!(header.tlvs.value(TlvKind::JA4), computed);
        }
    }
}

/// A backend is changed over to headers, and back, without a restart.
#[test]
fn redis_switches_the_header_on_and_off() {
    let (backend, channel) = recorder();
    let redis = RedisServer::start();
    let set = |options: &str| {
        let member = format!("{}{options}", backend.member());
        let key = b"hostnames:a.test:backends";
        redis.run_words(&[b"DEL", key]);
        redis.run_words(&[b"SADD", key, member.as_bytes()]);
    };
    set("");
    let proxy = Options::new().args(&["--redis", &redis.url()]).start();
    let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for (options, begins) in [
        (" proxy=v2", &b"\r\n\r\n\0\r\nQUIT\n"[..]),
        ("", head),
        (" proxy=v1", b"PROXY TCP4 127.0.0.1 127.0.0.1 "),
    ] {
        set(options);
        support::wait_until("the change is there", PATIENCE, || {
            let mut stream = client::connect(proxy.http());
            stream.write_all(head).expect("the proxy listens");
            let Ok(first) = channel.recv_timeout(Duration::from_millis(500)) else {
                // Between the two commands the name had no backend.
                return false;
            };
            drop(stream);
            next(&channel);
            first.starts_with(begins)
        });
    }
}

#[test]
fn a_large_head_is_carried_whole_behind_its_header() {
    let (backend, channel) = recorder();
    let proxy = start(&format!("{} proxy=v2", backend.member()), &[]);
    let hello = Hello::named("a.test").padded_to(16_000).record();
    let mut stream = client::connect(proxy.https());
    stream
        .write_all(&hello[..9_000])
        .expect("the proxy listens");
    std::thread::sleep(Duration::from_millis(30));
    let (first, rest) = carried(stream, &hello[9_000..], &channel);
    let all = [first, rest].concat();
    let (_, behind) = split(&all);
    assert_eq!(behind, [&hello[..], b"tail"].concat());
}

/// A connection that begins with a header belongs to its client, and what the header says of the name
/// to that name.
#[test]
fn a_kept_connection_is_used_again_only_for_the_name_in_its_header() {
    let told = |stream: &TcpStream| {
        let mut wire = Wire::new(stream.try_clone().expect("a socket"));
        let request = wire.announced_head().expect("a request");
        let (header, _) = split(&request);
        let name = header.tlvs.value(TlvKind::AUTHORITY).unwrap_or_default();
        (String::from_utf8_lossy(name).into_owned(), wire)
    };
    let backend = backend::raw(move |stream| {
        let (name, mut wire) = told(&stream);
        for number in 1.. {
            let body = format!("{name} {number}");
            let length = body.len();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            let Ok(Some(_)) = wire.request() else { return };
        }
    });
    let member = format!("{} proxy=v2", backend.member());
    let proxy = Options::new()
        .route("a.test", &[&member])
        .route("b.test", &[&member])
        .start();
    let mut wire = Wire::connect(proxy.http());
    for (host, answer) in [
        ("a.test", "a.test 1"),
        ("a.test", "a.test 2"),
        ("b.test", "b.test 1"),
        ("b.test", "b.test 2"),
        ("a.test", "a.test 3"),
    ] {
        assert_eq!(wire.get(host, "/").text(), answer);
    }
}
