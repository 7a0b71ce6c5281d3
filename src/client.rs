//! Who the client is. Whoever shows, logs or borrows the client's address asks here, so that a
//! connection has one answer to it.

use crate::sys::Socket;
use std::net::{SocketAddr, SocketAddrV4};

/// One client: its socket, and where it is.
pub struct Client {
    socket: Socket,
}

impl Client {
    pub fn new(socket: Socket) -> Client {
        Client { socket }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Where the client is, an IPv4-mapped address as IPv4 (RFC 4291 section 2.5.5.2). One
    /// getpeername(2), so only for those that need it. `None` for a client that has reset the
    /// connection.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.peer().map(unmapped)
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        for (is, becomes) in [
            ("[::ffff:192.0.2.7]:5", "192.0.2.7:5"),
            ("192.0.2.7:5", "192.0.2.7:5"),
            ("[2001:db8::7]:5", "[2001:db8::7]:5"),
        ] {
            let is: SocketAddr = is.parse().unwrap();
            assert_eq!(unmapped(is).to_string(), becomes);
        }
    }
}
