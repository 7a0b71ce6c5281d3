//! What real clients sent, kept in `tests/fixtures`; its README says how each was captured.

use proptest::prelude::*;

use super::*;

/// File, verdict, ALPN.
macro_rules! fixtures {
    ($folder:literal: $($file:literal $verdict:literal $alpn:literal)*) => {
        [$((
            $file,
            include_bytes!(concat!("../../../tests/fixtures/", $folder, "/", $file)).as_slice(),
            $verdict,
            $alpn,
        )),*]
    };
}

type Fixture = (&'static str, &'static [u8], &'static str, &'static str);

const HELLOS: &[Fixture] = &fixtures! { "hellos":
    "curl-tls.bin" "curl.fixture.example" "h2,http/1.1"
    "java.bin" "java.fixture.example" "h2,http/1.1"
    "node.bin" "node.fixture.example" "h2,http/1.1"
    "openssl-address.bin" "192.0.2.7" ""
    "openssl-fragments.bin" "fragments.openssl.fixture.example" ""
    "openssl-no-name.bin" "-" ""
    "openssl-tls10.bin" "tls10.openssl.fixture.example" ""
    "openssl-tls11.bin" "tls11.openssl.fixture.example" ""
    "openssl-tls12.bin" "tls12.openssl.fixture.example" ""
    "openssl-tls13.bin" "tls13.openssl.fixture.example" "h2,http/1.1"
    "openssl-trailing-dot.bin" "dot.openssl.fixture.example" ""
    "openssl-underscore.bin" "_under.score_.openssl.fixture.example" ""
    "openssl-upper-case.bin" "upper.openssl.fixture.example" ""
    "python-ssl.bin" "python.fixture.example" "http/1.1"
    "rustls.bin" "rustls.fixture.example" "h2,http/1.1"
    "rustls-fragments.bin" "rustls.fixture.example" ""
};

const REQUESTS: &[Fixture] = &fixtures! { "requests":
    "curl-http10.bin" "curl.fixture.example" ""
    "curl-http11.bin" "curl.fixture.example" ""
    "curl-http2-prior-knowledge.bin" "http2_preface" ""
    "curl-ipv6-literal.bin" "[2001:db8::1]" ""
    "curl-post-body.bin" "post.fixture.example" ""
    "curl-proxy-absolute.bin" "absolute.fixture.example" ""
    "curl-proxy-connect.bin" "connect_method" ""
    "curl-upgrade-h2c.bin" "h2c.fixture.example" ""
    "node-http.bin" "node.fixture.example" ""
    "python-http10-no-host.bin" "-" ""
    "python-urllib.bin" "urllib.fixture.example" ""
};

fn check(protocol: Protocol, fixtures: &[Fixture]) {
    for (file, data, want, alpn) in fixtures {
        let verdict = sniff(protocol, data);
        assert_eq!(word(&verdict), *want, "{file}");
        if let Sniff::Found(head) = &verdict {
            assert_eq!(*head.alpn, **alpn, "{file}");
        }
        assert_eq!(sniff_byte_by_byte(protocol, data), verdict, "{file}");
    }
}

#[test]
fn every_hello_is_read() {
    check(Protocol::Tls, HELLOS);
}

#[test]
fn every_request_is_read() {
    check(Protocol::Http, REQUESTS);
}

#[test]
fn no_prefix_of_a_hello_is_answered() {
    for (file, data, ..) in HELLOS {
        for end in 0..data.len() {
            let verdict = sniff(Protocol::Tls, &data[..end]);
            assert_eq!(verdict, Sniff::More, "{file} cut at {end}");
        }
    }
}

#[test]
fn no_prefix_of_a_request_head_is_answered() {
    for (file, data, want, _) in REQUESTS {
        let mut windows = data.windows(4);
        let head = windows.position(|window| window == b"\r\n\r\n").unwrap() + 4;
        for end in 0..data.len() {
            let verdict = sniff(Protocol::Http, &data[..end]);
            match verdict {
                Sniff::Refused(refusal) => assert_eq!(refusal.name(), *want, "{file}"),
                Sniff::Found(_) => assert!(end >= head, "{file} cut at {end}"),
                Sniff::More => assert!(end < head, "{file} cut at {end}"),
            }
        }
    }
}

