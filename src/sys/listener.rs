//! Listening sockets: one per core and address, all of one SO_REUSEPORT group, so that the
//! kernel spreads connections and no core waits for another.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{set_defer_accept, set_least_ttl};

/// How long the kernel keeps a silent connection to itself before it is accepted all the same
/// (tcp(7), TCP_DEFER_ACCEPT; seconds, rounded by the kernel to SYN-ACK retransmissions). The
/// shortest there is: a client that speaks at once saves the core one wake-up, one that stays
/// silent meets the head deadline a second late.
const DEFER_ACCEPT_S: i32 = 1;

/// Systems send with 64, 128 or 255, and each router takes one away.
const HIGHEST_TTL: i32 = 255;

/// One bound socket, not yet listening, so that all can be bound before the first client is taken.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: SocketAddr,
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub(crate) struct BindError {
    pub address: SocketAddr,
    pub cause: io::Error,
}

impl BindError {
    /// Whether somebody else has the address.
    pub(crate) fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether the machine does not have the address family at all.
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
                "another process, perhaps a second pointsman, listens there: stop it or choose another address"
            }
            Some(libc::EACCES) => {
                "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: grant it or choose a higher port"
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
    /// Binds `count` sockets to one address. An address that any other process holds is refused:
    /// with SO_REUSEPORT alone a second instance would silently share the port. Port 0 is
    /// replaced by one free port for the whole group.
    pub(crate) fn bind_group(
        address: SocketAddr,
        count: usize,
    ) -> Result<Vec<Listener>, BindError> {
        let failed = |cause| BindError { address, cause };
        // A bind without SO_REUSEPORT succeeds only while nobody listens there. The socket is
        // kept until the group stands, so that a port 0 once chosen stays ours.
        let sole = new_socket(address).map_err(failed)?;
        sole.bind(&address.into()).map_err(failed)?;
        let address = sole
            .local_addr()
            .ok()
            .and_then(|bound| bound.as_socket())
            .unwrap_or(address);
        sole.set_reuse_port(true).map_err(failed)?;
        let mut group = vec![Listener {
            socket: sole,
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

    /// Whether a socket can be bound to the address, with any port: whether this machine has it.
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

    /// Makes it take no more connections and leave its group, whoever else has the file. What is in its
    /// queue is reset.
    pub(crate) fn shut(listener: &OwnedFd) {
        // One that does not listen any more is shut.
        let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both);
    }

    /// Starts to take connections. What accepted sockets inherit is set here once instead of per
    /// connection: TCP_NODELAY, and keep-alive probes after `keep_alive` of silence; zero: none.
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

    /// Makes a listening socket at `address` deaf to new connections while those already in the
    /// handshake or in the queue can still be accepted, without any privilege: a SYN meets the least
    /// TTL of the listener, what completes a handshake does not. A client's SYN is retransmitted a
    /// second later, by when the group is closed. One that sends with the highest TTL of all from the
    /// same network is still heard.
    pub(crate) fn stop_taking(listener: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        set_least_ttl(listener, address.is_ipv6(), HIGHEST_TTL)
    }

    /// Takes back what a connection inherited from a listener that has stopped taking. What came
    /// before and was dropped is retransmitted.
    pub(crate) fn take_from_deaf(accepted: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        set_least_ttl(accepted, address.is_ipv6(), 0)
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Left blocking, though nothing blocks on it: on a non-blocking listener the io_uring of 5.10.46
    // does not wait, and each accept ends at once with EAGAIN.
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
            // One has spoken and waits to be accepted, one is kept back by TCP_DEFER_ACCEPT.
            let mut spoken = TcpStream::connect(address).unwrap();
            spoken.write_all(b"early").unwrap();
            let mut silent = TcpStream::connect(address).unwrap();
            Listener::stop_taking(&listening, address).unwrap();
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(200));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
            silent.write_all(b"early").unwrap();
            let listening = TcpListener::from(Rc::into_inner(listening).unwrap());
            for client in [&mut spoken, &mut silent] {
                let (accepted, _) = listening.accept().unwrap();
                let accepted = OwnedFd::from(accepted);
                Listener::take_from_deaf(&accepted, address).unwrap();
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
