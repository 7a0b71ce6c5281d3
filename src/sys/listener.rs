//! Listening sockets. Each worker has one for every address, and those of an address form a SO_REUSEPORT
//! group: the kernel spreads new connections over them, and no worker waits for another.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{set_defer_accept, set_min_ttl};

/// How long the kernel waits for the first bytes of a connection before it has it accepted without any
/// (tcp(7), TCP_DEFER_ACCEPT; seconds, which the kernel rounds to retransmissions of the SYN-ACK). One is
/// the least. It saves a wake-up for each client that sends at once; for a client that stays silent, the
/// head deadline begins a second late.
const DEFER_ACCEPT_S: i32 = 1;

/// Systems send with a TTL of 64, 128 or 255, and each router subtracts one.
const TTL_MAX: i32 = 255;

/// One bound socket that does not listen yet: all addresses are bound before the first client is accepted.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: SocketAddr,
}

/// An address that cannot be listened on, and why.
#[derive(Debug)]
pub(crate) struct BindError {
    pub address: SocketAddr,
    pub cause: io::Error,
}

impl BindError {
    /// Whether another socket has the address.
    pub(crate) fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether the machine lacks the address family, as where IPv6 is switched off.
    pub(crate) fn lacks_family(&self) -> bool {
        matches!(
            self.cause.raw_os_error(),
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
        )
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.cause.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                "another process, perhaps a second pointsman, listens there: stop it or choose \
                 another address"
            }
            Some(libc::EACCES) => {
                "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: grant \
                 it or choose a higher port"
            }
            Some(libc::EADDRNOTAVAIL) => {
                "no interface of this machine has that address: check it, or listen on 0.0.0.0 or [::]"
            }
            Some(libc::EAFNOSUPPORT) => "this kernel has no IPv6: listen on an IPv4 address",
            _ => "check the address",
        };
        write!(
            f,
            "cannot listen on {}: {}; {remedy}",
            self.address, self.cause
        )
    }
}

impl std::error::Error for BindError {}

impl Listener {
    /// Binds `count` sockets to one address. It fails if another process listens there; with
    /// SO_REUSEPORT alone, a second instance would silently share the port. For port 0 the kernel chooses
    /// one free port for the whole group.
    pub(crate) fn bind_group(
        address: SocketAddr,
        count: usize,
    ) -> Result<Vec<Listener>, BindError> {
        let failed = |cause| BindError { address, cause };
        // A bind without SO_REUSEPORT succeeds only while nobody listens there. The option is set
        // afterwards, and then the others of the group can be bound.
        let first = new_socket(address).map_err(failed)?;
        first.bind(&address.into()).map_err(failed)?;
        let address = first
            .local_addr()
            .ok()
            .and_then(|bound| bound.as_socket())
            .unwrap_or(address);
        first.set_reuse_port(true).map_err(failed)?;
        let mut group = vec![Listener {
            socket: first,
            address,
        }];
        while group.len() < count {
            let socket = new_socket(address).map_err(failed)?;
            socket.set_reuse_port(true).map_err(failed)?;
            socket.bind(&address.into()).map_err(failed)?;
            group.push(Listener { socket, address });
        }
        Ok(group)
    }

    /// Binds a socket to the address with any port, and closes it: shows whether this machine has the
    /// address.
    pub(crate) fn try_address(address: SocketAddr) -> Result<(), BindError> {
        let failed = |cause| BindError { address, cause };
        let any_port = SocketAddr::new(address.ip(), 0);
        let socket = new_socket(address).map_err(failed)?;
        socket.bind(&any_port.into()).map_err(failed)
    }

    /// The bound address, with its real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends listening, although others may hold the descriptor open: the socket leaves its group, and the
    /// connections in its queue are reset.
    pub(crate) fn shut_down(listener: &OwnedFd) {
        // Fails only on a socket that does not listen.
        let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both);
    }

    /// Starts to listen. Accepted sockets inherit TCP_NODELAY, and keep-alive probes after `keep_alive` of
    /// silence (zero: none), so that no connection needs a system call for them.
    pub(crate) fn listen(self, backlog: u32, keep_alive: Duration) -> io::Result<Rc<OwnedFd>> {
        let socket = self.socket;
        socket.set_tcp_nodelay(true)?;
        if !keep_alive.is_zero() {
            super::socket::set_keep_alive(&socket, keep_alive)?;
        }
        set_defer_accept(&socket, DEFER_ACCEPT_S)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Rc::new(socket.into()))
    }

    /// Makes a listening socket drop new SYN segments; connections in the handshake or in the queue can
    /// still be accepted. Needs no privilege: a SYN has to have the minimum TTL of the listener, a segment
    /// that completes a handshake has not. A client sends its SYN again after a second, and by then the
    /// group is closed. Clients on the same network that send with a TTL of 255 are not stopped.
    pub(crate) fn drop_new_syns(listener: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        set_min_ttl(listener, address.is_ipv6(), TTL_MAX)
    }

    /// Sets back the minimum TTL that a connection has inherited from a listener that drops new SYNs. What
    /// the client sent before and was dropped, it sends again.
    pub(crate) fn accept_every_ttl(accepted: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        set_min_ttl(accepted, address.is_ipv6(), 0)
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Not O_NONBLOCK: with it, io_uring's accept on Linux 5.10.46 does not wait, but fails with EAGAIN.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_group_shares_one_port_and_a_second_group_is_refused() {
        let group = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = group[0].address();
        assert_ne!(address.port(), 0);
        assert!(group.iter().all(|listener| listener.address() == address));
        let listening: Vec<_> = group
            .into_iter()
            .map(|listener| listener.listen(16, Duration::from_secs(60)).unwrap())
            .collect();
        TcpStream::connect(address).unwrap();
        let refused = Listener::bind_group(address, 1).unwrap_err();
        assert_eq!(refused.cause.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(refused.to_string().contains("second pointsman"));
        drop(listening);
    }

    #[test]
    fn a_deaf_listener_takes_what_is_in_its_queue_and_no_new_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = Listener::bind_group(address.parse().unwrap(), 1).unwrap();
            let listener = listener.into_iter().next().unwrap();
            let address = listener.address();
            let listening = listener.listen(16, Duration::from_secs(60)).unwrap();
            // One has sent bytes and is in the queue; TCP_DEFER_ACCEPT keeps the other in the handshake.
            let mut spoken = TcpStream::connect(address).unwrap();
            spoken.write_all(b"early").unwrap();
            let mut silent = TcpStream::connect(address).unwrap();
            Listener::drop_new_syns(&listening, address).unwrap();
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(200));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
            silent.write_all(b"early").unwrap();
            let listening = TcpListener::from(Rc::into_inner(listening).unwrap());
            for client in [&mut spoken, &mut silent] {
                let (accepted, _) = listening.accept().unwrap();
                let accepted = OwnedFd::from(accepted);
                Listener::accept_every_ttl(&accepted, address).unwrap();
                client.write_all(b" and late").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut heard = String::new();
                TcpStream::from(accepted)
                    .read_to_string(&mut heard)
                    .unwrap();
                assert_eq!(heard, "early and late", "{address}");
            }
        }
    }
}
