//! The ring itself: what is queued for the kernel, the turn that hands it over and waits, and the
//! completions that come back.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Instant;

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};

use super::bulk_queue::BulkQueue;
use super::completed::NOBODY;
use super::events::Interest;
use super::half_closed::HalfClosed;
use super::operations::{Completion, Held, Operations, Unasked, Waits};
use super::probe::{Features, RingError};
use super::timers::Timers;

/// Handle on the ring of a worker; a clone is the same ring. It stays on its thread.
#[derive(Clone)]
pub(crate) struct Ring(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) uring: RefCell<IoUring>,
    pub(super) operations: RefCell<Operations>,
    pub(super) deadlines: RefCell<Timers>,
    pub(super) half_closed: RefCell<HalfClosed>,
    pub(super) bulk: RefCell<BulkQueue>,
    /// The last turn has woken a task.
    pub(super) was_busy: Cell<bool>,
    /// Wake-ups of tasks since the bulk queue was last served.
    pub(super) wakeups: Cell<u32>,
    pub(super) features: Features,
    pub(super) now: Cell<Instant>,
    pub(super) stay_awake: Cell<bool>,
    /// A test has the kernel take nothing until completions are reaped.
    #[cfg(test)]
    pub(super) overflows: Cell<bool>,
}

impl Ring {
    /// A ring of about `entries` submissions, for the calling thread alone. Memory for the operations of
    /// `connections` is reserved at once: what is not used is not resident, while a table that grows is
    /// copied in one go and is resident twice meanwhile.
    pub(crate) fn new(
        features: Features,
        entries: u32,
        connections: usize,
    ) -> Result<Ring, RingError> {
        let now = Instant::now();
        Ok(Ring(Rc::new(Inner {
            uring: RefCell::new(features.build(entries)?),
            operations: RefCell::new(Operations::with_capacity(2 * connections)),
            deadlines: RefCell::new(Timers::new(now, connections)),
            half_closed: RefCell::new(HalfClosed::new().map_err(RingError::new)?),
            bulk: RefCell::default(),
            was_busy: Cell::new(false),
            wakeups: Cell::new(0),
            features,
            now: Cell::new(now),
            stay_awake: Cell::new(false),
            #[cfg(test)]
            overflows: Cell::new(false),
        })))
    }

    /// The time at which the last turn came back. Close enough for deadlines, without a call of the clock.
    pub(crate) fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// Operations that the kernel holds, without the two of the ring itself (timer and epoll).
    pub(crate) fn operations(&self) -> usize {
        let timers = usize::from(self.0.deadlines.borrow().timer_is_armed());
        let polls = usize::from(self.0.half_closed.borrow().is_polled());
        self.0.operations.borrow().len() - timers - polls
    }

    /// Deadlines that exist, set or not.
    pub(crate) fn deadlines(&self) -> usize {
        self.0.deadlines.borrow().len()
    }

    /// Says that a task was made runnable by something other than a completion or a deadline.
    pub(crate) fn stay_awake(&self) {
        self.0.stay_awake.set(true);
    }

    /// Wakes every task that waits for a deadline, so that it sees that something has changed.
    pub(crate) fn wake_waiting(&self) {
        self.0.deadlines.borrow().wake_waiting();
        self.stay_awake();
    }

    /// Whether [`Ring::stay_awake`] was called since the last time. If so, the driver lets tasks run
    /// before it takes a turn.
    pub(crate) fn take_stay_awake(&self) -> bool {
        self.0.stay_awake.take()
    }

    /// Submits everything queued, blocks until at least one completion or deadline, unless a bulk
    /// stream waits in the queue, and wakes the tasks concerned. Fails only when the ring itself is broken.
    pub(crate) fn turn(&self) -> io::Result<()> {
        self.arm_timer();
        self.poll_half_closed();
        self.enter(usize::from(self.0.bulk.borrow().is_empty()))?;
        self.0.now.set(Instant::now());
        self.reap();
        self.0.deadlines.borrow_mut().advance(self.0.now.get());
        Ok(())
    }

    /// Queues an operation and returns its key. `held` owns all that `entry` points to.
    pub(super) fn start(&self, entry: squeue::Entry, held: Held, waits: Waits) -> u32 {
        let (key, user_data) = self.0.operations.borrow_mut().insert(held, waits);
        self.push(entry.user_data(user_data));
        key
    }

