//! The reader held against headers of the specification, headers built to order and noise; the
//! writer against the reader and against bytes worked out by hand.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::tlv::TlvKind;
use super::*;
use crate::fixtures::{Fixture, PROXY_HEADERS, for_every_prefix, mutated};
use crate::refusal::Refusal;
use crate::route::ProxyVersion;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses::new(source.parse().unwrap(), destination.parse().unwrap())
}

fn found(data: &[u8]) -> (Header, usize) {
    match read(data) {
        Reading::Found { header, bytes } => (header, bytes),
        other => panic!("{other:?} for {}", data.escape_ascii()),
    }
}

fn v2_bytes(version_and_command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = v2::SIGNATURE.to_vec();
    bytes.extend([version_and_command, family]);
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend(content);
    bytes
}

const TCP4_CONTENT: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x9c, 0x40, 1, 0xbb];

fn tcp4_with(tlvs: &[u8]) -> Vec<u8> {
    v2_bytes(0x21, 0x11, &[&TCP4_CONTENT, tlvs].concat())
}

fn written(
    version: ProxyVersion,
    addresses: Option<&Addresses>,
    tlvs: &OutgoingTlvs<'_>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, version, addresses, tlvs);
    out
}

#[test]
fn lines_of_version_1() {
    let v4 = addresses("255.255.255.255:65535", "255.255.255.255:65535");
    let v6 = addresses("[2001:db8::7]:40000", "[2001:db8::1]:443");
    let mapped = addresses("192.0.2.7:1", "192.0.2.1:2");
    let longest = format!(
        "PROXY UNKNOWN {0} {0} 65535 65535\r\n",
        ["ffff"; 8].join(":")
    );
    assert_eq!(longest.len(), v1::BYTES_MAX);
    for (line, endpoints) in [
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Endpoints::Tcp(v4),
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:DB8:0::1 40000 443\r\n",
            Endpoints::Tcp(v6),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n",
            Endpoints::Tcp(mapped),
        ),
        ("PROXY UNKNOWN\r\n", Endpoints::Local),
        (&longest, Endpoints::Local),
    ] {
        let bytes = format!("{line}\x16\x03");
        let (header, length) = found(bytes.as_bytes());
        assert_eq!(
            (header.endpoints, length),
            (endpoints, line.len()),
            "{line}"
        );
        assert_eq!(header.version, ProxyVersion::V1);
    }
}

#[test]
fn lines_that_are_none() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 +2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
        "PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP6 ::1%1 ::2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\0\r\n",
    ] {
        let refused = Reading::Refused(Refusal::ProxyV1Malformed);
        assert_eq!(read(line.as_bytes()), refused, "{line:?}");
        fuzz_proxy_header(line.as_bytes());
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(v1::BYTES_MAX));
    assert_eq!(read(&long.as_bytes()[..v1::BYTES_MAX - 1]), Reading::More);
    let refused = Reading::Refused(Refusal::ProxyV1TooLong);
    assert_eq!(read(&long.as_bytes()[..v1::BYTES_MAX]), refused);
    // The line feed would be the 108th byte.
    let one_more = format!("{}\r\n", &long[..v1::BYTES_MAX - 1]);
    assert_eq!(read(one_more.as_bytes()), refused);
}

#[test]
fn what_begins_otherwise_is_the_clients_own() {
    for bytes in [
        &b"\x16\x03\x01"[..],
        b"GET / HTTP/1.1",
        b"PROPFIND / HTTP/1.1",
        b"POST",
        b"PROXYS",
        b"\r\n\r\nGET / HTTP/1.1",
        b"\r\n\r\n\0\r\nQUIX",
    ] {
        assert_eq!(read(bytes), Reading::Absent);
        fuzz_proxy_header(bytes);
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(read(bytes), Reading::More);
    }
}

