//! What depends on time in a relayed connection: idle and half-closed connections end, TCP keep-alive is
//! enabled, a quiet connection goes back to oneshot polls.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Relay;
use crate::client::flush_patience;
use crate::outcome::Outcome;
use crate::ring::{Deadline, has_failed};
use crate::state::Local;

/// A connection that has been quiet for this long goes back from multishot polls to oneshot polls.
/// Multishot polls are cheaper, but report changes only, and a read that ends at urgent data (RFC 6093)
/// leaves bytes behind which no change will ever report. Oneshot polls report all that is there.
const ONESHOT_AFTER: Duration = Duration::from_secs(1);
/// How long after one side has ended its stream its socket gets a watch for errors. The other direction
/// no longer reads from it, so a reset would go unseen until something is written. Most connections have
/// ended well before this and save the watch.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

/// When an idle connection ends, and how.
struct IdleEnd {
    at: Instant,
    outcome: Outcome,
}

impl Relay {
    /// Looks after everything that depends on time. Traffic only moves `last_moved`; the deadline is set
    /// again only when it passes, so that traffic costs no timer.
    pub(super) fn poll_deadline(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Outcome> {
        let one_has_ended = self.up.ending().is_some() || self.down.ending().is_some();
        if one_has_ended && !self.is_half_closed {
            let now = local.ring.now();
            self.is_half_closed = true;
            self.last_moved = now;
            deadline.set(now + HALF_CLOSED_GRACE.min(local.limits.half_closed_deadline));
        }
        if !self.uses_multishot && (self.up.uses_multishot() || self.down.uses_multishot()) {
            self.uses_multishot = true;
            let idle_until = self.last_moved + local.limits.idle_deadline;
            deadline.set(idle_until.min(local.ring.now() + ONESHOT_AFTER));
        }
        while deadline.poll_passed(context).is_ready() {
            self.enable_keep_alive(local);
            let idle_end = self.idle_end(local);
            if local.ring.now() >= idle_end.at {
                return Poll::Ready(idle_end.outcome);
            }
            let oneshot_at = self.last_moved + ONESHOT_AFTER;
            if self.uses_multishot && local.ring.now() >= oneshot_at {
                self.up.use_oneshot_polls(local, &self.client);
                self.down.use_oneshot_polls(local, &self.backend);
                self.uses_multishot = self.up.uses_multishot() || self.down.uses_multishot();
                context.waker().wake_by_ref();
                local.ring.stay_awake();
            }
            deadline.set(if self.uses_multishot {
                let next_look = oneshot_at.max(local.ring.now() + ONESHOT_AFTER / 2);
                idle_end.at.min(next_look)
            } else {
                idle_end.at
            });
            self.watch_half_closed(local, context);
        }
        Poll::Pending
    }

    /// Watches for errors the socket of a side that has ended its stream, from which nobody reads any
    /// more.
    fn watch_half_closed(&mut self, local: &Local, context: &mut Context<'_>) {
        if self.up.ending().is_some() && self.client_watch.is_none() {
            self.client_watch = Some(local.ring.failed(&self.client));
        }
        if self.down.ending().is_some() && self.backend_watch.is_none() {
            self.backend_watch = Some(local.ring.failed(&self.backend));
        }
        // Registers the task. What a watch has found is looked at by the next poll.
        let _ = has_failed(&mut self.client_watch, context);
        let _ = has_failed(&mut self.backend_watch, context);
    }

    /// When the connection ends if nothing moves from now on.
    fn idle_end(&self, local: &Local) -> IdleEnd {
        let limits = &local.limits;
        let (patience, outcome) = if self.is_client_gone {
            (flush_patience(local), Outcome::ClientReset)
        } else if self.is_half_closed && limits.half_closed_deadline < limits.idle_deadline {
            (limits.half_closed_deadline, Outcome::HalfClosedTimeout)
        } else {
            (limits.idle_deadline, Outcome::IdleTimeout)
        };
        IdleEnd {
            at: self.last_moved + patience,
            outcome,
        }
    }
}
