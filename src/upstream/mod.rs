//! From a route to a connected backend: [`dial()`] chooses one, waits for a free slot where all are full,
//! connects within a deadline and, when that fails, retries on the next backend. [`Attempts`] remembers
//! what was tried, since a backend may accept and still give no answer. [`RemovalWatch`] ends a
//! connection whose backend is removed.

mod attempts;
mod dial;
mod dial_request;
mod live;
mod queue;
mod removal;
mod source;

pub(crate) use attempts::Attempts;
pub(crate) use dial::{Dialled, dial};
pub(crate) use dial_request::DialRequest;
pub(crate) use live::LiveBackend;
pub(crate) use queue::wait_for_slot;
pub(crate) use removal::{RemovalWatch, end_removed, follow_update};
