//! A socket address in the form the kernel reads, owned, so that a connect under way in the ring
//! never points into a caller's memory.

use std::io;
use std::net::SocketAddr;

use crate::route::Address;

/// A kernel-ready socket address: IPv4, IPv6 or a unix path.
#[derive(Debug, Clone)]
pub struct SocketAddress(socket2::SockAddr);

impl SocketAddress {
    /// Fails when a unix path is longer than `sun_path` holds (107 bytes, unix(7)).
    pub fn new(address: &Address) -> io::Result<SocketAddress> {
        match address {
            Address::Inet(address) => Ok(SocketAddress((*address).into())),
            Address::Unix(path) => socket2::SockAddr::unix(path).map(SocketAddress),
        }
    }

    pub fn domain(&self) -> i32 {
        i32::from(self.0.family())
    }

    pub fn is_inet(&self) -> bool {
        !self.0.is_unix()
    }

    /// Where the kernel reads it, and how many bytes it has. Valid while `self` lives and is not moved.
    pub fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.0.as_ptr().cast(), self.0.len())
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> SocketAddress {
        SocketAddress(address.into())
    }
}
