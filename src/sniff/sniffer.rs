//! The bytes of one client → its ClientHello.

use super::head::Head;
use super::hello::parse_hello;
use super::records::RecordWalk;
use crate::refusal::Refusal;

/// The three answers to "which name do these bytes carry?".
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for a moment; a box would be one more allocation per connection"
)]
pub enum Sniff {
    /// The hello is complete and valid.
    Found(Head),
    /// Valid so far; ask again with more bytes.
    More,
    /// No bytes that may follow make this a hello that can be routed.
    Refused(Refusal),
}

/// Walks the records of one client's hello. It keeps positions only, never bytes, so that a hello that
/// arrives byte by byte costs no more than one that arrives whole.
#[derive(Debug, Clone)]
pub struct Sniffer {
    bytes_max: u32,
    records: RecordWalk,
}

/// There is one for every connection whose hello has not arrived.
const _: () = assert!(size_of::<Sniffer>() <= 20);

impl Sniffer {
    /// At most `bytes_max` bytes make a hello, record headers included; 4 GiB and more count as 4 GiB.
    pub fn new(bytes_max: usize) -> Sniffer {
        Sniffer {
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
            records: RecordWalk::default(),
        }
    }

    /// `received` is everything received since the connection was accepted: what the last call got,
    /// and more behind it. The answer depends on the bytes alone, not on how they were cut into
    /// calls, and stays the same once it is not [`Sniff::More`]. It is never [`Sniff::More`] when as
    /// many bytes as the limit allows were received.
    pub fn advance(&mut self, received: &[u8]) -> Sniff {
        let bytes_max = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        let within = &received[..received.len().min(bytes_max)];
        let body = match self.records.advance(within, self.bytes_max) {
            Ok(Some(body)) => body,
            Ok(None) if received.len() < bytes_max => return Sniff::More,
            Ok(None) => return Sniff::Refused(Refusal::HelloTooLarge),
            Err(refusal) => return Sniff::Refused(refusal),
        };
        match parse_hello(&body) {
            Ok(head) => Sniff::Found(head),
            Err(refusal) => Sniff::Refused(refusal),
        }
    }
}
