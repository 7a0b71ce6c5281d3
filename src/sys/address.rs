//! A socket address in the form that the kernel reads. It owns its bytes, so that a connect that waits in
//! the ring never points into a caller's memory.

use std::io;
use std::net::SocketAddr;

use crate::route::Address;

/// An IPv4 or IPv6 address with its port, or the path of a unix socket.
#[derive(Debug, Clone)]
pub struct SocketAddress(socket2::SockAddr);

impl SocketAddress {
    /// # Errors
    /// When a unix path is longer than `sun_path` holds (107 bytes, unix(7)).
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

    /// Pointer and length for a system call. Valid while `self` lives and is not moved.
    pub fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.0.as_ptr().cast(), self.0.len())
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> SocketAddress {
        SocketAddress(address.into())
    }
}