    pub(super) fn push(&self, entry: squeue::Entry) {
        loop {
            // SAFETY: what the entry points to is owned by its slab entry (`Held`), which is
            // removed only by the operation's last completion; cancellations point to nothing.
            let pushed = unsafe { self.0.uring.borrow_mut().submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // The queue is full and is submitted early. Before 5.19 the kernel takes nothing while
            // completions overflow (EBUSY), so those are reaped. Tasks that this wakes must run before
            // the driver sleeps.
            match self.enter(0) {
                Ok(Entered::Submitted) => {}
                Ok(Entered::NotNow) => {
                    self.reap();
                    self.stay_awake();
                }
                Err(error) => {
                    panic!("io_uring_enter failed while the submission queue was full: {error}")
                }
            }
        }
    }

    fn enter(&self, wait_for: usize) -> io::Result<Entered> {
        #[cfg(test)]
        if self.0.overflows.get() {
            return Ok(Entered::NotNow);
        }
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
            Ok(_) => Ok(Entered::Submitted),
            // EINTR: a signal; EAGAIN and EBUSY: the kernel is short of memory or has completions
            // that wait to be reaped. The turn goes on and the rest is submitted by the next.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(Entered::NotNow)
            }
            Err(error) => Err(error),
        }
    }

    fn reap(&self) {
        #[cfg(test)]
        self.0.overflows.set(false);
        let mut uring = self.0.uring.borrow_mut();
        let mut operations = self.0.operations.borrow_mut();
        let mut half_closed = self.0.half_closed.borrow_mut();
        let mut wakeups = 0;
        for completion in uring.completion() {
            let user_data = completion.user_data();
            let more = io_uring::cqueue::more(completion.flags());
            match operations.complete(user_data, completion.result(), more) {
                Completion::Delivered => wakeups += 1,
                Completion::Unasked(Unasked {
                    descriptor,
                    interest,
                }) => half_closed.add(descriptor, user_data, interest),
                Completion::Timer(key) => self.0.deadlines.borrow_mut().timer_ended(key),
                Completion::HalfClosed => {
                    half_closed.poll_ended();
                    half_closed.take(|user_data, events| {
                        wakeups += 1;
                        operations.complete(user_data, events as i32, false);
                    });
                }
            }
        }
        self.0.was_busy.set(wakeups > 0);
        let before = self.0.wakeups.get();
        self.0.wakeups.set(before.saturating_add(wakeups));
    }

    /// Cancels an operation that nobody waits for any more. Its slab entry stays until its completion.
    pub(super) fn cancel(&self, user_data: u64) {
        self.push(
            opcode::AsyncCancel::new(user_data)
                .build()
                .user_data(NOBODY),
        );
    }

    /// Keeps the ring's one timer at or before the next deadline. A timer that is too early is left alone:
    /// when it fires, the next one is set right.
    fn arm_timer(&self) {
        let wanted = self.0.deadlines.borrow().timer_wanted();
        let Some((tick, wait)) = wanted else { return };
        let late = self.0.deadlines.borrow_mut().take_timer();
        if let Some(late) = late {
            let user_data = self.0.operations.borrow().user_data(late);
            self.cancel(user_data);
        }
        let time = Box::new(types::Timespec::from(wait));
        let entry = opcode::Timeout::new(&raw const *time).build();
        let held = Held::Time(time);
        let (key, user_data) = self.0.operations.borrow_mut().insert(held, Waits::Timer);
        // Recorded before it is pushed, because a push may reap its completion.
        self.0.deadlines.borrow_mut().timer_armed(key, tick);
        self.push(entry.user_data(user_data));
    }

    /// Keeps the epoll polled while any half-closed socket is waited for.
    fn poll_half_closed(&self) {
        let wanted = self.0.half_closed.borrow_mut().begin_poll();
        if let Some(epoll) = wanted {
            let entry = Interest::READABLE.poll_entry(&epoll);
            self.start(entry, Held::Descriptor(epoll), Waits::HalfClosed);
        }
    }
}

/// Whether the kernel took what was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entered {
    Submitted,
    NotNow,
}
