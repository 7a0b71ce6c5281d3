//! A stream's wait for its turn in the bulk run queue: an operation that the kernel never sees and that
//! completes when the queue serves it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::completed::Completed;
use super::driver::Ring;
use super::events::Events;
use super::operation::Operation;
use super::operations::{Held, Waits};

/// Whether others want the worker as well, at the turn of a bulk stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BulkTurn {
    Uncontended,
    Contended,
}

/// The result of an operation in the queue.
const CONTENDED: i32 = 0;
const UNCONTENDED: i32 = 1;

impl Completed for BulkTurn {
    fn of(result: i32) -> BulkTurn {
        match result {
            CONTENDED => BulkTurn::Contended,
            _ => BulkTurn::Uncontended,
        }
    }
}

/// What whoever moves bytes waits for.
pub(crate) enum Wait {
    Event(Operation),
    /// Its turn, mostly because the event has come.
    Turn(Operation<BulkTurn>),
}

/// What came of a [`Wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Event(Events),
    Turn(BulkTurn),
}

impl Wait {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Waited> {
        match self {
            Wait::Event(event) => Pin::new(event).poll(context).map(Waited::Event),
            Wait::Turn(turn) => Pin::new(turn).poll(context).map(Waited::Turn),
        }
    }
}

impl Ring {
    /// Completes when it is the turn of the stream that asks. Streams that asked before come first;
    /// a low-priority stream lets all others go first for half a millisecond.
    pub(crate) fn yield_to_queue(&self, is_low_priority: bool) -> Operation<BulkTurn> {
        let mut operations = self.0.operations.borrow_mut();
        let (key, user_data) = operations.insert(Held::Nothing, Waits::ForOne(None));
        drop(operations);
        let mut queue = self.0.bulk.borrow_mut();
        queue.push(user_data, self.now(), is_low_priority);
        Operation::new(self, key)
    }

    /// Serves the next stream of the queue. Whether there was one; it has left the queue unserved if
    /// its future was dropped.
    pub(crate) fn serve_queue(&self) -> bool {
        let others_are_busy = self.0.was_busy.get();
        let next = self.0.bulk.borrow_mut().pop(self.now(), others_are_busy);
        let Some(user_data) = next else {
            return false;
        };
        // Since the queue was last served nothing has come for others: at most the event for which
        // this stream came here.
        let is_alone = self.0.wakeups.take() <= 1 && self.0.bulk.borrow().is_empty();
        let result = if is_alone { UNCONTENDED } else { CONTENDED };
        self.0
            .operations
            .borrow_mut()
            .complete(user_data, result, false);
        true
    }
}
