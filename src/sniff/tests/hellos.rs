//! Hellos built to order: the awkward that have to be routed, the broken that have to be refused.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::hello_builder::*;
use super::*;

fn verdict(data: &[u8]) -> String {
    let whole = sniff(data);
    assert_eq!(sniff_byte_by_byte(data), whole);
    word(&whole)
}

/// Where the bytes of `a.test` begin in the message.
fn name_position(message: &[u8]) -> usize {
    let mut windows = message.windows(6);
    windows.position(|window| window == b"a.test").unwrap()
}

/// The first table of awkward input that trips other proxies.
#[test]
fn awkward_hellos_are_routed() {
    let small = Hello::named("a.test", 32).message();
    let name_at = name_position(&small);
    let cut = |at: usize| [records(&small[..at], 16_384), records(&small[at..], 16_384)].concat();
    let early_data = record(23, &[0xaa; 2048]);
    for (what, data) in [
        ("one record", records(&small, 16_384)),
        ("post-quantum size", Hello::named("a.test", 1800).records()),
        ("two records, cut before the name", cut(name_at - 9)),
        ("two records, cut in the name", cut(name_at + 2)),
        ("two records, cut behind the name", cut(name_at + 6)),
        ("a first record of one byte", cut(1)),
        ("a first record of four bytes", cut(4)),
        ("records of 20 bytes", records(&small, 20)),
        ("records of one byte", records(&small, 1)),
        ("5 KB", Hello::named("a.test", 5_000).records()),
        ("12 KB, name last", Hello::named("a.test", 12_000).records()),
        ("20 KB", Hello::named("a.test", 20_000).records()),
        ("60 KB", Hello::named("a.test", 60_000).records()),
        ("upper case", Hello::named("A.TEST", 0).records()),
        ("trailing dot", Hello::named("a.test.", 0).records()),
        ("early data", [records(&small, 16_384), early_data].concat()),
        (
            "more in the record",
            record(22, &[&small[..], &[0; 9]].concat()),
        ),
    ] {
        assert_eq!(verdict(&data), "a.test", "{what}");
    }
}

#[test]
fn hellos_without_a_name_are_valid() {
    let mut bare = Hello::named("a.test", 0);
    bare.extensions = None;
    assert_eq!(verdict(&bare.records()), "-");
    assert_eq!(verdict(&Hello::new(vec![]).records()), "-");
    assert_eq!(verdict(&Hello::new(vec![(ECH, vec![0])]).records()), "-");
    bare.version = 0x0300;
    bare.session_id.clear();
    assert_eq!(verdict(&bare.records()), "-");
}

