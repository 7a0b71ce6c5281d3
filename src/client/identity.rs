//! Who the client is: its socket, its address, and what a PROXY header said of it. All code that shows,
//! logs or passes on the client's address asks here, so that it is the same everywhere.

use std::cell::{Cell, OnceCell};
use std::net::{SocketAddr, SocketAddrV4};

use crate::protect::Permit;
use crate::proxy_protocol::{Addresses, Endpoints, Header};
use crate::sys::Socket;

/// One client.
pub(crate) struct Client {
    socket: Socket,
    /// The peer's address, once it was asked for. It is kept, because the kernel forgets it with the end
    /// of the connection; boxed, because most connections never need it.
    peer: OnceCell<Box<SocketAddr>>,
    /// The PROXY header of a trusted sender.
    proxy_header: OnceCell<Box<Header>>,
    /// The limits that count this client as long as it lives; none without limits.
    permits: Cell<Option<Box<PermitList>>>,
}

/// A permit and the next one. A list and not a vector: a client without limits has one empty pointer.
struct PermitList {
    _permit: Permit,
    _next: Option<Box<PermitList>>,
}

impl Client {
    pub(crate) fn new(socket: Socket) -> Client {
        Client {
            socket,
            peer: OnceCell::new(),
            proxy_header: OnceCell::new(),
            permits: Cell::new(None),
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Keeps the permit until the client's connection ends.
    pub(crate) fn hold(&self, permit: Permit) {
        let next = self.permits.take();
        self.permits.set(Some(Box::new(PermitList {
            _permit: permit,
            _next: next,
        })));
    }

    /// Takes the PROXY header of a sender that the caller has found to be trusted.
    pub(crate) fn set_proxy_header(&self, header: Header) {
        let twice = self.proxy_header.set(Box::new(header)).is_err();
        assert!(!twice, "a connection has one PROXY header");
    }

    /// What a trusted sender in front said of the client.
    pub(crate) fn proxy_header(&self) -> Option<&Header> {
        self.proxy_header.get().map(Box::as_ref)
    }

    /// Where the client is, an IPv4-mapped address as IPv4 (RFC 4291 section 2.5.5.2). What a
    /// PROXY header said, otherwise one getpeername(2), so only for those that need it. `None` for
    /// a client that has reset the connection.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.proxy_header().map(|header| header.endpoints) {
            Some(Endpoints::Tcp(addresses)) => Some(addresses.source()),
            Some(Endpoints::Unix | Endpoints::Local) | None => self.peer(),
        }
    }

    /// The sender that speaks for the client; `None` where the peer itself is the client.
    pub(crate) fn via(&self) -> Option<SocketAddr> {
        match self.proxy_header()?.endpoints {
            Endpoints::Tcp(_) | Endpoints::Unix => self.peer(),
            Endpoints::Local => None,
        }
    }

    /// Whose connection a backend is told that it is, never [`Endpoints::Local`]: a sender that
    /// speaks for itself is the client. Two system calls unless a header said it; `None` as for
    /// [`Client::address`].
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        match self.proxy_header().map(|header| header.endpoints) {
            Some(known @ (Endpoints::Tcp(_) | Endpoints::Unix)) => Some(known),
            Some(Endpoints::Local) | None => {
                let (peer, own) = (self.peer()?, self.socket.local_addr()?);
                Some(Endpoints::Tcp(Addresses::new(peer, own)))
            }
        }
    }

    /// The other end of the connection, which is the client or a sender that speaks for it. One
    /// getpeername(2) when it is first asked for.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        if self.peer.get().is_none()
            && let Some(peer) = self.socket.peer_addr().map(unmapped)
        {
            let _ = self.peer.set(Box::new(peer));
        }
        self.peer.get().map(|peer| **peer)
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
