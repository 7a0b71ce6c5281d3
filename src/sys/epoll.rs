//! An epoll that tells changes (epoll(7), EPOLLET): for the rare socket on which io_uring's poll
//! would report again and again what nobody asked for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::errno::check;

/// Events taken in one call.
const BATCH: usize = 64;

/// The sockets are known by their descriptors, which whoever registers them keeps open.
#[derive(Debug)]
pub(crate) struct EdgePoll(Rc<OwnedFd>);

impl EdgePoll {
    pub(crate) fn new() -> io::Result<EdgePoll> {
        // SAFETY: epoll_create1(2) takes no pointers.
        let returned = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(returned as libc::ssize_t)?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(EdgePoll(Rc::new(unsafe { OwnedFd::from_raw_fd(returned) })))
    }

    /// Can be read while [`EdgePoll::take`] has something to give.
    pub(crate) fn descriptor(&self) -> &Rc<OwnedFd> {
        &self.0
    }

    /// Begins to watch a descriptor for `events`, beside which POLLERR and POLLHUP always come, or
    /// changes what it is watched for. What holds already is told once.
    pub(crate) fn watch(&self, descriptor: RawFd, events: u32, is_known: bool) -> io::Result<()> {
        let operation = if is_known {
            libc::EPOLL_CTL_MOD
        } else {
            libc::EPOLL_CTL_ADD
        };
        let mut event = libc::epoll_event {
            events: events | libc::EPOLLET as u32,
            u64: descriptor as u64,
        };
        // SAFETY: the kernel reads one event from a live local.
        let returned =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &mut event) };
        check(returned as libc::ssize_t).map(drop)
    }

    pub(crate) fn forget(&self, descriptor: RawFd) {
        let nothing = std::ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL ignores the event (epoll_ctl(2), since 2.6.9).
        let _ = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, descriptor, nothing)
        };
    }

    /// Adds what has happened to `taken`, as descriptor and events. Whether there may be more.
    pub(crate) fn take(&self, taken: &mut Vec<(RawFd, u32)>) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: the kernel writes at most BATCH events to a live array of as many.
        let returned = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                BATCH as libc::c_int,
                0,
            )
        };
        let count = usize::try_from(returned).unwrap_or(0);
        taken.extend(
            events[..count]
                .iter()
                .map(|event| (event.u64 as RawFd, event.events)),
        );
        count == BATCH
    }
}
