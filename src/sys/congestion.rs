//! The congestion control algorithm of single sockets (tcp(7), TCP_CONGESTION). The system's default may
//! suit the long way to clients and not the short way to backends.

use std::os::fd::AsFd;
use std::{fmt, io};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longest name of an algorithm with its NUL, in bytes (TCP_CA_NAME_MAX).
const NAME_BYTES_MAX: usize = 16;
/// Algorithms that do not pace, but send whenever the window allows: the kernel's default, and the one
/// that every process may use.
const UNPACED: [&str; 2] = ["cubic", "reno"];

/// An algorithm that the kernel has and this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Congestion {
    name: &'static str,
}

impl Congestion {
    /// The algorithm of this name, tried on a socket. It leaks the name, once in a process: at start.
    ///
    /// # Errors
    /// ENOENT when the kernel has no such algorithm, EPERM when it is not among
    /// net.ipv4.tcp_allowed_congestion_control and the process lacks CAP_NET_ADMIN.
    pub fn named(name: &str) -> io::Result<Congestion> {
        if name.len() >= NAME_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        new_tcp_socket()?.set_tcp_congestion(name.as_bytes())?;
        Ok(Congestion {
            name: String::leak(name.to_owned()),
        })
    }

    /// An algorithm that does not pace, if the system's default is BBR; otherwise `None`. BBR spreads
    /// segments over time with a timer. That protects router buffers on the Internet; on a short way
    /// without any, the timer costs more than all other work.
    pub fn unpaced_if_system_paces() -> Option<Congestion> {
        let system = new_tcp_socket()
            .and_then(|socket| socket.tcp_congestion())
            .ok()?;
        if !system.starts_with(b"bbr") {
            return None;
        }
        UNPACED.iter().find_map(|name| Congestion::named(name).ok())
    }

    /// Makes a TCP socket use the algorithm. Sockets accepted from a listener inherit it.
    pub fn set_on(self, socket: &impl AsFd) -> io::Result<()> {
        SockRef::from(socket).set_tcp_congestion(self.name.as_bytes())
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

fn new_tcp_socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_of_the_kernel_is_found_and_set() {
        // Built into every kernel, allowed to everybody.
        let reno = Congestion::named("reno").unwrap();
        let socket = new_tcp_socket().unwrap();
        reno.set_on(&socket).unwrap();
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno\0"));
        for missing in ["none-such", "a-name-too-long-for-the-kernel"] {
            let refused = Congestion::named(missing).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOENT), "{missing}");
        }
    }

    #[test]
    fn a_system_that_does_not_pace_is_left_alone() {
        let system = new_tcp_socket().unwrap().tcp_congestion().unwrap();
        let chosen = Congestion::unpaced_if_system_paces();
        assert_eq!(chosen.is_some(), system.starts_with(b"bbr"));
    }
}
