//! What has happened to a socket, in words, so that nobody above reads poll(2) bits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::completed::Completed;

const READ: u32 = libc::POLLIN as u32;
const WRITE: u32 = libc::POLLOUT as u32;
const FINISH: u32 = libc::POLLRDHUP as u32;
const FAIL: u32 = libc::POLLERR as u32;
const HANG_UP: u32 = libc::POLLHUP as u32;

/// What a wait for a socket is about. io_uring's poll adds POLLERR, POLLHUP and POLLRDHUP to
/// whatever it was asked for; a wait ends for what its `ends_with` has only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub asked: u32,
    pub ends_with: u32,
}

impl Interest {
    /// Bytes, the peer's end of stream or a failure.
    pub(super) const READABLE: Interest = Interest {
        asked: READ | FINISH,
        ends_with: READ | FINISH | FAIL | HANG_UP,
    };
    /// Room for bytes, or a failure. The peer having finished says nothing about either.
    pub(super) const WRITABLE: Interest = Interest {
        asked: WRITE,
        ends_with: WRITE | FAIL | HANG_UP,
    };
    /// The peer's end of stream or a failure, whatever else there is to read.
    pub(super) const FINISHED: Interest = Interest {
        asked: FINISH,
        ends_with: FINISH | FAIL | HANG_UP,
    };
    /// A failure. Both directions having ended is none.
    pub(super) const FAILED: Interest = Interest {
        asked: 0,
        ends_with: FAIL,
    };

    /// A poll for one event.
    pub(super) fn poll_entry(self, descriptor: &Rc<OwnedFd>) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), self.asked).build()
    }
}

/// Everything that a wait for a socket has found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events(u32);

impl Events {
    /// What is known when the kernel could not poll: the next call on the socket says how it is.
    const UNKNOWN: Events = Events(READ | WRITE);

    pub(super) fn of(bits: u32) -> Events {
        Events(bits)
    }

    /// There are bytes to read, and nothing that would end a read early.
    pub(crate) fn is_only_bytes(self) -> bool {
        self.0 & !READ == 0
    }

    /// The peer sends nothing more than what is there to read.
    pub(crate) fn peer_finished(self) -> bool {
        self.0 & (FINISH | HANG_UP) != 0
    }

    /// The connection was reset, or has failed otherwise.
    pub(crate) fn has_failed(self) -> bool {
        self.0 & FAIL != 0
    }

    /// Nothing goes in either direction any more. On a socket whose sending side is open that is a
    /// failure which somebody was told of already.
    pub(crate) fn has_ended(self) -> bool {
        self.0 & (FAIL | HANG_UP) != 0
    }
}

impl Completed for Events {
    fn of(result: i32) -> Events {
        u32::try_from(result).map_or(Events::UNKNOWN, Events)
    }
}
