//! The future that waits for the one result of an operation, and the waits for one event of a socket.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::completed::Completed;
use super::driver::Ring;
use super::events::{Events, Interest};
use super::operations::{Held, Waits, register};
use crate::sys::{Socket, SocketAddress};

/// A future for the one result of an operation. Dropped early, it cancels the operation; what the
/// kernel still uses stays owned by the ring.
#[must_use = "an operation that is not awaited is cancelled"]
pub(crate) struct Operation<T = Events> {
    ring: Ring,
    key: u32,
    result: PhantomData<T>,
}

impl<T> Operation<T> {
    pub(super) fn new(ring: &Ring, key: u32) -> Operation<T> {
        Operation {
            ring: ring.clone(),
            key,
            result: PhantomData,
        }
    }
}

// An operation holds no `T`.
impl<T> Unpin for Operation<T> {}

impl<T: Completed> Future for Operation<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut operations = self.ring.0.operations.borrow_mut();
        match operations.waits(self.key) {
            Waits::Done(result) => Poll::Ready(T::of(*result)),
            Waits::ForOne(waker) => {
                register(waker, context);
                Poll::Pending
            }
            _ => unreachable!("the future owns its operation"),
        }
    }
}

impl<T> Drop for Operation<T> {
    fn drop(&mut self) {
        let mut operations = self.ring.0.operations.borrow_mut();
        if let Waits::Done(_) = operations.waits(self.key) {
            operations.remove(self.key);
            return;
        }
        let user_data = operations.user_data(self.key);
        if let Held::HalfClosed(descriptor, _) = operations.held(self.key) {
            let mut half_closed = self.ring.0.half_closed.borrow_mut();
            half_closed.remove(descriptor.as_raw_fd(), user_data);
            operations.remove(self.key);
            return;
        }
        *operations.waits(self.key) = Waits::Nobody { accepts: false };
        if operations.is_in_bulk_queue(self.key) {
            return;
        }
        drop(operations);
        self.ring.cancel(user_data);
    }
}

impl Ring {
    /// Completes when the socket can be read, its peer has finished sending, or it has failed.
    pub(crate) fn readable(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), Interest::READABLE)
    }

    /// Completes when the socket takes bytes again, or has failed.
    pub(crate) fn writable(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), Interest::WRITABLE)
    }

    /// Completes when the peer has finished sending or the socket has failed, even with bytes still to read.
    pub(crate) fn finished(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), Interest::FINISHED)
    }

    /// Completes when the socket has failed, and not when its peer or both sides have finished.
    pub(crate) fn failed(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), Interest::FAILED)
    }

    /// Completes when a descriptor that is no socket, such as an eventfd, can be read.
    pub(crate) fn descriptor_readable(&self, descriptor: &Rc<OwnedFd>) -> Operation {
        self.poll_descriptor(descriptor, Interest::READABLE)
    }

    /// Connects; completes when the peer has accepted or refused.
    pub(crate) fn connect(
        &self,
        socket: &Socket,
        address: SocketAddress,
    ) -> Operation<io::Result<()>> {
        let address = Box::new(address);
        let (pointer, length) = address.as_raw();
        let entry = opcode::Connect::new(types::Fd(socket.raw()), pointer, length).build();
        let held = Held::Address(socket.descriptor().clone(), address);
        Operation::new(self, self.start(entry, held, Waits::ForOne(None)))
    }

    fn poll_descriptor(&self, descriptor: &Rc<OwnedFd>, interest: Interest) -> Operation {
        let entry = interest.poll_entry(descriptor);
        let held = Held::Polled(descriptor.clone(), interest);
        Operation::new(self, self.start(entry, held, Waits::ForOne(None)))
    }
}

/// Whether a watch says that its socket has failed; registers the task otherwise. A watch that ended
/// with anything else stays where it is, so that it is not set again.
pub(crate) fn has_failed(watch: &mut Option<Operation>, context: &mut Context<'_>) -> bool {
    let Some(operation) = watch else { return false };
    match Pin::new(operation).poll(context) {
        Poll::Ready(events) => events.has_failed(),
        Poll::Pending => false,
    }
}
