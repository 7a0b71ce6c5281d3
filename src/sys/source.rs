//! Connecting from an address that no interface of this machine has.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;

use super::socket::Socket;

/// A foreign address to connect from. The operator sees to it that packets to this address are routed to
/// this machine and accepted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSource {
    /// Any address (IP_TRANSPARENT, ip(7), since 2.6.24; IPV6_TRANSPARENT, since 2.6.37). Needs
    /// CAP_NET_ADMIN or CAP_NET_RAW. Packet filters can match the socket as transparent.
    Transparent(IpAddr),
    /// An address that is routed to this machine as its own (IP_FREEBIND, ip(7); IPV6_FREEBIND, since
    /// 4.15). Needs no privilege.
    Freebind(IpAddr),
}

impl Socket {
    /// Makes a later connect go out from `source`, whose family must be the socket's.
    ///
    /// IP_BIND_ADDRESS_NO_PORT (ip(7), since 4.2) leaves the port to connect(2), which needs one that is
    /// free towards that one peer. bind(2) would take one that is free towards every peer, and an address
    /// could have no more than 28,000 connections to all backends together.
    ///
    /// # Errors
    /// EPERM without the privilege; EADDRNOTAVAIL or EINVAL for an address that is not allowed as a
    /// source.
    pub fn connect_from(&self, source: ForeignSource) -> io::Result<()> {
        let (address, level, option) = match source {
            ForeignSource::Transparent(ip) if ip.is_ipv4() => {
                (ip, libc::IPPROTO_IP, libc::IP_TRANSPARENT)
            }
            ForeignSource::Transparent(ip) => (ip, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
            ForeignSource::Freebind(ip) if ip.is_ipv4() => {
                (ip, libc::IPPROTO_IP, libc::IP_FREEBIND)
            }
            ForeignSource::Freebind(ip) => (ip, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
        };
        self.set_option(level, option, &1i32)?;
        self.set_option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32)?;
        SockRef::from(self).bind(&SocketAddr::new(address, 0).into())
    }
}
