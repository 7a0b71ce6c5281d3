//! The protocol that a listener expects of its clients. Everything that differs between the TLS port, the
//! HTTP port and the port of `pointsman unwrap` depends on this one value.

/// What a listener expects in the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TLS: the name is the SNI of the ClientHello (RFC 6066 section 3).
    Tls,
    /// Plain HTTP/1: the name is the request's authority (RFC 9112 section 3.2).
    Http,
    /// Anything: no name is looked for, and every connection takes the one default route.
    Tcp,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Tls, Protocol::Http, Protocol::Tcp];

    /// Position in [`Protocol::ALL`], for arrays kept per protocol.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs, metrics and file names.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tls => "tls",
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
        }
    }

    /// The port a backend without one is reached at; 0 where every backend has to name one.
    pub fn default_port(self) -> u16 {
        match self {
            Protocol::Tls => 443,
            Protocol::Http => 80,
            Protocol::Tcp => 0,
        }
    }
}
