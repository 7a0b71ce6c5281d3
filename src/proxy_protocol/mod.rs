//! The PROXY protocol, in and out: what a proxy says in front of a client's bytes about where the
//! client is (HAProxy's doc/proxy-protocol.txt, revision 2020/03/05 and later). Pure: bytes come
//! in, one of four answers goes out; and addresses come in, bytes go out.
//!
//! Whether a sender may speak for clients is none of this module's business; the caller asks that
//! before it believes a word.

mod read;
mod tlv;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

pub(crate) use read::begins_with_signature;
#[doc(hidden)]
pub use read::fuzz_header;
pub use read::{Reading, read};
pub use tlv::TlvKind;
pub(crate) use tlv::Tlvs;

use crate::route::ProxyVersion;

/// The longest header of version 1 in bytes, line end included (section 2.1).
pub(crate) const V1_BYTES_MAX: usize = 107;

/// What a header of version 2 may have at most behind its first 16 bytes. The protocol's own
/// bound is 65,535; HAProxy, AWS and Envoy send a few hundred, nginx takes 4,096.
pub(crate) const V2_CONTENT_BYTES_MAX: usize = 4096;

/// The longest header that is read, in bytes.
pub(crate) const HEADER_BYTES_MAX: usize = v2::FIXED_BYTES + V2_CONTENT_BYTES_MAX;

/// The longest header that is written, in bytes: as much as current nginx takes.
pub(crate) const WRITTEN_BYTES_MAX: usize = 4096;

/// The two ends of a client's connection, both IPv4 or both IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Addresses {
    /// IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) count as IPv4; where only one end is
    /// IPv4, that end becomes mapped.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Addresses {
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let (from, to) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V6(_)) => (from.to_ipv6_mapped().into(), to),
            (IpAddr::V6(_), IpAddr::V4(to)) => (from, to.to_ipv6_mapped().into()),
            same => same,
        };
        // Made anew, without scope and flow label, which a header has no room for.
        Addresses {
            source: SocketAddr::new(from, source.port()),
            destination: SocketAddr::new(to, destination.port()),
        }
    }

    /// The client.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// What the client connected to.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
}

/// Whose connection it is, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A client's over TCP.
    Inet(Addresses),
    /// A client's over a unix socket, which has no address that another machine could name.
    Unix,
    /// The sender's own, such as a health check (LOCAL), or one of which the sender knows
    /// nothing (UNKNOWN, UNSPEC): the addresses of the connection count.
    Sender,
}

/// A header that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub version: ProxyVersion,
    pub subject: Subject,
    /// What else version 2 said; checked, empty for version 1.
    pub tlvs: Tlvs,
}

/// What version 2 says of a connection beside its addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes<'a> {
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    /// The application protocol, where it is known.
    pub alpn: Option<&'a [u8]>,
    /// At most [`tlv::UNIQUE_ID_BYTES_MAX`] bytes; unused when the header before has one.
    pub unique_id: &'a [u8],
    /// The fingerprint of the client's hello.
    pub ja4: Option<&'a [u8]>,
    /// What the header before said; passed on where nothing above says it anew and as far as
    /// there is room.
    pub received: Option<&'a Tlvs>,
}

/// Appends the header to `out`. Without `addresses` it says that nothing is known of the client.
pub fn write(
    out: &mut Vec<u8>,
    version: ProxyVersion,
    addresses: Option<&Addresses>,
    notes: &Notes<'_>,
) {
    match version {
        ProxyVersion::V1 => v1::write(out, addresses),
        ProxyVersion::V2 => v2::write(out, addresses, notes),
    }
}
