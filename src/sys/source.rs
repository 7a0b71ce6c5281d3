//! Connecting from an address that is not this machine's own. The port is left to connect(2), which
//! finds one that is free towards that peer.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;

use super::socket::Socket;

/// A foreign address to connect from. What the peer sends back must be routed to this machine and
/// be taken for its own; that is the operator's to arrange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSource {
    /// Any address (IP_TRANSPARENT, ip(7), since 2.6.24; IPV6_TRANSPARENT, since 2.6.37). Needs
    /// CAP_NET_ADMIN or CAP_NET_RAW, and marks the socket as transparent for packet filters.
    Transparent(IpAddr),
    /// An address that routes lead to this machine but no interface has (IP_FREEBIND, ip(7);
    /// IPV6_FREEBIND, since 4.15). Needs no privilege.
    Free(IpAddr),
}

impl Socket {
    /// Makes the connect to come go out from `source`. The family must be the socket's.
    ///
    /// IP_BIND_ADDRESS_NO_PORT (ip(7), since 4.2) keeps bind from choosing a port: it would have
    /// to be unused towards every peer, and 28,000 connections to all backends together would be
    /// the end.
    ///
    /// # Errors
    /// EPERM without the privilege; EADDRNOTAVAIL or EINVAL for an address that no connection may
    /// come from.
    pub fn connect_from(&self, source: ForeignSource) -> io::Result<()> {
        let (address, level, option) = match source {
            ForeignSource::Transparent(ip) if ip.is_ipv4() => {
                (ip, libc::IPPROTO_IP, libc::IP_TRANSPARENT)
            }
            ForeignSource::Transparent(ip) => (ip, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
            ForeignSource::Free(ip) if ip.is_ipv4() => (ip, libc::IPPROTO_IP, libc::IP_FREEBIND),
            ForeignSource::Free(ip) => (ip, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
        };
        self.set_option(level, option, &1i32)?;
        self.set_option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32)?;
        SockRef::from(self).bind(&SocketAddr::new(address, 0).into())
    }
}
