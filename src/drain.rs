//! How the connections of a core end when the process stops. None is told to hurry; those that would
//! all be cut at the last moment, and come back in the same moment, end one after the other instead:
//! clients between two requests in the first half of the drain, relays and long answers in the second.
//! What is left then is cut. What ends before its time is reset on both sides: an end of stream would be
//! taken for the regular end of whatever has no framing of its own.
//!
//! Nothing is kept for it of a connection: each waits for a deadline, and by that all are woken.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::local::Local;
use crate::ring::Deadline;

/// What a client that is cut gets to acknowledge what it was sent.
pub(crate) const CUT_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at whether all that was cut has ended.
const CUT_LOOK: Duration = Duration::from_millis(10);

/// How far the end of a core has come.
#[derive(Default)]
pub(crate) struct Drain {
    began: Cell<Option<Instant>>,
    is_cutting: Cell<bool>,
    asked: Cell<Option<Asked>>,
}

/// What the connection that runs at the moment is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To end if it is a long one.
    IfLong,
    Now,
}

impl Drain {
    pub(crate) fn is_draining(&self) -> bool {
        self.began.get().is_some()
    }

    /// For a relay, of which nobody knows whether it will end by itself.
    pub(crate) fn asks_relays(&self) -> bool {
        self.asked.get().is_some()
    }

    /// For an exchange that began at `began`: one that has lasted longer than the whole drain before
    /// that began will hardly end within it.
    pub(crate) fn asks_exchange(&self, began: Instant, span: Duration) -> bool {
        match (self.asked.get(), self.began.get()) {
            (Some(Asked::Now), _) => true,
            (Some(Asked::IfLong), Some(drain_began)) => {
                drain_began.saturating_duration_since(began) >= span
            }
            _ => false,
        }
    }

    fn ask<T>(&self, asked: Asked, poll: impl FnOnce() -> T) -> T {
        self.asked.set(Some(asked));
        let polled = poll();
        self.asked.set(None);
        polled
    }
}

impl Local {
    /// Whether the process is stopping: nothing new is accepted.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Makes every accept loop of the core come to its end, and every connection in its time.
    pub(crate) fn start_draining(&self) {
        if self.is_draining() {
            return;
        }
        self.drain.began.set(Some(self.ring.now()));
        self.wake_accept_loops();
        self.ring.wake_waiting();
    }

    /// When a client that waits by this deadline for its next request is let go.
    pub(crate) fn idle_leaves_at(&self, deadline: &Deadline) -> Option<Instant> {
        let span = self.limits.drain / 2;
        let began = self.drain.began.get()?;
        Some(began + span.mul_f64(deadline.spread()))
    }

    /// When a long connection with this deadline is.
    fn long_leaves_at(&self, deadline: &Deadline) -> Option<Instant> {
        Some(self.idle_leaves_at(deadline)? + self.limits.drain / 2)
    }

    /// Ends every connection; ready when that is done, or the patience of those that are cut is over.
    pub(crate) async fn cut_all(&self) {
        self.start_draining();
        self.drain.is_cutting.set(true);
        self.ring.wake_waiting();
        let deadline = self.ring.deadline();
        // So much longer that every one of them has said how it ended.
        let ends = self.ring.now() + 2 * CUT_PATIENCE;
        while self.live() > 0 && self.ring.now() < ends {
            deadline.set(self.ring.now() + CUT_LOOK);
            deadline.passed().await;
        }
        self.count_as_cut();
    }
}

/// Does the work of a connection with this deadline until it ends, or until the connection is cut within
/// it: `None`.
pub(crate) fn until_cut<'w, W: Future>(
    local: &'w Local,
    deadline: &'w Deadline,
    work: Pin<&'w mut W>,
) -> UntilCut<'w, W> {
    UntilCut {
        local,
        deadline,
        work,
        leaves: None,
    }
}

/// See [`until_cut`]; no `async fn`, which would be larger, and every connection has one.
pub(crate) struct UntilCut<'w, W> {
    local: &'w Local,
    deadline: &'w Deadline,
    work: Pin<&'w mut W>,
    /// When it is asked to end if it is a long one; none before the drain.
    leaves: Option<Box<Deadline>>,
}

impl<W: Future> Future for UntilCut<'_, W> {
    type Output = Option<W::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<W::Output>> {
        let this = &mut *self;
        if let Poll::Ready(output) = this.work.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let local = this.local;
        let Some(at) = local.long_leaves_at(this.deadline) else {
            return Poll::Pending;
        };
        let work = &mut this.work;
        if local.drain.is_cutting.get() {
            return match local.drain.ask(Asked::Now, || work.as_mut().poll(context)) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                // It holds nothing that would have to know.
                Poll::Pending => Poll::Ready(None),
            };
        }
        let leaves = this.leaves.get_or_insert_with(|| {
            let leaves = local.ring.deadline();
            leaves.set(at);
            Box::new(leaves)
        });
        match leaves.poll_passed(context) {
            Poll::Ready(()) => {
                let ask = || work.as_mut().poll(context);
                local.drain.ask(Asked::IfLong, ask).map(Some)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
