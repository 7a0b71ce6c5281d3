//! An edge-triggered epoll (epoll(7), EPOLLET), for half-closed sockets: on those io_uring's poll would
//! report POLLRDHUP again and again, although nobody asked for it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::errno::check;

/// Most events of one epoll_wait.
const BATCH: usize = 64;

/// It knows sockets by the numbers of their descriptors. Whoever adds one keeps it open until it is removed.
#[derive(Debug)]
pub(crate) struct Epoll(Rc<OwnedFd>);

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1(2) takes no pointers.
        let returned = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(returned as libc::ssize_t)?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Epoll(Rc::new(unsafe { OwnedFd::from_raw_fd(returned) })))
    }

    /// The descriptor of the epoll itself. It is readable while [`Epoll::take`] would find events.
    pub(crate) fn descriptor(&self) -> &Rc<OwnedFd> {
        &self.0
    }

    /// Adds a descriptor for `events`. POLLERR and POLLHUP are reported in any case, and a condition that
    /// holds already is reported once.
    pub(crate) fn add(&self, descriptor: RawFd, events: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, events)
    }

    /// Changes the events of a descriptor that was added. A condition that holds is reported once more.
    pub(crate) fn modify(&self, descriptor: RawFd, events: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, events)
    }

    fn control(&self, operation: i32, descriptor: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events | libc::EPOLLET as u32,
            u64: descriptor as u64,
        };
        // SAFETY: the kernel reads one event from a live local.
        let returned =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &mut event) };
        check(returned as libc::ssize_t).map(drop)
    }

    pub(crate) fn remove(&self, descriptor: RawFd) {
        let nothing = std::ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL ignores the event (epoll_ctl(2), since 2.6.9).
        let _ = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, descriptor, nothing)
        };
    }

    /// Appends descriptor and events of each socket that has some to `taken`, whose memory the caller keeps.
    /// Returns whether there may be more.
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
