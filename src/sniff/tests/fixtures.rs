//! The hellos of real clients.

use proptest::prelude::*;

use super::*;
use crate::fixtures::{Fixture, HELLOS, REQUESTS, for_every_prefix, mutated};

#[test]
fn every_hello_is_read() {
    for fixture in HELLOS {
        let Fixture { file, data, .. } = fixture;
        let verdict = sniff(data);
        assert_eq!(word(&verdict), fixture.verdict, "{file}");
        if let Sniff::Found(head) = &verdict {
            assert_eq!(&*head.alpn, fixture.alpn, "{file}");
        }
        assert_eq!(sniff_byte_by_byte(data), verdict, "{file}");
    }
}

#[test]
fn no_prefix_of_a_hello_is_answered() {
    for Fixture { file, data, .. } in HELLOS {
        for end in 0..data.len() {
            assert_eq!(sniff(&data[..end]), Sniff::More, "{file} cut at {end}");
        }
    }
}

#[test]
fn requests_of_http_are_known_as_such() {
    for Fixture { file, data, .. } in REQUESTS {
        assert_eq!(word(&sniff(data)), "http_on_tls_port", "{file}");
    }
}

#[test]
fn the_fuzz_entry_holds_on_every_prefix_of_every_fixture() {
    for_every_prefix(HELLOS, fuzz_hello);
    for_every_prefix(REQUESTS, fuzz_hello);
}

proptest! {
    #[test]
    fn mutated_hellos(data in mutated(HELLOS)) {
        fuzz_hello(&data);
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
        let Fixture { data, .. } = HELLOS.iter().find(|hello| hello.file == file).expect(file);
        let computed = ja4(data).expect("a whole hello");
        assert_eq!(computed.as_str(), fingerprint, "{file}");
        assert_eq!(ja4(&data[..data.len() - 1]), None, "{file}");
    }
}
