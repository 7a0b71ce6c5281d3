//! System calls, each wrapped once: non-blocking sockets, listeners, pipes and splice, the eventfd that
//! wakes a worker, resource limits, the addresses of the machine. Nothing here waits; `ring` does. Only
//! `ring` and this module have unsafe code.

mod address;
mod congestion;
mod epoll;
mod errno;
mod interfaces;
#[cfg(test)]
mod kernel_tests;
mod limits;
mod listener;
mod pipe;
mod port_owner;
mod socket;
mod source;
mod wake;

pub(crate) use address::SocketAddress;
pub(crate) use congestion::Congestion;
pub(crate) use epoll::Epoll;
pub(crate) use errno::is_transient;
pub(crate) use interfaces::interface_addresses;
pub(crate) use limits::{Resource, raise_limit};
pub(crate) use listener::{BindError, Listener};
pub(crate) use pipe::Pipe;
pub(crate) use port_owner::PortOwner;
pub use socket::Socket;
pub(crate) use source::ForeignSource;
pub(crate) use wake::{WakeReader, Waker, wake_pair};
