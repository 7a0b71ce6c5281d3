//! One io_uring per core. It waits for everything this core waits for: accepts, connects,
//! readiness, deadlines and wake-ups; bytes are moved by plain system calls once it says so.
//!
//! **Who owns what.** An operation lives in a slab until its last completion has come, and with it
//! all that the kernel may still use: the descriptor (so that its number cannot be reused for
//! another connection while the operation is queued), the address of a connect, the time of a
//! timer. No call lends the kernel a caller's memory. A dropped future cancels its operation and
//! leaves the rest to the completion; that is all there is to soundness under cancellation.
//!
//! **Who drives.** One task per core calls [`Ring::turn`] in a loop and yields between turns. A
//! turn is one system call that submits all that is queued, blocks when nothing is runnable, and
//! reaps all that has completed. Tasks therefore wait on the ring only; one that is made runnable
//! any other way must say so with [`Ring::stay_awake`], or the driver would sleep over it. After a
//! turn the driver calls one of those who stand in line, see [`Ring::stand_in_line`].

mod accept;
mod deadline;
mod line;
mod operation;
mod probe;
mod readiness;
mod wheel;

pub use accept::Accepts;
pub use deadline::Deadline;
pub use line::ALONE;
pub use operation::Operation;
pub use probe::{Features, RingError, probe};
pub use readiness::Readiness;

use crate::sys::{Socket, SocketAddress};
use deadline::Deadlines;
use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use line::Line;
use operation::{Held, Operations, Waits};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// Readable, or the peer has finished or failed.
const READABLE: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
const WRITABLE: u32 = libc::POLLOUT as u32;
/// No event is asked for; an error of the socket is reported all the same (poll(2)).
const ERRORS_ONLY: u32 = 0;

/// Handle on one core's ring; a clone is the same ring. Stays on its thread.
#[derive(Clone)]
pub struct Ring(Rc<Inner>);

struct Inner {
    uring: RefCell<IoUring>,
    operations: RefCell<Operations>,
    deadlines: RefCell<Deadlines>,
    line: RefCell<Line>,
    /// The last turn has told somebody something.
    was_busy: Cell<bool>,
    /// How often somebody was told something since one of those in line was called.
    told: Cell<u32>,
    features: Features,
    now: Cell<Instant>,
    stay_awake: Cell<bool>,
}

impl Ring {
    /// A ring of about `entries` submissions, for the calling thread alone. Room for what
    /// `connections` wait for is set aside at once: memory that is not used is not resident, while
    /// a table that grows is copied in one go and twice resident meanwhile.
    pub fn new(features: Features, entries: u32, connections: usize) -> Result<Ring, RingError> {
        let now = Instant::now();
        Ok(Ring(Rc::new(Inner {
            uring: RefCell::new(features.build(entries)?),
            operations: RefCell::new(Operations::with_capacity(2 * connections)),
            deadlines: RefCell::new(Deadlines::new(now, connections)),
            line: RefCell::default(),
            was_busy: Cell::new(false),
            told: Cell::new(0),
            features,
            now: Cell::new(now),
            stay_awake: Cell::new(false),
        })))
    }

    /// The time at which the last turn came back; close enough for deadlines, and free.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// Operations that the kernel still has, of every kind but the ring's own timer.
    pub fn operations(&self) -> usize {
        self.0.operations.borrow().len() - usize::from(self.0.deadlines.borrow().timer_is_armed())
    }

    /// Deadlines that exist, set or not.
    pub fn deadlines(&self) -> usize {
        self.0.deadlines.borrow().len()
    }

    /// Says that a task was made runnable by something other than a completion or a deadline.
    pub fn stay_awake(&self) {
        self.0.stay_awake.set(true);
    }

    /// Whether somebody said [`Ring::stay_awake`] since the last call. While so, the driver lets
    /// the tasks run instead of taking a turn.
    pub fn take_stay_awake(&self) -> bool {
        self.0.stay_awake.take()
    }

    /// Submits everything queued, blocks until at least one completion or deadline, unless somebody
    /// stands in line, and wakes the tasks concerned. Fails only when the ring itself is broken.
    pub fn turn(&self) -> io::Result<()> {
        self.arm_timer();
        self.enter(usize::from(self.0.line.borrow().is_empty()))?;
        self.0.now.set(Instant::now());
        self.reap();
        self.0.deadlines.borrow_mut().advance(self.0.now.get());
        Ok(())
    }

