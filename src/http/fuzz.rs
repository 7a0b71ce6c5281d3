//! Fuzz entry for requests: what is forwarded is read as it was meant, and would be forwarded as it
//! is.

use super::fields::Known;
use super::request::FieldRoom;
use super::{Forwarding, Hop, Reading, RequestReader, rewrite};

const BYTES_MAX: usize = 65_536;
const HOP: Hop = Hop {
    client: None,
    port: 80,
    trusted: false,
};

/// Asserts that a request that is understood is understood alike by whoever it is forwarded to.
#[doc(hidden)]
pub fn fuzz_request(data: &[u8]) {
    let mut room = FieldRoom::new();
    let Reading::Found(head) = RequestReader::new(BYTES_MAX).advance(data, &mut room) else {
        return;
    };
    let mut once = Vec::new();
    rewrite::request(&head, &Forwarding::ALL, &HOP, &mut once);
    let mut room = FieldRoom::new();
    let Reading::Found(again) = RequestReader::new(2 * BYTES_MAX).advance(&once, &mut room) else {
        panic!("{} is not understood again", once.escape_ascii());
    };
    assert_eq!(again.head_bytes, once.len());
    assert_eq!(
        (again.method, again.body, &again.host, again.upgrade),
        (head.method, head.body, &head.host, head.upgrade)
    );
    let one_less = head.max_forwards.map(|left| left.saturating_sub(1));
    assert_eq!(again.max_forwards, one_less);
    let is_kept_out = |known| {
        matches!(
            known,
            Known::Lookalike | Known::Proxy | Known::ForwardedOther
        )
    };
    assert!(
        !again
            .fields
            .iter()
            .any(|field| is_kept_out(Known::of(field.name)))
    );
    if one_less.is_some_and(|left| left > 0) {
        return;
    }
    let is_host = |name: &str| Known::of(name) == Known::Host;
    let hosts = again.fields.iter().filter(|field| is_host(field.name));
    assert!(hosts.count() <= 1);
    let mut twice = Vec::new();
    rewrite::request(&again, &Forwarding::ALL, &HOP, &mut twice);
    assert_eq!(once, twice, "{}", once.escape_ascii());
}
