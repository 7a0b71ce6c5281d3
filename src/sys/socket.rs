//! A non-blocking stream socket. Every call returns at once; after `WouldBlock` the caller waits on the
//! ring. Clones share one descriptor, which is closed with the last of them: an operation in the ring has
//! a clone, so that the number of its descriptor cannot be reused meanwhile.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};

use super::address::SocketAddress;
use super::congestion::Congestion;
use super::errno::check;
use crate::config::KernelVersion;

/// ip(7), Linux 6.3; not in libc.
const IP_LOCAL_PORT_RANGE: i32 = 51;
/// Ports 1 to 65535; the kernel chooses among those that are in net.ipv4.ip_local_port_range, too. With
/// any range set, connect(2) looks for a free port one after the other (Linux 6.8). Without, it looks at
/// every second port first, and once those are taken each connect looks at thousands in vain.
const EVERY_PORT: u32 = 0xffff_0001;
const EVERY_PORT_SINCE: KernelVersion = KernelVersion::new(6, 8);

/// A stream socket of this worker.
#[derive(Debug, Clone)]
pub struct Socket(Rc<OwnedFd>);

impl Socket {
    /// Takes over an accepted descriptor, which has to be non-blocking.
    pub fn from_accepted(descriptor: OwnedFd) -> Socket {
        Socket(Rc::new(descriptor))
    }

    /// An unconnected socket of the family of `address`. Nagle's algorithm is on: before a second piece is
    /// sent, the socket needs [`Socket::set_nodelay`]. Connections that send one piece save that call.
    pub fn to_connect(
        address: &SocketAddress,
        congestion: Option<Congestion>,
        looks_at_every_port: bool,
    ) -> io::Result<Socket> {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointers.
        let returned = unsafe { libc::socket(address.domain(), kind, 0) };
        check(returned as libc::ssize_t)?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        let socket = Socket(Rc::new(unsafe { OwnedFd::from_raw_fd(returned) }));
        if address.is_inet() {
            // The last ACK of the handshake then goes with the head, which is sent at once.
            socket.set_option(libc::IPPROTO_TCP, libc::TCP_QUICKACK, &0i32)?;
            if looks_at_every_port {
                socket.set_option(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &EVERY_PORT)?;
            }
            if let Some(congestion) = congestion {
                congestion.set_on(&socket)?;
            }
        }
        Ok(socket)
    }

    /// Whether [`Socket::to_connect`] may be called with `looks_at_every_port`. Tried on a socket, unless
    /// `mask` hides the feature.
    pub fn can_look_at_every_port(mask: Option<KernelVersion>) -> bool {
        let any = SocketAddress::from(SocketAddr::from(([0; 4], 0)));
        mask.is_none_or(|mask| EVERY_PORT_SINCE <= mask)
            && Socket::to_connect(&any, None, true).is_ok()
    }

    /// Reads what has come, as much as `buffer` holds; 0 means the peer's end of stream.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (received, _) = rustix::net::recv(&*self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(received)
    }

    /// As [`Socket::recv`], but the bytes stay in the socket (MSG_PEEK).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let (seen, _) = rustix::net::recv(&*self.0, buffer, flags)?;
        Ok(seen)
    }

    /// Whether there is nothing to read: no bytes, no end of stream and no failure.
    pub fn is_quiet(&self) -> bool {
        let seen = self.peek(&mut [0]);
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends as much as the socket takes. If the peer has gone, that is an error and no SIGPIPE.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(&*self.0, bytes, flags)?)
    }

    /// Switches Nagle's algorithm off (tcp(7), TCP_NODELAY; RFC 896): a small piece no longer waits until
    /// the one before it is acknowledged. Accepted sockets have inherited this from their listener.
    pub fn set_nodelay(&self) {
        // Fails on a unix socket, which does not need it, and on a socket that has failed.
        let _ = self.set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
    }

    /// See [`set_keep_alive`]. Zero leaves it off. Fails on a unix socket, which does not need it, and on a
    /// socket that has failed, which the next read reports.
    pub fn enable_keep_alive(&self, silence: Duration) {
        if !silence.is_zero() {
            let _ = set_keep_alive(self, silence);
        }
    }

    /// Sends the end of stream behind everything that was sent. It fails if the peer has gone, which the
    /// next read reports.
    pub fn shutdown_write(&self) {
        // SAFETY: shutdown(2) takes no pointers.
        let _ = unsafe { libc::shutdown(self.raw(), libc::SHUT_WR) };
    }

    /// Makes the close an abortive one: the peer gets RST, and bytes that it has not acknowledged are
    /// dropped (socket(7), SO_LINGER 0).
    pub fn abort_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }

    /// Bytes that were sent and that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 if that fails.
    pub fn unacknowledged_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int to a live local.
        let returned = unsafe { libc::ioctl(self.raw(), libc::TIOCOUTQ, &mut bytes) };
        if returned < 0 {
            0
        } else {
            bytes.max(0) as usize
        }
    }

    /// The peer's address; `None` on a unix socket and once the connection has ended.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        socket2::SockRef::from(&*self.0)
            .peer_addr()
            .ok()?
            .as_socket()
    }

    /// The socket's own address: of an accepted socket the one that the client connected to; `None` on a
    /// unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        socket2::SockRef::from(&*self.0)
            .local_addr()
            .ok()?
            .as_socket()
    }

    pub(super) fn set_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        // SAFETY: the kernel reads size_of::<T>() bytes of a live value; T is a plain C type here.
        check(unsafe {
            libc::setsockopt(
                self.raw(),
                level,
                name,
                (&raw const *value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        } as libc::ssize_t)
        .map(drop)
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The shared descriptor, of which the ring keeps a clone while an operation is under way.
    pub(crate) fn descriptor(&self) -> &Rc<OwnedFd> {
        &self.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the kernel probe a peer that has been silent for `silence`, and again after each further quarter of
/// it; the connection fails when four probes remain unanswered (tcp(7), SO_KEEPALIVE). The kernel counts
/// in seconds. Four system calls.
pub(super) fn set_keep_alive(socket: &impl AsFd, silence: Duration) -> io::Result<()> {
    let second = Duration::from_secs(1);
    socket2::SockRef::from(socket).set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(silence.max(second))
            .with_interval((silence / 4).max(second))
            .with_retries(4),
    )
}

/// Has connections accepted only when their first bytes have come (tcp(7), TCP_DEFER_ACCEPT).
pub(super) fn set_defer_accept(socket: &impl AsFd, seconds: i32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Makes a socket drop segments with a TTL or hop limit below `min` (IP_MINTTL, Linux 2.6.34;
/// IPV6_MINHOPCOUNT, 2.6.35; RFC 5082); 0 drops none. Needs no privilege.
pub(super) fn set_min_ttl(socket: &impl AsFd, is_ipv6: bool, min: i32) -> io::Result<()> {
    if is_ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, min)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MINTTL, min)
    }
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int from a live local.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    } as libc::ssize_t)
    .map(drop)
}
