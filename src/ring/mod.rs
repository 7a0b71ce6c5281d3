//! One io_uring per worker. It waits for everything that the worker waits for: accepts, connects,
//! readiness, deadlines and wake-ups; bytes are moved by plain system calls once it says so.
//!
//! **Who owns what.** An operation lives in a slab until its last completion has come, and with it
//! all that the kernel may still use: the descriptor (so that its number cannot be reused for
//! another connection while the operation is queued), the address of a connect, the time of a
//! timer. No call lends the kernel a caller's memory. A dropped future cancels its operation and
//! leaves the rest to the completion; that is all there is to soundness under cancellation.
//!
//! **Who drives.** One task per worker calls [`Ring::turn`] in a loop and yields between turns. A
//! turn is one system call that submits all that is queued, blocks when nothing is runnable, and
//! reaps all that has completed. Tasks therefore wait on the ring only; whoever makes a task
//! runnable in another way must call [`Ring::stay_awake`], or the driver would sleep and not run it. After a
//! turn the driver serves one stream of the bulk queue, see [`Ring::yield_to_queue`].

mod accept;
mod bulk_queue;
mod bulk_turn;
mod completed;
mod deadline;
mod driver;
mod events;
mod half_closed;
mod operation;
mod operations;
mod probe;
mod readiness;
mod timers;
mod wheel;

pub(crate) use accept::Accepts;
pub(crate) use bulk_turn::{BulkTurn, Wait, Waited};
pub(crate) use deadline::Deadline;
pub(crate) use driver::Ring;
pub(crate) use events::Events;
pub(crate) use operation::{Operation, has_failed};
pub(crate) use probe::{Features, RingError, probe};
pub(crate) use readiness::Readiness;

#[cfg(test)]
mod tests;
