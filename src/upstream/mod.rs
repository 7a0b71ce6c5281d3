//! From a route to a connected backend: choose, connect within a deadline, and on failure go to
//! another backend while the head is still in hand; and what becomes of a connection whose backend is
//! removed.

mod attempts;
mod dial;
mod live;
mod queue;
mod removal;
mod source;

pub(crate) use attempts::Attempts;
pub(crate) use dial::{Dialled, dial};
pub(crate) use live::LiveBackend;
pub(crate) use queue::wait_for_place;
pub(crate) use removal::{RemovalWatch, end_removed, follow_update};
