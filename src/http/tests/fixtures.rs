//! The requests of real clients.

use proptest::prelude::*;

use super::*;
use crate::fixtures::{Fixture, HELLOS, REQUESTS, for_every_prefix, mutated};

#[test]
fn every_request_is_read() {
    for fixture in REQUESTS {
        let Fixture { file, data, .. } = fixture;
        assert_eq!(word(data), fixture.verdict, "{file}");
        assert_eq!(word_byte_by_byte(data), fixture.verdict, "{file}");
    }
}

#[test]
fn no_prefix_of_a_request_head_is_answered() {
    for fixture in REQUESTS {
        let Fixture { file, data, .. } = fixture;
        let mut windows = data.windows(4);
        let head = windows.position(|window| window == b"\r\n\r\n").unwrap() + 4;
        for end in 0..data.len() {
            let mut room = FieldRoom::new();
            match RequestReader::new(BYTES_MAX).advance(&data[..end], &mut room) {
                Reading::Refused(refusal) => assert_eq!(refusal.name(), fixture.verdict, "{file}"),
                Reading::Found(found) => {
                    assert!(end >= head, "{file} cut at {end}");
                    assert_eq!(found.head_bytes, head, "{file}");
                }
                Reading::More => assert!(end < head, "{file} cut at {end}"),
            }
        }
    }
}

#[test]
fn hellos_of_tls_are_known_as_such() {
    for Fixture { file, data, .. } in HELLOS {
        assert_eq!(word(data), "tls_on_http_port", "{file}");
    }
}

#[test]
fn the_fuzz_entries_hold_on_every_prefix_of_every_fixture() {
    for_every_prefix(REQUESTS, fuzz_request);
    for_every_prefix(REQUESTS, fuzz_chunks);
    for_every_prefix(REQUESTS, fuzz_h2c);
    for_every_prefix(HELLOS, fuzz_request);
}

proptest! {
    #[test]
    fn mutated_requests(data in mutated(REQUESTS)) {
        fuzz_request(&data);
    }
}
