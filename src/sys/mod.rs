//! The system calls that move bytes, each wrapped once: non-blocking sockets, pipes and splice,
//! the eventfd that wakes a core, and the machine's limits. Nothing here waits; waiting is the
//! ring's. Beside `ring` this is the only place with unsafe code.

mod address;
mod congestion;
mod epoll;
mod errno;
mod holder;
#[cfg(test)]
mod kernel_tests;
mod limits;
mod listener;
mod own;
mod pipe;
mod socket;
mod source;
mod wake;

pub(crate) use address::SocketAddress;
pub(crate) use congestion::Congestion;
pub(crate) use epoll::EdgePoll;
pub(crate) use errno::is_transient;
pub(crate) use holder::Holder;
pub(crate) use limits::{Limited, raise_limit};
pub(crate) use listener::{BindError, Listener};
pub(crate) use own::own_addresses;
pub(crate) use pipe::Pipe;
pub use socket::Socket;
pub(crate) use source::ForeignSource;
pub(crate) use wake::{WakeReader, Waker, wake_pair};
