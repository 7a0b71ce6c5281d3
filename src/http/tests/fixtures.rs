//! The messages of real clients and servers.

use proptest::prelude::*;

use super::h2c::{FirstRequest, PREFACE};
use super::*;
use crate::fixtures::{Fixture, H2C, HELLOS, REQUESTS, RESPONSES, for_every_prefix, mutated};

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
            let mut storage = FieldStorage::new();
            match RequestReader::new(BYTES_MAX).advance(&data[..end], &mut storage) {
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

/// What the request was that a response in the fixtures answers.
fn request_of(fixture: &Fixture) -> RequestSummary {
    RequestSummary {
        is_head: fixture.file.contains("head"),
        minor_version: if fixture.file.contains("http10") {
            0
        } else {
            1
        },
    }
}

/// The statuses of all responses in a fixture, each of which has to end within it, and the bodies.
fn responses_in(fixture: &Fixture) -> (Vec<String>, Vec<&[u8]>) {
    let (mut statuses, mut bodies) = (Vec::new(), Vec::new());
    let mut rest = fixture.data;
    while !rest.is_empty() {
        let mut storage = FieldStorage::new();
        let parsed = ResponseHead::parse(rest, BYTES_MAX, request_of(fixture), &mut storage);
        let head = parsed.expect("it is sound").expect("it is whole");
        statuses.push(head.status.to_string());
        let mut framing = Framing::new(head.body);
        let behind = &rest[head.head_bytes..];
        let (body, next) = behind.split_at(framing.feed(behind).expect("its body is sound"));
        assert!(framing.ends_with_stream(), "{}", fixture.file);
        bodies.push(body);
        rest = next;
    }
    (statuses, bodies)
}

#[test]
fn every_response_is_read() {
    for fixture in RESPONSES {
        let (statuses, _) = responses_in(fixture);
        assert_eq!(statuses.join(" "), fixture.verdict, "{}", fixture.file);
    }
}

#[test]
fn no_prefix_of_a_response_head_is_answered() {
    for fixture in RESPONSES {
        let Fixture { file, data, .. } = fixture;
        let mut windows = data.windows(4);
        let head = windows.position(|window| window == b"\r\n\r\n").unwrap() + 4;
        for end in 0..data.len() {
            let mut storage = FieldStorage::new();
            let parsed =
                ResponseHead::parse(&data[..end], BYTES_MAX, request_of(fixture), &mut storage);
            let parsed = parsed.expect("it is sound").map(|parsed| parsed.head_bytes);
            assert_eq!(parsed, (end >= head).then_some(head), "{file} cut at {end}");
        }
    }
}

#[test]
fn chunks_of_real_servers_are_in_proper_form() {
    let mut chunked = 0;
    for (_, bodies) in RESPONSES.iter().map(responses_in) {
        for body in bodies.iter().filter(|body| body.ends_with(b"\r\n\r\n")) {
            let mut out = Vec::new();
            let mut framing = Framing::new(Length::Chunked);
            let used = framing.normalize(body, ChunkedOutput::Chunked, &mut out);
            assert_eq!((used, &out[..]), (Ok(body.len()), *body));
            chunked += 1;
        }
    }
    assert_eq!(chunked, 2);
}

#[test]
fn every_beginning_of_http2_is_read() {
    for fixture in H2C {
        let Fixture { file, data, .. } = fixture;
        let host = |received| FirstRequest::default().advance(received, BYTES_MAX);
        let found = host(data).expect("it is sound").expect("it is whole");
        assert_eq!(found.to_string(), fixture.verdict, "{file}");
        for end in 0..data.len() {
            let early = host(&data[..end]).expect("it is sound so far");
            assert!(
                early.is_none() || early.as_ref() == Some(&found),
                "{file} cut at {end}"
            );
        }
        assert_eq!(host(&data[..PREFACE.len() + 9]), Ok(None), "{file}");
    }
}

#[test]
fn the_fuzz_entries_hold_on_every_prefix_of_every_fixture() {
    for_every_prefix(REQUESTS, fuzz_request);
    for_every_prefix(HELLOS, fuzz_request);
    for_every_prefix(RESPONSES, fuzz_response);
    for_every_prefix(H2C, fuzz_h2c);
    for_every_prefix(REQUESTS, fuzz_chunks);
    for (_, bodies) in RESPONSES.iter().map(responses_in) {
        for body in bodies {
            (0..=body.len()).for_each(|end| fuzz_chunks(&body[..end]));
        }
    }
}

proptest! {
    #[test]
    fn mutated_requests(data in mutated(REQUESTS)) {
        fuzz_request(&data);
    }

    #[test]
    fn mutated_responses(data in mutated(RESPONSES)) {
        fuzz_response(&data);
        fuzz_chunks(&data);
    }

    #[test]
    fn mutated_beginnings_of_http2(data in mutated(H2C)) {
        fuzz_h2c(&data);
    }
}