    /// Completes when the socket can be read, or its peer has finished or failed.
    pub fn readable(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), READABLE)
    }

    /// The events of a socket that is waited for again and again; `None` on kernels that lack them.
    pub fn readiness(&self, socket: &Socket) -> Option<Readiness> {
        Readiness::start(self, socket)
    }

    /// Completes when the socket takes bytes again, or has failed.
    pub fn writable(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), WRITABLE)
    }

    /// Completes when the socket has failed or both its directions have ended.
    pub fn failed(&self, socket: &Socket) -> Operation {
        self.poll_descriptor(socket.descriptor(), ERRORS_ONLY)
    }

    /// Completes when a descriptor that is no socket, such as an eventfd, can be read.
    pub fn descriptor_readable(&self, descriptor: &Rc<OwnedFd>) -> Operation {
        self.poll_descriptor(descriptor, READABLE)
    }

    /// Connects; completes when the peer has accepted or refused.
    pub fn connect(&self, socket: &Socket, address: SocketAddress) -> Operation {
        let address = Box::new(address);
        let (pointer, length) = address.as_raw();
        let entry = opcode::Connect::new(types::Fd(socket.raw()), pointer, length).build();
        let held = Held::Address(socket.descriptor().clone(), address);
        Operation::new(self, self.start(entry, held, Waits::ForOne(None)))
    }

    /// The connections arriving on a listening socket.
    pub fn accepts(&self, listener: Rc<OwnedFd>) -> Accepts {
        Accepts::new(self, listener)
    }

    /// A deadline that is not set to anything yet.
    pub fn deadline(&self) -> Deadline {
        Deadline::new(self)
    }

    fn poll_descriptor(&self, descriptor: &Rc<OwnedFd>, events: u32) -> Operation {
        let entry = opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), events).build();
        let held = Held::Descriptor(descriptor.clone());
        Operation::new(self, self.start(entry, held, Waits::ForOne(None)))
    }

    /// Queues an operation and returns its key. `held` owns all that `entry` points to.
    fn start(&self, entry: squeue::Entry, held: Held, waits: Waits) -> u32 {
        let (key, user_data) = self.0.operations.borrow_mut().insert(held, waits);
        self.push(entry.user_data(user_data));
        key
    }

    fn push(&self, entry: squeue::Entry) {
        loop {
            // SAFETY: what the entry points to is owned by its slab entry (`Held`), which is
            // removed only by the operation's last completion; cancellations point to nothing.
            let pushed = unsafe { self.0.uring.borrow_mut().submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // The queue is full: hand it over early. Completions stay for the next turn.
            if let Err(error) = self.enter(0) {
                panic!("io_uring_enter failed while the submission queue was full: {error}");
            }
        }
    }

    fn enter(&self, wait_for: usize) -> io::Result<()> {
        let mut uring = self.0.uring.borrow_mut();
        let queued = uring.submission().len();
        // SAFETY: the queue holds only entries from `push`; no signal mask or argument is passed.
        let entered = unsafe {
            uring.submitter().enter::<libc::sigset_t>(
                queued as u32,
                wait_for as u32,
                EnterFlags::GETEVENTS.bits(),
                None,
            )
        };
        match entered {
            Ok(_) => Ok(()),
            // EINTR: a signal; EAGAIN and EBUSY: the kernel is short of memory or has completions
            // that wait to be reaped. The turn goes on and the rest is submitted by the next.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn reap(&self) {
        let mut uring = self.0.uring.borrow_mut();
        let mut operations = self.0.operations.borrow_mut();
        let mut told = 0;
        for completion in uring.completion() {
            let timer = operations.complete(
                completion.user_data(),
                completion.result(),
                io_uring::cqueue::more(completion.flags()),
            );
            match timer {
                Some(key) => self.0.deadlines.borrow_mut().timer_ended(key),
                None => told += 1,
            }
        }
        self.0.was_busy.set(told > 0);
        self.0.told.set(self.0.told.get().saturating_add(told));
    }

    /// Cancels an operation nobody waits for any more. Its slab entry stays until the kernel says so.
    fn cancel(&self, user_data: u64) {
        self.push(
            opcode::AsyncCancel::new(user_data)
                .build()
                .user_data(operation::NOBODY),
        );
    }

    /// Keeps the ring's one timer at or before the next thing the wheel has to do. A timer that is
    /// too early is left alone: it fires, and the next one is right.
    fn arm_timer(&self) {
        let wanted = self.0.deadlines.borrow().timer_wanted();
        let Some((tick, wait)) = wanted else { return };
        if let Some(late) = self.0.deadlines.borrow_mut().take_timer() {
            let user_data = self.0.operations.borrow().user_data(late);
            self.cancel(user_data);
        }
        let time = Box::new(types::Timespec::from(wait));
        let entry = opcode::Timeout::new(&raw const *time).build();
        let key = self.start(entry, Held::Time(time), Waits::Timer);
        self.0.deadlines.borrow_mut().timer_armed(key, tick);
    }
}

#[cfg(test)]
mod tests;
