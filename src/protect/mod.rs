//! Limits that keep one client or one host from taking everything: of connections, and of new connections
//! per second. Pure: time comes in as an argument.
//!
//! Cores share the tables and never wait for each other: a table is a fixed number of atomics, and every
//! change is one compare-and-swap. A table stores keyed hashes, eight slots to a cache line. When other keys
//! have all eight, a new key is admitted and counted as untracked, since a limit that refused strangers
//! would be worse than none.

mod counts;
mod limits;
mod line;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod rates;

pub(crate) use limits::{Admitted, ClientLimits, HostLimits, LimitSettings, OverLimit, Permit};