#[test]
fn addresses_are_names_like_others() {
    for (sent, want) in [("192.0.2.7", "192.0.2.7"), ("2001:DB8::7", "[2001:db8::7]")] {
        assert_eq!(verdict(&Hello::named(sent, 0).records()), want);
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let name_254 = "a.".repeat(127) + "bc";
    for (name, want) in [
        ("", "sni_empty"),
        (".", "sni_empty"),
        ("a\0.test", "sni_bad_byte"),
        ("*.test", "sni_bad_byte"),
        ("a.test:443", "sni_bad_byte"),
        ("x\r\nDEL hostnames:a.test", "sni_bad_byte"),
        ("b\u{fc}cher.test", "sni_bad_byte"),
        ("a..test", "sni_bad_name"),
        (".a.test", "sni_bad_name"),
        ("999.0.0.1", "sni_bad_name"),
        (name_254.as_str(), "sni_too_long"),
    ] {
        assert_eq!(verdict(&Hello::named(name, 0).records()), want, "{name}");
    }
}

#[test]
fn server_name_extensions_that_lie_are_refused() {
    let name = server_name(&[b"a.test"]);
    let entry = &name[2..];
    let other_type = [vec![1], vector16(b"a.test")].concat();
    for (what, extensions, want) in [
        (
            "two, equal",
            vec![name.clone(), name.clone()],
            "sni_repeated",
        ),
        (
            "two",
            vec![name.clone(), server_name(&[b"b.test"])],
            "sni_repeated",
        ),
        (
            "two names",
            vec![server_name(&[b"a.test", b"b.test"])],
            "sni_several_names",
        ),
        ("another type", vec![vector16(&other_type)], "sni_name_type"),
        (
            "another type too",
            vec![vector16(&[entry, &other_type].concat())],
            "sni_name_type",
        ),
        ("nothing", vec![vec![]], "sni_length"),
        ("half a length", vec![vec![0]], "sni_length"),
        ("empty list", vec![vector16(&[])], "sni_length"),
        (
            "list too short",
            vec![[&name[..], &[0]].concat()],
            "sni_length",
        ),
        (
            "list too long",
            vec![[&[0, 10][..], entry].concat()],
            "sni_length",
        ),
        (
            "name too long",
            vec![vector16(&[0, 0, 9, b'a'])],
            "sni_length",
        ),
        (
            "second name too long",
            vec![vector16(&[entry, &[0, 0, 9]].concat())],
            "sni_length",
        ),
        ("only a type", vec![vector16(&[0])], "sni_length"),
    ] {
        let extensions = extensions.into_iter().map(|data| (SERVER_NAME, data));
        assert_eq!(
            verdict(&Hello::new(extensions.collect()).records()),
            want,
            "{what}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn hellos_that_lie_are_refused() {
    let sound = Hello::named("a.test", 0);
    let changed = |change: fn(&mut Hello)| {
        let mut hello = sound.clone();
        change(&mut hello);
        hello.records()
    };
    let body = sound.body();
    let with_body = |body: &[u8]| records(&message(body), 16_384);
    let mut overlong_block = body.clone();
    let block_length_at = 2 + 32 + 33 + 6 + 2;
    overlong_block[block_length_at + 1] += 1;
    for (what, data, want) in [
        (
            "version",
            changed(|hello| hello.version = 0x0200),
            "hello_version",
        ),
        (
            "session id",
            changed(|hello| hello.session_id.push(0)),
            "session_id_too_long",
        ),
        (
            "odd suites",
            changed(|hello| hello.suites.push(0)),
            "cipher_suites",
        ),
        (
            "no suites",
            changed(|hello| hello.suites.clear()),
            "cipher_suites",
        ),
        (
            "no compression",
            changed(|hello| hello.compressions.clear()),
            "compression_methods",
        ),
        (
            "twice the same extension",
            Hello::new(vec![(KEY_SHARE, vec![]), (KEY_SHARE, vec![])]).records(),
            "extension_repeated",
        ),
        ("length 0", with_body(&[]), "hello_length"),
        ("ends in the random", with_body(&body[..20]), "hello_length"),
        (
            "ends in the block",
            with_body(&body[..body.len() - 1]),
            "hello_length",
        ),
        ("block too long", with_body(&overlong_block), "hello_length"),
        (
            "data behind the block",
            with_body(&[&body[..], &[0]].concat()),
            "hello_trailing_data",
        ),
        (
            "half an extension",
            with_body(
                &[
                    &Hello {
                        extensions: None,
                        ..sound.clone()
                    }
                    .body()[..],
                    &[0, 3, 0, 0, 0],
                ]
                .concat(),
            ),
            "hello_length",
        ),
    ] {
        assert_eq!(verdict(&data), want, "{what}");
    }
    for data in [
        vec![],
        vec![0],
        alpn(&[]),
        alpn(&[b""]),
        vec![0, 3, 2, b'h'],
        vec![0, 2, 2, b'h'],
    ] {
        let hello = Hello::new(vec![(ALPN, data.clone())]);
        assert_eq!(verdict(&hello.records()), "alpn_malformed", "{data:?}");
    }
}

#[test]
fn records_that_lie_are_refused() {
    let message = Hello::named("a.test", 0).message();
    let (head, tail) = message.split_at(30);
    let between = |record: Vec<u8>| [records(head, 99), record, records(tail, 99)].concat();
    for (what, data, want) in [
        ("alert first", record(21, &[2, 40]), "record_not_handshake"),
        (
            "change cipher spec first",
            record(20, &[1]),
            "record_not_handshake",
        ),
        (
            "alert between",
            between(record(21, &[1, 0])),
            "record_not_handshake",
        ),
        ("empty record first", record(22, &[]), "record_empty"),
        (
            "empty record between",
            between(record(22, &[])),
            "record_empty",
        ),
        ("length 16,385", vec![22, 3, 1, 0x40, 1], "record_too_long"),
        ("major version", vec![22, 2], "record_version"),
        ("a ServerHello", record(22, &[2]), "not_client_hello"),
        (
            "the record ends early",
            [&[22, 3, 1, 0, 9][..], &message].concat(),
            "record_not_handshake",
        ),
        ("SSL 2.0", vec![0x80, 0x2e, 1, 0, 2], "sslv2_hello"),
        (
            "SSL 3.0 in SSL 2.0 framing",
            vec![0x80, 0x67, 1, 3, 0],
            "sslv2_hello",
        ),
        ("QUIC", vec![0xc3, 0, 0, 0, 1], "not_tls"),
        ("SSH", b"SSH-2.0-x\r\n".to_vec(), "not_tls"),
        ("Redis", b"*1\r\n".to_vec(), "not_tls"),
        ("GET", b"GET / HTTP/1.1\r\n".to_vec(), "http_on_tls_port"),
        ("POST", b"POST ".to_vec(), "http_on_tls_port"),
        ("HTTP/2", b"PRI * HTTP/2.0".to_vec(), "http_on_tls_port"),
    ] {
        assert_eq!(verdict(&data), want, "{what}");
    }
}

#[test]
fn the_limit_counts_record_headers_and_holds_to_the_byte() {
    let hello = Hello::named("a.test", 60_000).records();
    for (limit, want) in [
        (hello.len(), "a.test"),
        (hello.len() - 1, "hello_too_large"),
    ] {
        let verdict = Sniffer::new(limit).advance(&hello);
        assert_eq!(word(&verdict), want);
        // The handshake header says how long the hello is; nobody has to wait for its end.
        let early = Sniffer::new(limit).advance(&hello[..9]);
        let want_early = if want == "a.test" { "..." } else { want };
        assert_eq!(word(&early), want_early);
    }
}

#[test]
fn alpn_is_kept_printable_and_bounded_and_ech_is_seen() {
    let hello = Hello::new(vec![
        (ALPN, alpn(&[b"h2", b"a,b", b"\xba\xad\n"])),
        (ECH, vec![1]),
    ]);
    let Sniff::Found(head) = sniff(&hello.records()) else {
        panic!("a sound hello is found");
    };
    assert_eq!(&*head.alpn, r"h2,a\x2cb,\xba\xad\n");
    assert!(head.ech);
    let long = vec![&b"\x00\x01\x02\x03"[..]; 5000];
    let hello = Hello::new(vec![(ALPN, alpn(&long))]);
    let Sniff::Found(head) = sniff(&hello.records()) else {
        panic!("a sound hello is found");
    };
    assert!(head.alpn.len() <= 256 && head.alpn.ends_with("..."));
    assert!(!head.ech);
}

/// A walk that began anew with each byte would take some 2^31 steps here, most of a minute in a
/// test build.
#[test]
fn a_hello_in_one_byte_records_costs_its_length_only() {
    let data = records(&message(&vec![0; 10_900]), 1);
    assert!(data.len() > 65_000 && data.len() < 65_536);
    let start = Instant::now();
    assert_eq!(word(&sniff_byte_by_byte(&data)), "hello_version");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// From SSL 3.0 to what no RFC has a name for: which one is spoken is the backend's to say.
#[test]
fn hellos_of_any_version_from_ssl_3_are_routed() {
    for (version, want) in [
        (0x0000, "hello_version"),
        (0x0002, "hello_version"),
        (0x0200, "hello_version"),
        (0x02ff, "hello_version"),
        (0x0300, "a.test"),
        (0x0303, "a.test"),
        (0x0304, "a.test"),
        (0x03ff, "a.test"),
        (0x0401, "a.test"),
        (0x7f1c, "a.test"),
        (0xfefe, "a.test"),
        (0xffff, "a.test"),
    ] {
        let hello = Hello {
            version,
            ..Hello::named("a.test", 0)
        };
        let data = hello.records();
        assert_eq!(word(&sniff(&data)), want, "{version:#06x}");
        for end in 0..data.len() {
            assert_eq!(sniff(&data[..end]), Sniff::More);
        }
        fuzz_hello(&data);
    }
}

proptest! {
    #[test]
    fn sound_hellos_are_routed_however_they_are_cut((hello, name, cuts) in any_hello()) {
        let message = hello.message();
        let mut rest = &message[..];
        let mut data = Vec::new();
        for cut in cuts {
            let (first, second) = rest.split_at(cut.min(rest.len()));
            data.extend(records(first, 16_384));
            rest = second;
        }
        data.extend(records(rest, 16_384));
        prop_assert_eq!(word(&sniff(&data)), name.unwrap_or("-".to_owned()));
        for end in 0..data.len() {
            prop_assert_eq!(sniff(&data[..end]), Sniff::More);
        }
        fuzz_hello(&data);
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_hello(&data);
    }

    #[test]
    fn any_hello_body(body in prop::collection::vec(any::<u8>(), 0..200), length in 1usize..99) {
        fuzz_hello(&records(&message(&body), length));
    }

    #[test]
    fn any_extensions(block in prop::collection::vec(0u8..20, 0..120)) {
        let mut body = Hello { extensions: None, ..Hello::new(vec![]) }.body();
        body.extend(vector16(&block));
        fuzz_hello(&records(&message(&body), 16_384));
    }

    #[test]
    fn mutated_hellos(at in prop::collection::vec((0usize..230, any::<u8>()), 1..6)) {
        let mut data = Hello::named("a.test", 64).records();
        for (position, byte) in at {
            let position = position % data.len();
            data[position] = byte;
        }
        fuzz_hello(&data);
    }
}