#[test]
fn either_port_knows_the_other_protocol() {
    for (file, data, ..) in HELLOS {
        let verdict = sniff(Protocol::Http, data);
        assert_eq!(word(&verdict), "tls_on_http_port", "{file}");
    }
    for (file, data, ..) in REQUESTS {
        let verdict = sniff(Protocol::Tls, data);
        assert_eq!(word(&verdict), "http_on_tls_port", "{file}");
    }
}

#[test]
fn fuzz_entries_hold_on_every_prefix_of_every_fixture() {
    for (_, data, ..) in HELLOS {
        (0..=data.len()).for_each(|end| fuzz_tls(&data[..end]));
    }
    for (_, data, ..) in REQUESTS {
        (0..=data.len()).for_each(|end| fuzz_http(&data[..end]));
    }
}

/// What is done to a fixture: where, and which byte is put there, put in or taken out.
fn mutate(data: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut data = data.to_vec();
    for (place, kind, byte) in changes {
        let at = place.index(data.len());
        match kind {
            0 => data[at] = *byte,
            1 => data[at] ^= 1 << (byte & 7),
            2 => data.insert(at, *byte),
            3 if data.len() > 1 => drop(data.remove(at)),
            _ => data.truncate(at + 1),
        }
    }
    data
}

fn any_changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0u8..5, any::<u8>()), 1..8)
}

proptest! {
    #[test]
    fn mutated_hellos(which in 0..HELLOS.len(), changes in any_changes()) {
        fuzz_tls(&mutate(HELLOS[which].1, &changes));
    }

    #[test]
    fn mutated_requests(which in 0..REQUESTS.len(), changes in any_changes()) {
        fuzz_http(&mutate(REQUESTS[which].1, &changes));
    }
}

/// Worked out by another program, from the specification; curl's is also the one that others
/// publish for it.
#[test]
fn fingerprints_of_real_clients() {
    for (file, fingerprint) in [
        ("curl-tls.bin", "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"),
        ("java.bin", "t13d3713h2_db35923f8641_7c76daad20ec"),
        ("node.bin", "t13d5911h2_a33745022dd6_1f22a2ca17c4"),
        (
            "openssl-fragments.bin",
            "t13d310900_e8f1e7e78f70_b8afff07bc3f",
        ),
        (
            "openssl-no-name.bin",
            "t13i310900_e8f1e7e78f70_1f22a2ca17c4",
        ),
        ("openssl-tls10.bin", "t10d090600_c491f621fb4c_195413a0cc0f"),
        ("openssl-tls12.bin", "t12d280700_d943125447b4_e7e480e5a997"),
        ("python-ssl.bin", "t13d1812h1_85036bcba153_d41ae481755e"),
        ("rustls.bin", "t13d1011h2_61a7ad8aa9b6_3fcd1a44f3e3"),
    ] {
        let (_, data, ..) = HELLOS.iter().find(|hello| hello.0 == file).expect(file);
        let computed = ja4(data).expect("a whole hello");
        assert_eq!(computed.as_str(), fingerprint, "{file}");
        assert_eq!(ja4(&data[..data.len() - 1]), None, "{file}");
    }
}

#[test]
fn only_a_protocol_without_rivals_is_told() {
    for (alpn, ech, only) in [
        ("", false, None),
        ("http/1.1", false, Some("http/1.1")),
        ("h2,http/1.1", false, None),
        ("\\x0a\\x0a", false, None),
        ("h2", true, None),
    ] {
        let head = Head {
            name: None,
            alpn: alpn.into(),
            ech,
        };
        assert_eq!(head.only_alpn(), only, "{alpn}");
    }
}
