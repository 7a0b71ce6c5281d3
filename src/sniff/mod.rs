//! The first bytes of a connection → the name in them. Pure: bytes come in, one of three answers
//! goes out, and every refusal has a name.
//!
//! The caller owns the bytes and hands in all of them each time; the [`Sniffer`] remembers how far
//! it looked. Bytes behind the head are never looked at and are none of its business: early data
//! behind a hello or a body behind a request is relayed as it came.

mod hello;
pub(crate) mod http;
mod ja4;
pub(crate) mod request_line;
mod tls;

#[cfg(test)]
mod tests;

pub use ja4::ja4;
pub(crate) use tls::is_hello_alone;

use crate::host::Host;
use crate::protocol::Protocol;
use crate::refusal::Refusal;

/// The three answers to "which name do these bytes carry?".
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for a moment, once per connection; a box would be one more allocation for each"
)]
pub enum Sniff {
    /// The head is complete and valid.
    Found(Head),
    /// Valid so far; ask again with more bytes.
    More,
    /// Never going to be a head that may be routed.
    Refused(Refusal),
}

/// What a complete head says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The name, canonical; `None` when the head is valid without one (no SNI; HTTP/1.0 without
    /// Host).
    pub name: Option<Host>,
    /// ALPN protocols offered, comma-separated, escaped for the log; empty without the extension.
    pub alpn: Box<str>,
    /// Whether an encrypted_client_hello extension (0xfe0d) is present.
    pub ech: bool,
}

impl Head {
    /// The application protocol, where the head leaves no choice: the only one that it offers. Of
    /// several the backend will choose one, and in an outer hello (ECH) they may not be those that
    /// count. Names with bytes that are escaped in the log, such as GREASE, are none of use.
    pub fn only_alpn(&self) -> Option<&str> {
        let is_one = !self.alpn.is_empty() && self.alpn.len() <= ALPN_NAME_BYTES_MAX;
        let is_plain = !self.alpn.contains([',', '\\']);
        (is_one && is_plain && !self.ech).then_some(&*self.alpn)
    }
}

/// Longest name of a protocol (RFC 7301 section 3.1).
const ALPN_NAME_BYTES_MAX: usize = 255;

/// Limits of a head, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Everything up to the end of the ClientHello, record headers included.
    pub hello_bytes_max: usize,
    /// Everything up to the end of the empty line, leading empty lines included.
    pub request_head_bytes_max: usize,
}

/// Walks the bytes of one connection's head. Keeps positions only, never bytes, so that a head
/// that arrives byte by byte costs no more than one that arrives whole.
#[derive(Debug, Clone)]
pub struct Sniffer {
    limit: u32,
    walk: Walk,
}

#[derive(Debug, Clone)]
enum Walk {
    Tls(tls::Walk),
    Http(http::Walk),
    /// Nothing is looked for.
    Tcp,
}

/// There is one for every connection whose head is awaited.
const _: () = assert!(size_of::<Sniffer>() <= 48);

impl Sniffer {
    /// A limit of 4 GiB or more counts as 4 GiB.
    pub fn new(protocol: Protocol, limits: HeadLimits) -> Sniffer {
        let (limit, walk) = match protocol {
            Protocol::Tls => (limits.hello_bytes_max, Walk::Tls(tls::Walk::default())),
            Protocol::Http => (
                limits.request_head_bytes_max,
                Walk::Http(http::Walk::default()),
            ),
            Protocol::Tcp => (0, Walk::Tcp),
        };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Sniffer { limit, walk }
    }

    /// `received` is everything received since the connection was accepted: what the last call got,
    /// and more behind it. The answer depends on the bytes alone, not on how they were cut into
    /// calls, and stays the same once it is not [`Sniff::More`]. That is never the answer when as
    /// many bytes as the limit allows were received.
    pub fn advance(&mut self, received: &[u8]) -> Sniff {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let within = &received[..received.len().min(limit)];
        let (step, oversize) = match &mut self.walk {
            Walk::Tls(walk) => (walk.advance(within, self.limit), Refusal::HelloTooLarge),
            Walk::Http(walk) => (walk.advance(within), Refusal::RequestHeadTooLarge),
            Walk::Tcp => return Sniff::Found(Head::default()),
        };
        match step {
            Ok(Some(head)) => Sniff::Found(head),
            Ok(None) if received.len() < limit => Sniff::More,
            Ok(None) => Sniff::Refused(oversize),
            Err(refusal) => Sniff::Refused(refusal),
        }
    }
}

/// What one step of a walk comes to; `None` is "valid so far".
type Step = Result<Option<Head>, Refusal>;

/// Fuzz entry for hellos; see [`check_splits`].
#[doc(hidden)]
pub fn fuzz_tls(data: &[u8]) {
    check_splits(Protocol::Tls, data);
}

/// Fuzz entry for request heads; see [`check_splits`].
#[doc(hidden)]
pub fn fuzz_http(data: &[u8]) {
    check_splits(Protocol::Http, data);
}

/// Asserts that the verdict does not depend on how the bytes were cut, that it stays, and that
/// the limit holds; for the limits in use, a small one, and one that these bytes just reach.
fn check_splits(protocol: Protocol, data: &[u8]) {
    if protocol == Protocol::Tls {
        // Whatever it finds there, it does not panic.
        let _ = ja4(data);
    }
    for limit in [65_536, 64, data.len()] {
        let limits = HeadLimits {
            hello_bytes_max: limit,
            request_head_bytes_max: limit,
        };
        let whole = Sniffer::new(protocol, limits).advance(data);
        assert!(
            whole != Sniff::More || data.len() < limit,
            "more is asked for at the limit"
        );
        // Strides that are cut off from any record or line, byte by byte among them.
        for stride in [1, 7, 1 + data.len() / 3] {
            let mut sniffer = Sniffer::new(protocol, limits);
            let mut verdict = sniffer.advance(&[]);
            for end in (0..data.len()).step_by(stride).chain([data.len()]) {
                let next = sniffer.advance(&data[..end]);
                assert!(
                    verdict == Sniff::More || verdict == next,
                    "the verdict changed from {verdict:?} to {next:?} at {end} bytes"
                );
                verdict = next;
            }
            assert_eq!(verdict, whole, "cut into pieces of {stride} bytes");
        }
    }
}
