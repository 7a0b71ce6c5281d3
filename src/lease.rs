//! A backend is leased to a connection by the host that has it; when the host gives the backend up,
//! its option `removal` says what becomes of the connection. Only connections of hosts that say
//! something else than `keep` have a lease: for all others there is nothing here to pay for.

mod book;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub(crate) use book::Book;
use book::{Entry, Subject};

use crate::host::Host;
use crate::local::Local;
use crate::protocol::Protocol;
use crate::route::{Removal, Route, Update};

/// What a core knows about its leases.
#[derive(Default)]
pub(crate) struct Leases {
    book: RefCell<Book>,
    /// Of [`keep`], while it has nothing to do.
    keeper: RefCell<Option<Waker>>,
}

/// A connection's right to its backend. The backend's `Arc` has to live as long.
pub(crate) struct Lease {
    local: Rc<Local>,
    entry: Entry,
}

impl Lease {
    /// Whether the connections of a route have leases, so that their names have to be kept.
    pub(crate) fn is_wanted(route: &Route) -> bool {
        route.removal() != Removal::Keep
    }

    /// The lease of a connection that the route of its name, or of none, has led to the backend in
    /// `slot`. `None` where none is wanted.
    pub(crate) fn new(
        local: &Rc<Local>,
        route: &Route,
        protocol: Protocol,
        name: Option<&Host>,
        slot: u32,
    ) -> Option<Box<Lease>> {
        if !Lease::is_wanted(route) {
            return None;
        }
        let subject = Subject {
            protocol,
            name,
            slot,
        };
        let (table, now) = (local.table.borrow(), local.ring.now());
        let mut book = local.leases.book.borrow_mut();
        let entry = book.enter(subject, route, &table, now);
        // The route may have been replaced while the backend was connected to.
        if book.is_leaving(&entry) {
            local.leases.wake_keeper(local);
        }
        let local = local.clone();
        Some(Box::new(Lease { local, entry }))
    }

    /// Ready once the connection has to end; registers the task otherwise.
    pub(crate) fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        let mut book = self.local.leases.book.borrow_mut();
        book.poll_end(&self.entry, context)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.local.leases.book.borrow_mut().leave(&self.entry);
    }
}

impl Leases {
    /// The core's table was replaced by a newer one.
    pub(crate) fn follow(&self, local: &Local, update: &Update) {
        if self.book.borrow_mut().replaced(update.replaced()) {
            self.wake_keeper(local);
        }
    }

    fn wake_keeper(&self, local: &Local) {
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
            local.ring.stay_awake();
        }
    }
}

/// Ends the core's connections whose lease is over, step by step.
pub(crate) async fn keep(local: Rc<Local>) {
    let deadline = local.ring.deadline();
    loop {
        let next = {
            let (table, now) = (local.table.borrow(), local.ring.now());
            local.leases.book.borrow_mut().step(&table, now)
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
            *local.leases.keeper.borrow_mut() = Some(context.waker().clone());
            match next {
                Some(_) => deadline.poll_passed(context),
                None => Poll::Pending,
            }
        })
        .await;
    }
}
