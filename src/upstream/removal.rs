//! Ends connections whose backend is removed from their host, as the host's option `removal` says. A
//! connection whose host says anything but `keep` has a [`RemovalWatch`]; all others cost nothing.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::host::Host;
use crate::protocol::Protocol;
use crate::route::{Removal, Route, Update};
use crate::state::{Local, RemovalEntry, RemovalSubject};

/// Tells one connection when it has to end because its backend was removed. The connection has to keep the
/// backend's `Arc` for as long.
pub(crate) struct RemovalWatch {
    local: Rc<Local>,
    entry: RemovalEntry,
}

impl RemovalWatch {
    /// Whether connections of this route have watches. A watch needs the name that the client asked for.
    pub(crate) fn is_wanted(route: &Route) -> bool {
        route.removal() != Removal::Keep
    }

    /// The watch of a connection to the backend in `slot`, which `route` has led to. `name` is the one that
    /// the client asked for. `None` when the route wants no watches.
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
        // The route may have been replaced while the connection was made.
        if local.removals.tracker().is_leaving(&entry) {
            local.removals.wake_housekeeper(&local.ring);
        }
        let local = local.clone();
        Some(Box::new(RemovalWatch { local, entry }))
    }

    /// Ready once the connection has to end; until then it registers the task.
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

/// Begins the removals that follow from an update of the worker's table.
pub(crate) fn follow_update(local: &Local, update: &Update) {
    let has_work = local.removals.tracker().replaced(update.replaced());
    if has_work {
        local.removals.wake_housekeeper(&local.ring);
    }
}

/// Ends the worker's connections whose backend was removed, in steps, as long as the worker lives.
pub(crate) async fn end_removed(local: Rc<Local>) {
    let deadline = local.ring.deadline();
    loop {
        let next = {
            let (table, now) = (local.table.borrow(), local.ring.now());
            local.removals.tracker().step(&table, now)
        };
        // The step may have woken tasks, which the ring must not sleep over.
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
