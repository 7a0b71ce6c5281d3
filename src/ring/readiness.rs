//! Readiness of one socket as a stream of events: one multishot poll instead of a poll armed
//! again before each wait (Linux 5.13; used from 5.19 on, since its poll code was rewritten in 5.17).
//!
//! The events are edges: each change is reported once. Whoever waits here must have emptied the socket
//! before; the next event reports what came since. The poll stays armed while nobody waits, and its events
//! are kept.

use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::driver::Ring;
use super::events::{Events, Interest};
use super::operations::{Held, Waits, register};
use crate::sys::Socket;

/// A socket's events. Dropped, it cancels its operation; what the kernel uses stays with the ring.
pub(crate) struct Readiness {
    ring: Ring,
    key: u32,
}

impl Ring {
    /// The events of a socket that is waited for again and again; `None` on kernels that lack them.
    pub(crate) fn readiness(&self, socket: &Socket) -> Option<Readiness> {
        Readiness::start(self, socket)
    }
}

impl Readiness {
    /// `None` where the kernel has no such operation; then [`Ring::readable`] is used.
    pub(super) fn start(ring: &Ring, socket: &Socket) -> Option<Readiness> {
        if !ring.0.features.multishot_poll {
            return None;
        }
        let descriptor = socket.descriptor();
        let entry =
            opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), Interest::READABLE.asked)
                .multi(true)
                .build();
        let waits = Waits::ForEvents {
            waker: None,
            events: 0,
            ended: false,
        };
        let key = ring.start(entry, Held::Descriptor(descriptor.clone()), waits);
        Some(Readiness {
            ring: ring.clone(),
            key,
        })
    }

    /// All events since the last call. `None`: the kernel has ended the operation, as it does when its
    /// completion queue overflows, and the socket must be waited for in another way.
    pub(crate) fn poll_events(&mut self, context: &mut Context<'_>) -> Poll<Option<Events>> {
        let mut operations = self.ring.0.operations.borrow_mut();
        let Waits::ForEvents {
            waker,
            events,
            ended,
        } = operations.waits(self.key)
        else {
            unreachable!("the stream owns its operation")
        };
        if *ended {
            return Poll::Ready(None);
        }
        if *events == 0 {
            register(waker, context);
            return Poll::Pending;
        }
        Poll::Ready(Some(Events::of(std::mem::take(events))))
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let mut operations = self.ring.0.operations.borrow_mut();
        if let Waits::ForEvents { ended: true, .. } = operations.waits(self.key) {
            operations.remove(self.key);
            return;
        }
        *operations.waits(self.key) = Waits::Nobody { accepts: false };
        let user_data = operations.user_data(self.key);
        drop(operations);
        self.ring.cancel(user_data);
    }
}
