//! How the connections of a worker end at the end of a drain. Nothing is told to hurry before its
//! time; what ends early is reset on both sides, because an end of stream would be taken for the regular
//! end of whatever has no framing of its own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::close::CUT_PATIENCE;
use crate::ring::Deadline;
use crate::state::{AskedToEnd, Local};

/// Between two looks at whether all that was cut has ended.
const CUT_LOOK: Duration = Duration::from_millis(10);

/// Ends every connection; ready when that is done, or the patience of those that are cut is over.
pub(crate) async fn cut_all(local: &Local) {
    local.start_draining();
    local.drain.begin_cutting();
    local.ring.wake_waiting();
    let deadline = local.ring.deadline();
    // So much longer that every one of them has said how it ended.
    let ends = local.ring.now() + 2 * CUT_PATIENCE;
    while local.live() > 0 && local.ring.now() < ends {
        deadline.set(local.ring.now() + CUT_LOOK);
        deadline.passed().await;
    }
    local.count_as_cut();
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
        if local.drain.is_cutting() {
            return match local
                .drain
                .ask(AskedToEnd::Now, || work.as_mut().poll(context))
            {
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
                local.drain.ask(AskedToEnd::IfLong, ask).map(Some)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
