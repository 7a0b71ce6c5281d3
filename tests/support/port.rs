//! Addresses on loopback: one for a server to listen on, one that refuses every connect, and one that
//! answers none.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Below the ports that the kernel chooses by default (net.ipv4.ip_local_port_range), so that no other
/// socket gets one of them before its server does. A server with SO_REUSEPORT, such as HAProxy, would then
/// share the port without an error.
const PORTS: Range<u16> = 16_000..32_000;

/// A port that nobody listens on, on any address. A process gives out each port once.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        let nth = std::process::id().wrapping_mul(64) + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (nth % u32::from(PORTS.end - PORTS.start)) as u16;
        // Bound, but without listen: a child that another thread forks now has a copy of the socket until
        // it executes its program, and a copy of a listener would accept connections.
        let socket = tcp_socket();
        // As servers set it, so that connections in TIME_WAIT do not count.
        socket.set_reuse_address(true).expect("a socket option");
        if socket.bind(&at(Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("all of the ports {PORTS:?} are taken");
}

/// As [`free_port`], with the loopback address.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// An address that refuses every connect, as long as the socket lives.
pub fn refusing() -> (Socket, SocketAddr) {
    let socket = tcp_socket();
    socket
        .bind(&at(Ipv4Addr::LOCALHOST, 0))
        .expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address.as_socket().expect("an IP address"))
}

/// An address that answers no connect, as long as the returned socket and streams live: the backlog is full
/// and nobody accepts.
pub fn silent() -> ((Socket, Vec<TcpStream>), SocketAddr) {
    let (socket, address) = refusing();
    socket.listen(0).expect("it is bound");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    ((socket, waiting), address)
}

fn tcp_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

fn at(address: Ipv4Addr, port: u16) -> SockAddr {
    SocketAddr::from((address, port)).into()
}
