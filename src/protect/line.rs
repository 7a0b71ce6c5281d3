//! The memory of both tables of this module: lines of eight atomics.

use crate::primitives::AtomicU64;

/// A model tries every order of steps. It has few slots, so that it ends.
const IS_MODEL: bool = cfg!(all(test, feature = "model"));

/// Slots in a line. A key may use any slot of its line. Eight are 64 bytes, one cache line, so that looking
/// at all of them costs as much as looking at one.
pub(super) const WINDOW: usize = if IS_MODEL { 2 } else { 8 };

/// 32 KiB. One burst of clients could fill fewer slots.
pub(super) const SLOTS_MIN: usize = if IS_MODEL { WINDOW } else { 1 << 12 };

/// The slots of the keys whose hash leads here.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(super) struct Line(pub(super) [AtomicU64; WINDOW]);

/// A table for so many connections, each of another client. It has at least twice as many slots, so that
/// fewer than one in a hundred clients finds its line full.
pub(super) fn lines(connections_max: usize) -> Box<[Line]> {
    let slots = connections_max.saturating_mul(2).max(SLOTS_MIN);
    let lines = (slots / WINDOW).next_power_of_two();
    std::iter::repeat_with(Line::default).take(lines).collect()
}

/// The line of a hash, by bits that are not part of fingerprints.
pub(super) fn line_of(lines: &[Line], hash: u64) -> usize {
    hash as u32 as usize & (lines.len() - 1)
}
