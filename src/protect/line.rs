//! The tables of this module: a fixed number of atomics, in lines of eight.

use crate::primitives::AtomicU64;

/// A model tries every order of steps: few places, so that it comes to an end.
const IS_MODEL: bool = cfg!(all(test, feature = "model"));

/// Places that one key may have: 64 bytes, one line of the cache, so that looking at all of them
/// costs what looking at one costs.
pub(super) const WINDOW: usize = if IS_MODEL { 2 } else { 8 };

/// Fewer would be filled by one burst of clients; 32 KiB.
pub(super) const PLACES_MIN: usize = if IS_MODEL { WINDOW } else { 1 << 12 };

/// One key's line of the table.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(super) struct Line(pub(super) [AtomicU64; WINDOW]);

/// Places for as many connections, each of them of another client: twice as many at least, of which
/// then fewer than one in a hundred finds its line full.
pub(super) fn lines(connections_max: usize) -> Box<[Line]> {
    let places = connections_max.saturating_mul(2).max(PLACES_MIN);
    let lines = (places / WINDOW).next_power_of_two();
    std::iter::repeat_with(Line::default).take(lines).collect()
}

/// The line of a hash, out of bits that fingerprints are not made of.
pub(super) fn line_of(lines: &[Line], hash: u64) -> usize {
    hash as u32 as usize & (lines.len() - 1)
}
