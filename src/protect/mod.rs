//! What keeps one client, one host or one careless entry in a table from taking everything: limits of
//! connections and of their rate, and the networks in which backends may be. Pure: time comes in as
//! an argument.
//!
//! Cores share the counts and never wait for each other: a table is a fixed number of atomics, and
//! every step is one compare-and-swap. Whatever is counted is kept as a keyed hash, eight places to a
//! line of the cache; where all eight are taken by others, what comes is let in and counted as
//! untracked, since a limit that turned away strangers would be worse than none.

mod backends;
mod counts;
mod limits;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod rates;

pub(crate) use backends::{BackendPolicy, Denied};
pub(crate) use limits::{ClientLimits, Held, HostLimits, LetIn, LimitSettings, OverLimit};

use crate::primitives::AtomicU64;

/// A model tries every order of steps: few places, so that it comes to an end.
const IS_MODEL: bool = cfg!(all(test, feature = "model"));

/// Places that one key may have: 64 bytes, one line of the cache, so that looking at all of them
/// costs what looking at one costs.
const WINDOW: usize = if IS_MODEL { 2 } else { 8 };

/// Fewer would be filled by one burst of clients; 32 KiB.
const PLACES_MIN: usize = if IS_MODEL { WINDOW } else { 1 << 12 };

/// One key's line of the table.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Line([AtomicU64; WINDOW]);

/// Places for as many connections, each of them of another client: twice as many at least, of which
/// then fewer than one in a hundred finds its line full.
fn lines(connections_max: usize) -> Box<[Line]> {
    let places = connections_max.saturating_mul(2).max(PLACES_MIN);
    let lines = (places / WINDOW).next_power_of_two();
    std::iter::repeat_with(Line::default).take(lines).collect()
}

/// The line of a hash, out of bits that fingerprints are not made of.
fn line_of(lines: &[Line], hash: u64) -> usize {
    hash as u32 as usize & (lines.len() - 1)
}