#[test]
fn headers_of_version_2() {
    let v4 = Endpoints::Tcp(addresses("192.0.2.7:40000", "192.0.2.1:443"));
    let v6 = addresses("[2001:db8::7]:40000", "[2001:db8::1]:443");
    let v6_bytes = written(ProxyVersion::V2, Some(&v6), &OutgoingTlvs::default());
    for (mut bytes, endpoints) in [
        (tcp4_with(&[]), v4),
        (tcp4_with(&[4, 0, 0, 4, 0, 1, 9]), v4),
        (v6_bytes, Endpoints::Tcp(v6)),
        (v2_bytes(0x21, 0x31, &[7; 216]), Endpoints::Unix),
        // LOCAL discards whatever else the header says, and needs no content (Envoy's
        // CVE-2024-23327).
        (v2_bytes(0x20, 0x00, &[]), Endpoints::Local),
        (v2_bytes(0x20, 0x11, &[1]), Endpoints::Local),
        (v2_bytes(0x20, 0xff, &[1; 99]), Endpoints::Local),
        (v2_bytes(0x21, 0x00, &[1, 0, 9]), Endpoints::Local),
        (v2_bytes(0x20, 0x00, &[0; 4096]), Endpoints::Local),
    ] {
        let length = bytes.len();
        bytes.extend(b"\x16\x03\x01");
        let (header, used) = found(&bytes);
        assert_eq!((header.endpoints, used), (endpoints, length));
        fuzz_proxy_header(&bytes);
    }
}

#[test]
fn broken_headers_of_version_2_have_names() {
    let crc = |sum: [u8; 4]| [&[3, 0, 4][..], &sum].concat();
    for (bytes, refusal) in [
        (v2_bytes(0x11, 0x11, &TCP4_CONTENT), Refusal::ProxyV2Version),
        (v2_bytes(0x22, 0x11, &TCP4_CONTENT), Refusal::ProxyV2Version),
        (v2_bytes(0x21, 0x11, &[0; 4097]), Refusal::ProxyV2TooLong),
        (v2_bytes(0x21, 0x12, &TCP4_CONTENT), Refusal::ProxyV2Family),
        (v2_bytes(0x21, 0x41, &TCP4_CONTENT), Refusal::ProxyV2Family),
        (v2_bytes(0x21, 0x32, &[0; 216]), Refusal::ProxyV2Family),
        (
            v2_bytes(0x21, 0x11, &TCP4_CONTENT[..11]),
            Refusal::ProxyV2Length,
        ),
        (v2_bytes(0x21, 0x21, &TCP4_CONTENT), Refusal::ProxyV2Length),
        (v2_bytes(0x21, 0x31, &[0; 215]), Refusal::ProxyV2Length),
        (v2_bytes(0x21, 0x11, &[]), Refusal::ProxyV2Length),
        // TLVs that reach behind the header.
        (tcp4_with(&[2]), Refusal::ProxyV2Tlv),
        (tcp4_with(&[2, 0, 1]), Refusal::ProxyV2Tlv),
        (tcp4_with(&[2, 0xff, 0xff, b'a']), Refusal::ProxyV2Tlv),
        (tcp4_with(&[4, 0, 0, 4, 0]), Refusal::ProxyV2Tlv),
        (tcp4_with(&[3, 0, 3, 0, 0, 0]), Refusal::ProxyV2Tlv),
        (
            tcp4_with(&[&[5, 0, 129][..], &[0; 129]].concat()),
            Refusal::ProxyV2Tlv,
        ),
        (
            tcp4_with(&[crc([0; 4]), crc([0; 4])].concat()),
            Refusal::ProxyV2Tlv,
        ),
        (tcp4_with(&crc([1, 2, 3, 4])), Refusal::ProxyV2Checksum),
    ] {
        let data = [&bytes[..], b"client"].concat();
        assert_eq!(
            read(&data),
            Reading::Refused(refusal),
            "{}",
            bytes.escape_ascii()
        );
        fuzz_proxy_header(&data);
    }
}

#[test]
fn an_oversize_header_is_refused_before_it_is_there() {
    let bytes = v2_bytes(0x21, 0x11, &[0; 4097]);
    assert_eq!(read(&bytes[..15]), Reading::More);
    let refused = Reading::Refused(Refusal::ProxyV2TooLong);
    assert_eq!(read(&bytes[..16]), refused);
}

