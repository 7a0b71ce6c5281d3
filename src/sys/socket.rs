//! A connected, non-blocking stream socket. Every call returns at once; `WouldBlock` means: wait
//! for readiness on the ring. A clone is the same descriptor; it is closed with the last clone,
//! so an operation in the ring keeps the descriptor from being reused under it.

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
/// From 1 to 65535, of which the kernel takes what net.ipv4.ip_local_port_range has too. That a range
/// was asked for makes connect(2) look at each port for a free one (Linux 6.8), in place of every
/// second first and the others only then: with half of them in use each look would be at thousands.
const EVERY_PORT: u32 = 0xffff_0001;
const EVERY_PORT_SINCE: KernelVersion = KernelVersion::new(6, 8);

/// One stream socket, owned by this core.
#[derive(Debug, Clone)]
pub struct Socket(Rc<OwnedFd>);

impl Socket {
    /// Takes over an accepted descriptor, which is already non-blocking.
    pub fn from_accepted(descriptor: OwnedFd) -> Socket {
        Socket(Rc::new(descriptor))
    }

    /// An unconnected non-blocking socket fit for `address`. Before anything is sent behind its first
    /// bytes it needs [`Socket::set_nodelay`], which many connections never come to.
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
            // The head is sent as soon as the handshake is done, and carries its last ACK.
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

    /// Whether [`Socket::to_connect`] can be told to look at every local port: tried, unless `mask`
    /// hides it.
    pub fn can_look_at_every_port(mask: Option<KernelVersion>) -> bool {
        let any = SocketAddress::from(SocketAddr::from(([0; 4], 0)));
        mask.is_none_or(|mask| EVERY_PORT_SINCE <= mask)
            && Socket::to_connect(&any, None, true).is_ok()
    }

    /// Reads what is there, up to `buffer`; 0 is the peer's end of stream.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (received, _) = rustix::net::recv(&*self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(received)
    }

    /// Looks at what is there, up to `buffer`, and leaves it there; 0 is the peer's end of stream.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let (seen, _) = rustix::net::recv(&*self.0, buffer, flags)?;
        Ok(seen)
    }

    /// Whether the peer has neither sent anything that was not read nor finished nor failed.
    pub fn is_quiet(&self) -> bool {
        let seen = self.peek(&mut [0]);
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes what fits; the peer having gone is an error, never a signal.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(&*self.0, bytes, flags)?)
    }

    /// Small pieces no longer wait until what was sent before them is acknowledged (tcp(7),
    /// TCP_NODELAY; RFC 896): the proxy forwards what it has. Accepted sockets have inherited it.
    pub fn set_nodelay(&self) {
        // Fails on a unix socket, which needs it not, and on one that has failed.
        let _ = self.set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
    }

    /// See [`set_keep_alive`]. A unix socket needs none, and one that has failed says so elsewhere.
    pub fn enable_keep_alive(&self, silence: Duration) {
        if !silence.is_zero() {
            let _ = set_keep_alive(self, silence);
        }
    }

    /// Sends the end of stream behind everything sent so far. A peer that is gone already is no
    /// error: the other direction reports it.
    pub fn shutdown_write(&self) {
        // SAFETY: shutdown(2) takes no pointers.
        let _ = unsafe { libc::shutdown(self.raw(), libc::SHUT_WR) };
    }

    /// Makes the close to come an abort: the peer gets RST and unsent bytes are dropped (socket(7), SO_LINGER 0).
    pub fn abort_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }

    /// Bytes sent but not yet acknowledged by the peer (tcp(7), SIOCOUTQ); 0 when it cannot be told.
    pub fn unacknowledged(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int to a live local.
        let returned = unsafe { libc::ioctl(self.raw(), libc::TIOCOUTQ, &mut bytes) };
        if returned < 0 {
            0
        } else {
            bytes.max(0) as usize
        }
    }

    /// The peer's address; `None` for a unix peer or one that has gone.
    pub fn peer(&self) -> Option<SocketAddr> {
        socket2::SockRef::from(&*self.0)
            .peer_addr()
            .ok()?
            .as_socket()
    }

    /// Its own address, which for an accepted socket is what the client connected to; `None` as for
    /// [`Socket::peer`].
    pub fn local(&self) -> Option<SocketAddr> {
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

    /// The shared descriptor, for the ring to hold while an operation is under way.
    pub(crate) fn descriptor(&self) -> &Rc<OwnedFd> {
        &self.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the kernel probe a peer after so much silence, and thrice more, each a quarter of it apart (tcp(7),
/// SO_KEEPALIVE). The kernel counts in seconds. Four system calls.
pub(super) fn set_keep_alive(socket: &impl AsFd, silence: Duration) -> io::Result<()> {
    let second = Duration::from_secs(1);
    socket2::SockRef::from(socket).set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(silence.max(second))
            .with_interval((silence / 4).max(second))
            .with_retries(4),
    )
}

/// Lets the kernel keep a connection to itself until its first bytes are there (TCP_DEFER_ACCEPT).
pub(super) fn set_defer_accept(socket: &impl AsFd, seconds: i32) -> io::Result<()> {
    set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Makes a socket drop what arrives with a TTL or hop limit below `least` (IP_MINTTL, Linux 2.6.34;
/// IPV6_MINHOPCOUNT, 2.6.35; RFC 5082); 0 takes everything. Needs no privilege.
pub(super) fn set_least_ttl(socket: &impl AsFd, is_ipv6: bool, least: i32) -> io::Result<()> {
    let (level, name) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    };
    set_option(socket, level, name, least)
}

fn set_tcp_option(socket: &impl AsFd, name: i32, value: i32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, name, value)
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
