//! Cuts the connections of a worker at the end of a drain, and long ones in its second half. A connection
//! that is cut is reset on both sides: data without framing of its own would take an end of stream for
//! its regular end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::close::CUT_PATIENCE;
use crate::ring::Deadline;
use crate::state::{AskedToEnd, Local};

/// Time between two looks at whether all connections have ended.
const CUT_LOOK: Duration = Duration::from_millis(10);

/// Cuts every connection. Ready when all have ended, or after the time that they have for it.
pub(crate) async fn cut_all(local: &Local) {
    local.start_draining();
    local.drain.begin_cutting();
    local.ring.wake_waiting();
    let deadline = local.ring.deadline();
    // Twice the time, so that each connection has counted how it ended.
    let ends = local.ring.now() + 2 * CUT_PATIENCE;
    while local.live() > 0 && local.ring.now() < ends {
        deadline.set(local.ring.now() + CUT_LOOK);
        deadline.passed().await;
    }
    local.count_as_cut();
}

/// Runs the work of a connection with this deadline until it ends; `None` when the connection is cut
/// before.
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

/// The future of [`until_cut`]. Written by hand, because an `async fn` would be larger, and every
/// connection has one.
pub(crate) struct UntilCut<'w, W> {
    local: &'w Local,
    deadline: &'w Deadline,
    work: Pin<&'w mut W>,
    /// When the connection is asked to end if it is a long one; `None` before the drain.
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
        if local.drain.is_cutting() {
            return match local
                .drain
                .ask(AskedToEnd::Now, || work.as_mut().poll(context))
            {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                // It waits for something that need not know of the end.
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
                local.drain.ask(AskedToEnd::IfLong, ask).map(Some)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