#[test]
fn what_is_written_byte_by_byte() {
    let v4 = addresses("192.0.2.7:40000", "192.0.2.1:443");
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n";
    assert_eq!(
        written(ProxyVersion::V1, Some(&v4), &OutgoingTlvs::default()),
        line
    );
    let v6 = addresses("[2001:db8::7]:40000", "[2001:db8::1]:443");
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n";
    assert_eq!(
        written(ProxyVersion::V1, Some(&v6), &OutgoingTlvs::default()),
        line
    );
    let unknown = written(ProxyVersion::V1, None, &OutgoingTlvs::default());
    assert_eq!(unknown, b"PROXY UNKNOWN\r\n");
    let local = written(ProxyVersion::V2, None, &OutgoingTlvs::default());
    assert_eq!(local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    let tlvs = OutgoingTlvs {
        authority: Some("a.test"),
        alpn: Some(b"h2"),
        unique_id: b"7",
        ja4: Some(b"ja4"),
        received: None,
    };
    let bytes = written(ProxyVersion::V2, Some(&v4), &tlvs);
    let (sum_header, sum) = bytes[bytes.len() - 7..].split_at(3);
    assert_eq!(sum_header, [3, 0, 4]);
    let tlvs = b"\x02\0\x06a.test\x01\0\x02h2\x05\0\x017\xe0\0\x03ja4";
    let expected = tcp4_with(&[tlvs, sum_header, sum].concat());
    assert_eq!(bytes, expected);
    assert_eq!(found(&bytes).0.endpoints, Endpoints::Tcp(v4));
    // Any byte that changes is seen, but for the one that says that there is a checksum.
    for at in (16..bytes.len()).filter(|at| *at != bytes.len() - 7) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        assert!(matches!(read(&broken), Reading::Refused(_)), "byte {at}");
    }
}

#[test]
fn only_both_ends_mapped_are_ipv4() {
    let both = addresses("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.1]:2");
    assert_eq!(both, addresses("192.0.2.7:1", "192.0.2.1:2"));
    let one = addresses("192.0.2.7:1", "[2001:db8::1]:2");
    assert_eq!(one.source().to_string(), "[::ffff:192.0.2.7]:1");
    let line = b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n";
    assert_eq!(
        written(ProxyVersion::V1, Some(&one), &OutgoingTlvs::default()),
        line
    );
}

#[test]
fn what_the_header_before_said_is_passed_on() {
    let received = [
        &b"\x02\0\x03old"[..],
        b"\x01\0\x02h2",
        b"\x04\0\x01x",
        b"\x05\0\x02id",
        b"\x20\0\x05\x01\0\0\0\0",
        b"\xea\0\x03aws",
    ]
    .concat();
    let (header, _) = found(&tcp4_with(&received));
    let tlvs = OutgoingTlvs {
        authority: Some("new"),
        unique_id: b"own",
        received: Some(&header.tlvs),
        ..OutgoingTlvs::default()
    };
    let v6 = addresses("[2001:db8::7]:1", "[2001:db8::1]:2");
    let (again, _) = found(&written(ProxyVersion::V2, Some(&v6), &tlvs));
    let kinds: Vec<u8> = again.tlvs.iter().map(|tlv| tlv.kind.0).collect();
    assert_eq!(kinds, [0x02, 0x05, 0x01, 0x20, 0xea, 0x03]);
    for (kind, value) in [
        (TlvKind::AUTHORITY, &b"new"[..]),
        (TlvKind::UNIQUE_ID, b"id"),
        (TlvKind::ALPN, b"h2"),
        (TlvKind::SSL, b"\x01\0\0\0\0"),
    ] {
        assert_eq!(again.tlvs.value(kind), Some(value));
    }
}

/// More than fits is left out, and never makes the length lie (Envoy's CVE-2026-47692).
#[test]
fn what_is_passed_on_has_an_end() {
    let large = [&[0xea, 0x0f, 0xa0][..], &[7; 4000]].concat();
    let (header, _) = found(&tcp4_with(&[&large[..], b"\xeb\0\x01s"].concat()));
    let name = "n".repeat(253);
    let tlvs = OutgoingTlvs {
        authority: Some(&name),
        alpn: Some(&[b'a'; 255]),
        unique_id: &[b'u'; 128],
        ja4: Some(&[b'j'; 36]),
        received: Some(&header.tlvs),
    };
    let v6 = addresses("[2001:db8::7]:1", "[2001:db8::1]:2");
    let bytes = written(ProxyVersion::V2, Some(&v6), &tlvs);
    let (again, length) = found(&bytes);
    assert_eq!(length, bytes.len());
    assert_eq!(again.tlvs.value(TlvKind(0xea)), None);
    assert_eq!(again.tlvs.value(TlvKind(0xeb)), Some(&b"s"[..]));
}

