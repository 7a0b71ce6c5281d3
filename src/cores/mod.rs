//! The running cores as other threads see them: what can be asked of each, and the sums of what all of
//! them have recorded.

mod ask;
mod collector;
#[cfg(test)]
pub(crate) mod double;

pub(crate) use ask::{ANSWER_TIMEOUT, Cores, ask_all, statuses};
pub(crate) use collector::{Collector, OwnedDump};
