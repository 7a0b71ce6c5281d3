//! What keeps one client, one host or one careless entry in a table from taking everything: limits of
//! connections and of their rate. Pure: time comes in as an argument.
//!
//! Cores share the counts and never wait for each other: a table is a fixed number of atomics, and
//! every step is one compare-and-swap. Whatever is counted is kept as a keyed hash, eight places to a
//! line of the cache; where all eight are taken by others, what comes is let in and counted as
//! untracked, since a limit that turned away strangers would be worse than none.

mod counts;
mod limits;
mod line;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod rates;

pub(crate) use limits::{ClientLimits, Held, HostLimits, LetIn, LimitSettings, OverLimit};
