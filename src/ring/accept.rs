//! Connections that arrive on one listening socket: by one multishot operation where the kernel has it
//! (5.19), otherwise by a plain one after the other, through the same code.

use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::{io, ptr};

use io_uring::{opcode, types};

use super::driver::Ring;
use super::operations::{Held, Waits, register};

/// A stream of accepted, non-blocking descriptors.
pub(crate) struct Accepts {
    ring: Ring,
    listener: Rc<OwnedFd>,
    key: Option<u32>,
    one_by_one: bool,
}

impl Ring {
    /// The connections arriving on a listening socket.
    pub(crate) fn accepts(&self, listener: Rc<OwnedFd>) -> Accepts {
        Accepts::new(self, listener)
    }
}

impl Accepts {
    pub(super) fn new(ring: &Ring, listener: Rc<OwnedFd>) -> Accepts {
        Accepts {
            ring: ring.clone(),
            listener,
            key: None,
            one_by_one: false,
        }
    }

    /// Whether the next operation accepts a single connection.
    pub(crate) fn one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// From the next operation on, accepts one connection at a time, or again as many as come. A multishot
    /// operation takes the whole queue of the listener at once, even if that is more than there is room for.
    pub(crate) fn set_one_by_one(&mut self, one_by_one: bool) {
        self.one_by_one = one_by_one;
    }

    /// The next connection, or the error of accept(2). After an error the operation has ended; the
    /// next call starts a new one, so the caller decides how long to pause.
    pub(crate) async fn next(&mut self) -> io::Result<OwnedFd> {
        poll_fn(|context| {
            let key = match self.key {
                Some(key) => key,
                None => *self.key.insert(self.start()),
            };
            let mut operations = self.ring.0.operations.borrow_mut();
            let Waits::ForAccepts(accepting) = operations.waits(key) else {
                unreachable!("the stream owns its operation")
            };
            let Some(next) = accepting.ready.pop_front() else {
                register(&mut accepting.waker, context);
                return Poll::Pending;
            };
            if accepting.ended && accepting.ready.is_empty() {
                operations.remove(key);
                self.key = None;
            }
            Poll::Ready(next)
        })
        .await
    }

    /// Stops accepting. What the kernel has accepted by then still comes out of [`Accepts::next`],
    /// and after the last of it the error ECANCELED; the call after that accepts again.
    pub(crate) fn stop(&mut self) {
        if let Some(key) = self.key {
            let user_data = self.ring.0.operations.borrow().user_data(key);
            self.ring.cancel(user_data);
        }
    }

    /// Whether an operation is under way or has results that were not taken.
    pub(crate) fn is_running(&self) -> bool {
        self.key.is_some()
    }

    fn start(&self) -> u32 {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let listener = types::Fd(self.listener.as_raw_fd());
        let entry = if self.ring.0.features.multishot_accept && !self.one_by_one {
            opcode::AcceptMulti::new(listener).flags(flags).build()
        } else {
            opcode::Accept::new(listener, ptr::null_mut(), ptr::null_mut())
                .flags(flags)
                .build()
        };
        self.ring.start(
            entry,
            Held::Descriptor(self.listener.clone()),
            Waits::ForAccepts(Box::default()),
        )
    }
}

impl Drop for Accepts {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut operations = self.ring.0.operations.borrow_mut();
        // Descriptors that nobody took are closed with the queue that is dropped here.
        let before = std::mem::replace(operations.waits(key), Waits::Nobody { accepts: true });
        if matches!(before, Waits::ForAccepts(accepting) if accepting.ended) {
            operations.remove(key);
            return;
        }
        let user_data = operations.user_data(key);
        drop(operations);
        self.ring.cancel(user_data);
    }
}
