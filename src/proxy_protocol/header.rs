//! What a header says.

use std::net::{IpAddr, SocketAddr};

use super::tlv::Tlvs;
use crate::route::ProxyVersion;

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
        // New ones, without scope and flow label, for which a header has no room.
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

/// Where the client's connection runs between, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    Tcp(Addresses),
    /// The client came over a unix socket, which has no address that another machine could name.
    Unix,
    /// The header names none: the endpoints of the connection itself count. The sender speaks for
    /// itself, as in a health check (LOCAL), or does not know the client (UNKNOWN, UNSPEC).
    Local,
}

/// A header that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub version: ProxyVersion,
    pub endpoints: Endpoints,
    /// The TLVs of version 2, checked; empty for version 1.
    pub tlvs: Tlvs,
}

/// A header and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub header: Header,
    pub bytes: usize,
}
