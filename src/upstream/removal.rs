//! What becomes of a connection when its host gives its backend up: the host's option `removal` says.
//! A connection whose host says anything but `keep` has a [`RemovalWatch`]; for all others there is
//! nothing here to pay for.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::host::Host;
use crate::protocol::Protocol;
use crate::route::{Removal, Route, Update};
use crate::state::{Local, RemovalEntry, RemovalSubject};

/// Tells one connection that it has to end because its backend was removed. The backend's `Arc` has to
/// live as long.
pub(crate) struct RemovalWatch {
    local: Rc<Local>,
    entry: RemovalEntry,
}

impl RemovalWatch {
    /// Whether connections of this route have watches, so that their names have to be kept.
    pub(crate) fn is_wanted(route: &Route) -> bool {
        route.removal() != Removal::Keep
    }

    /// The watch of a connection to the backend in `slot`, to which the route of its name, or of none,
    /// has led. `None` where none is wanted.
    pub(crate) fn new(
        local: &Rc<Local>,
        route: &Route,
        protocol: Protocol,
        name: Option<&Host>,
        slot: u32,
    ) -> Option<Box<RemovalWatch>> {
        if !RemovalWatch::is_wanted(route) {
            return None;
        }
        let subject = RemovalSubject {
            protocol,
            name,
            slot,
        };
        let entry = {
            let (table, now) = (local.table.borrow(), local.ring.now());
            local.removals.tracker().enter(subject, route, &table, now)
        };
        // The route may have been replaced while the backend was connected to.
        if local.removals.tracker().is_leaving(&entry) {
            local.removals.wake_housekeeper(&local.ring);
        }
        let local = local.clone();
        Some(Box::new(RemovalWatch { local, entry }))
    }

    /// Ready once the connection has to end; registers the task otherwise.
    pub(crate) fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        let mut tracker = self.local.removals.tracker();
        tracker.poll_end(&self.entry, context)
    }
}

impl Drop for RemovalWatch {
    fn drop(&mut self) {
        self.local.removals.tracker().leave(&self.entry);
    }
}

/// The worker's table was replaced by a newer one.
pub(crate) fn follow_update(local: &Local, update: &Update) {
    let has_work = local.removals.tracker().replaced(update.replaced());
    if has_work {
        local.removals.wake_housekeeper(&local.ring);
    }
}

/// Ends the worker's connections whose backend was removed, step by step, for as long as the worker
/// lives.
pub(crate) async fn end_removed(local: Rc<Local>) {
    let deadline = local.ring.deadline();
    loop {
        let next = {
            let (table, now) = (local.table.borrow(), local.ring.now());
            local.removals.tracker().step(&table, now)
        };
        // For the tasks that the step has woken.
        local.ring.stay_awake();
        if let Some(next) = next {
            deadline.set(next);
        }
        let mut is_woken = false;
        poll_fn(|context| {
            if std::mem::replace(&mut is_woken, true) {
                return Poll::Ready(());
            }
            local.removals.set_housekeeper(context.waker().clone());
            match next {
                Some(_) => deadline.poll_passed(context),
                None => Poll::Pending,
            }
        })
        .await;
    }
}
