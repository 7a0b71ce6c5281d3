//! What a wait is for, and what has happened to a socket. Only this file knows the bits of poll(2).

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::completed::Completed;

const READ: u32 = libc::POLLIN as u32;
const WRITE: u32 = libc::POLLOUT as u32;
const FINISH: u32 = libc::POLLRDHUP as u32;
const FAIL: u32 = libc::POLLERR as u32;
const HANG_UP: u32 = libc::POLLHUP as u32;

/// What a wait is for. io_uring's poll reports POLLERR, POLLHUP and POLLRDHUP whatever it was asked for,
/// so a wait ends only with an event in `ends_with`.
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
    /// Room for bytes, or a failure. The peer's end of stream does not end this wait.
    pub(super) const WRITABLE: Interest = Interest {
        asked: WRITE,
        ends_with: WRITE | FAIL | HANG_UP,
    };
    /// The peer's end of stream or a failure, whatever else there is to read.
    pub(super) const FINISHED: Interest = Interest {
        asked: FINISH,
        ends_with: FINISH | FAIL | HANG_UP,
    };
    /// A failure. The end of both directions is not one.
    pub(super) const FAILED: Interest = Interest {
        asked: 0,
        ends_with: FAIL,
    };

    /// A poll for one event.
    pub(super) fn poll_entry(self, descriptor: &Rc<OwnedFd>) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), self.asked).build()
    }
}

/// The state of a socket as a wait has found it.
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

    /// Both directions have ended, or the connection has failed. On a socket whose sending side is open,
    /// the end of both means a failure that an earlier call has already reported.
    pub(crate) fn has_ended(self) -> bool {
        self.0 & (FAIL | HANG_UP) != 0
    }
}

impl Completed for Events {
    fn of(result: i32) -> Events {
        u32::try_from(result).map_or(Events::UNKNOWN, Events)
    }
}