#[test]
fn every_prefix_asks_for_more() {
    let v4 = addresses("192.0.2.7:40000", "192.0.2.1:443");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let tlvs = OutgoingTlvs {
            authority: Some("a.test"),
            ..OutgoingTlvs::default()
        };
        let bytes = written(version, Some(&v4), &tlvs);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Reading::More, "{end} bytes");
        }
        assert_eq!(found(&bytes).1, bytes.len());
    }
}

#[test]
fn every_header_of_a_real_sender_is_read() {
    for fixture in PROXY_HEADERS {
        let Fixture { file, data, .. } = fixture;
        let (header, bytes) = found(data);
        let client = match header.endpoints {
            Endpoints::Tcp(addresses) => addresses.source().ip().to_string(),
            Endpoints::Unix | Endpoints::Local => "-".to_owned(),
        };
        assert_eq!(client, fixture.verdict, "{file}");
        assert!(data[bytes..].starts_with(b"GET / HTTP/1."), "{file}");
        for end in 0..bytes {
            assert_eq!(read(&data[..end]), Reading::More, "{file} cut at {end}");
        }
    }
}

#[test]
fn the_fuzz_entry_holds_on_every_prefix_of_every_fixture() {
    for_every_prefix(PROXY_HEADERS, fuzz_proxy_header);
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let v4 =
        any::<([u8; 4], [u8; 4])>().prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to)));
    let v6 =
        any::<([u8; 16], [u8; 16])>().prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to)));
    (prop_oneof![v4, v6], any::<(u16, u16)>()).prop_map(|((from, to), (out, into))| {
        Addresses::new(SocketAddr::new(from, out), SocketAddr::new(to, into))
    })
}

proptest! {
    #[test]
    fn mutated_headers(data in mutated(PROXY_HEADERS)) {
        fuzz_proxy_header(&data);
    }

    #[test]
    fn what_is_written_reads_the_same(
        addresses in any_addresses(),
        authority in proptest::option::of("[a-z.]{1,253}"),
        alpn in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=255)),
        unique_id in proptest::collection::vec(any::<u8>(), 0..=128),
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let tlvs = OutgoingTlvs {
            authority: authority.as_deref(),
            alpn: alpn.as_deref(),
            unique_id: &unique_id,
            ..OutgoingTlvs::default()
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut bytes = written(version, Some(&addresses), &tlvs);
            let length = bytes.len();
            bytes.extend(&behind);
            let (header, used) = found(&bytes);
            prop_assert_eq!(used, length);
            prop_assert_eq!(header.endpoints, Endpoints::Tcp(addresses));
            if version == ProxyVersion::V2 {
                prop_assert_eq!(header.tlvs.value(TlvKind::AUTHORITY), tlvs.authority.map(str::as_bytes));
                prop_assert_eq!(header.tlvs.value(TlvKind::ALPN), tlvs.alpn);
            }
            fuzz_proxy_header(&bytes);
        }
    }

    #[test]
    fn noise_never_panics(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_proxy_header(&data);
        fuzz_proxy_header(&[&b"PROXY "[..], &data].concat());
        fuzz_proxy_header(&[&v2::SIGNATURE[..], &data].concat());
        fuzz_proxy_header(&tcp4_with(&data));
    }

    #[test]
    fn lines_of_words_never_panic(
        words in proptest::collection::vec(
            "TCP4|TCP6|UNKNOWN|[0-9.:a-f]{0,12}|65535|\r\n| ",
            0..8,
        ),
    ) {
        fuzz_proxy_header(format!("PROXY {}\r\n", words.join(" ")).as_bytes());
    }
}
