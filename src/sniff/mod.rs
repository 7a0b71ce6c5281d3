//! The first bytes of a connection → the name in them. Pure: bytes come in, one of three answers
//! goes out, and every refusal has a name.

mod refusal;

pub use refusal::{Answer, Refusal};

use crate::protocol::Protocol;
use crate::route::Host;

/// The three answers to "which name do these bytes carry?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniff {
    /// The head is complete and valid.
    Found(Head),
    /// Valid so far; ask again with more bytes.
    More,
    /// Never going to be a head that may be routed.
    Refused(Refusal),
}

/// What a complete head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The name, canonical; `None` when the head is valid without one (no SNI; HTTP/1.0 without Host).
    pub name: Option<Host>,
    /// ALPN protocols offered, comma-separated, escaped for the log; empty without the extension.
    pub alpn: Box<str>,
    /// Whether an encrypted_client_hello extension (0xfe0d) is present.
    pub ech: bool,
}

/// Limits of a head, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    pub hello_bytes_max: usize,
    pub request_head_bytes_max: usize,
}

/// Walks the bytes of one connection's head. Keeps positions only, never bytes, so that a head
/// that arrives byte by byte costs no more than one that arrives whole.
#[derive(Debug, Clone)]
pub struct Sniffer {
    protocol: Protocol,
    limits: HeadLimits,
}

impl Sniffer {
    pub fn new(protocol: Protocol, limits: HeadLimits) -> Sniffer {
        Sniffer { protocol, limits }
    }

    /// `received` is everything received since the connection was accepted: what the last call got, and more behind it.
    pub fn advance(&mut self, received: &[u8]) -> Sniff {
        let _ = (self.protocol, self.limits, received);
        Sniff::More
    }
}
