//! The two protocols whose first bytes carry a name. Everything that differs between the
//! TLS port and the HTTP port is keyed by this one value.

/// What a listener expects in the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TLS: the name is the SNI of the ClientHello (RFC 6066 section 3).
    Tls,
    /// Plain HTTP/1: the name is the request's authority (RFC 9112 section 3.2).
    Http,
}

impl Protocol {
    pub const ALL: [Protocol; 2] = [Protocol::Tls, Protocol::Http];

    /// Position in [`Protocol::ALL`], for arrays kept per protocol.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs, metrics and file names.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tls => "tls",
            Protocol::Http => "http",
        }
    }

    /// The port a backend without one is reached at.
    pub fn default_port(self) -> u16 {
        match self {
            Protocol::Tls => 443,
            Protocol::Http => 80,
        }
    }
}
