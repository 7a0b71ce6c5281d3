//! The system calls that move bytes, each wrapped once: non-blocking sockets, pipes and splice,
//! the eventfd that wakes a core, and the machine's limits. Nothing here waits; waiting is the
//! ring's. Beside `ring` this is the only place with unsafe code.

mod address;
mod congestion;
mod epoll;
#[cfg(test)]
mod facts;
mod holder;
mod limits;
mod listener;
mod own;
mod pipe;
mod socket;
mod source;
mod wake;

use std::io;

pub(crate) use address::SocketAddress;
pub(crate) use congestion::Congestion;
pub(crate) use epoll::EdgePoll;
pub(crate) use holder::Holder;
pub(crate) use limits::{Limited, raise_limit};
pub(crate) use listener::{BindError, Listener};
pub(crate) use own::own_addresses;
pub(crate) use pipe::Pipe;
pub use socket::Socket;
pub(crate) use source::ForeignSource;
pub(crate) use wake::{WakeReader, Waker, wake_pair};

/// Whether reading or writing is to be tried again when the socket is ready again. ENOBUFS and ENOMEM
/// pass by themselves; readiness is reported again when they have.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// The return value of a system call as a result: a negative value is the errno.
fn check(returned: libc::ssize_t) -> io::Result<usize> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned as usize)
    }
}
