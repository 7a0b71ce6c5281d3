//! Congestion control of single sockets (tcp(7), TCP_CONGESTION), where the system's choice suits the
//! long way to clients and not the short one to backends.

use std::os::fd::AsFd;
use std::{fmt, io};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longest name of an algorithm with its NUL, in bytes (TCP_CA_NAME_MAX).
const NAME_BYTES_MAX: usize = 16;
/// Algorithms that send whenever the window allows: the kernel's default, and the one that every
/// process may always use.
const UNPACED: [&str; 2] = ["cubic", "reno"];

/// An algorithm that the kernel has granted this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Congestion {
    name: &'static str,
}

impl Congestion {
    /// The algorithm of this name, tried out on a socket. Leaks the name: made once, at start.
    ///
    /// # Errors
    /// ENOENT when the kernel has no such algorithm, EPERM when it is not among
    /// net.ipv4.tcp_allowed_congestion_control and the process lacks CAP_NET_ADMIN.
    pub fn named(name: &str) -> io::Result<Congestion> {
        if name.len() >= NAME_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        scratch()?.set_tcp_congestion(name.as_bytes())?;
        Ok(Congestion {
            name: String::leak(name.to_owned()),
        })
    }

    /// One that does not pace, if the system's default does: BBR spreads segments by a timer, which
    /// protects buffers on the Internet and costs more than all else where there are none.
    pub fn unpaced_if_system_paces() -> Option<Congestion> {
        let system = scratch().and_then(|socket| socket.tcp_congestion()).ok()?;
        if !system.starts_with(b"bbr") {
            return None;
        }
        UNPACED.iter().find_map(|name| Congestion::named(name).ok())
    }

    /// Makes a TCP socket use it; a listening one, those accepted from it.
    pub fn set_on(self, socket: &impl AsFd) -> io::Result<()> {
        SockRef::from(socket).set_tcp_congestion(self.name.as_bytes())
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

fn scratch() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_is_granted_and_set() {
        // Built into every kernel, allowed to everybody.
        let reno = Congestion::named("reno").unwrap();
        let socket = scratch().unwrap();
        reno.set_on(&socket).unwrap();
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno\0"));
        for missing in ["none-such", "a-name-too-long-for-the-kernel"] {
            let refused = Congestion::named(missing).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOENT), "{missing}");
        }
    }

    #[test]
    fn a_system_that_does_not_pace_is_left_alone() {
        let system = scratch().unwrap().tcp_congestion().unwrap();
        let chosen = Congestion::unpaced_if_system_paces();
        assert_eq!(chosen.is_some(), system.starts_with(b"bbr"));
    }
}
