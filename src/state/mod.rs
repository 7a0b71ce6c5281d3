//! What one worker holds for all its connections: its table, ring, buffers, pools, counters and the
//! state of its drain. It knows no connection; whoever serves one is handed a [`Local`].

mod connection_budget;
mod drain;
mod failure_log;
mod idle_pool;
mod local;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod pipes;
mod removals;

pub(crate) use connection_budget::ConnectionBudget;
pub(crate) use drain::AskedToEnd;
pub(crate) use idle_pool::Idle;
pub(crate) use local::{Local, LocalParts};
pub(crate) use removals::{RemovalEntry, RemovalSubject};
