//! Passes a reset on to the other side. The reset must not overtake what was sent before, because it
//! drops what the peer has not acknowledged yet.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::ring::{Deadline, has_failed};
use crate::state::Local;
use crate::sys::Socket;

/// When to look first whether the peer has acknowledged the last bytes. Each further look waits twice
/// as long as the one before, up to the maximum.
const FLUSH_STEP: Duration = Duration::from_millis(20);
const FLUSH_STEP_MAX: Duration = Duration::from_secs(1);
/// A peer that acknowledges nothing for this long is reset all the same. A phone may be without network
/// for many seconds, and after a normal close the kernel would try even longer.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);

/// [`FLUSH_PATIENCE`], or less where no connection may be silent for so long.
pub(crate) fn flush_patience(local: &Local) -> Duration {
    let limits = &local.limits;
    FLUSH_PATIENCE
        .min(limits.idle_deadline)
        .min(limits.half_closed_deadline)
}

/// Waits until the peer has acknowledged all that it was sent, for as long as it keeps acknowledging or
/// until `by`. Closing the socket then resets the connection.
pub(crate) async fn pass_reset_on(
    local: &Local,
    to: &Socket,
    deadline: &Deadline,
    by: Option<Instant>,
) {
    // Also when the wait itself is cut short.
    to.abort_on_close();
    let mut left = to.unacknowledged_bytes();
    let mut step = FLUSH_STEP;
    let patience = flush_patience(local);
    let ends = by.unwrap_or(local.ring.now() + patience.max(local.limits.idle_deadline));
    let mut patience_ends = by.unwrap_or(local.ring.now() + patience);
    let mut watch = (left > 0).then(|| local.ring.failed(to));
    while left > 0 && local.ring.now() < patience_ends {
        deadline.set(local.ring.now() + step);
        let gone = poll_fn(|context| {
            if has_failed(&mut watch, context) {
                return Poll::Ready(true);
            }
            deadline.poll_passed(context).map(|()| false)
        });
        if gone.await {
            break;
        }
        let now_left = to.unacknowledged_bytes();
        if now_left < left && by.is_none() {
            patience_ends = ends.min(local.ring.now() + patience);
        }
        left = now_left;
        step = (step * 2).min(FLUSH_STEP_MAX);
    }
}
