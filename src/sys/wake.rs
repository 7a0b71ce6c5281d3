//! Waking a worker from another thread: an eventfd that the worker's ring polls.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::errno::check;

/// The side of other threads. Every clone wakes the same worker.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<OwnedFd>);

/// The side of the worker, which polls it.
#[derive(Debug)]
pub(crate) struct WakeReader(OwnedFd);

/// Both sides of a new eventfd.
pub(crate) fn wake_pair() -> io::Result<(Waker, WakeReader)> {
    // SAFETY: eventfd(2) takes no pointers.
    let returned = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    check(returned as libc::ssize_t)?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    let write_side = unsafe { OwnedFd::from_raw_fd(returned) };
    let read_side = write_side.try_clone()?;
    Ok((Waker(Arc::new(write_side)), WakeReader(read_side)))
}

impl Waker {
    /// Makes the reader readable. It fails only when the counter is at its limit, and then the reader is
    /// readable already.
    pub(crate) fn wake(&self) {
        let one = 1u64;
        // SAFETY: the kernel reads 8 bytes of a live local (eventfd(2)).
        let _ = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl WakeReader {
    /// Takes the pending wake-ups; the descriptor is not readable until the next one.
    pub(crate) fn clear(descriptor: &OwnedFd) {
        let mut count = 0u64;
        // SAFETY: the kernel writes 8 bytes to a live local (eventfd(2)).
        let _ = unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// The descriptor, for the ring of the worker that owns it from now on.
    pub(crate) fn into_descriptor(self) -> Rc<OwnedFd> {
        Rc::new(self.0)
    }
}
