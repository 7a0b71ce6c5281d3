//! Copy or splice? The decision half of the relay, pure: sizes come in, a mode goes out.
//!
//! Splicing a small message costs up to twice a copy (two system calls and pipe bookkeeping for
//! each), copying bulk costs three times a splice. So a direction starts by copying, goes over
//! when its reads stay large, and comes back when they turn small.

/// A read of at least this many bytes is bulk: half of the copy buffer, above what one
/// request, response head or record amounts to.
pub(crate) const LARGE_BYTES: usize = 32 * 1024;
/// A read below this is no longer bulk. Lower than [`LARGE_BYTES`] so that a stream whose pieces
/// hover around one size does not flap.
const SMALL_BYTES: usize = 16 * 1024;
/// As many reads in a row make the direction change over.
const IN_A_ROW: u8 = 3;
/// After so many fills of a pipe that fell short a stream is taken for one that is slower than the
/// core. One that is as fast falls short now and then.
const SHORT_IN_A_ROW: u8 = 3;

/// How a direction moves its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Copy,
    Splice,
}

/// The recent reads of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    mode: Mode,
    in_a_row: u8,
    short_in_a_row: u8,
}

impl Pace {
    pub(crate) const fn new() -> Pace {
        Pace {
            mode: Mode::Copy,
            in_a_row: 0,
            short_in_a_row: 0,
        }
    }

    pub(crate) fn mode(self) -> Mode {
        self.mode
    }

    /// Takes in the size of one read that found data.
    pub(crate) fn read(&mut self, bytes: usize) {
        let speaks_for_change = match self.mode {
            Mode::Copy => bytes >= LARGE_BYTES,
            Mode::Splice => bytes < SMALL_BYTES,
        };
        if !speaks_for_change {
            self.in_a_row = 0;
            return;
        }
        self.in_a_row += 1;
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.mode = match self.mode {
                Mode::Copy => Mode::Splice,
                Mode::Splice => Mode::Copy,
            };
        }
    }

    /// Takes in the size of one fill of a pipe, and whether there was little.
    pub(crate) fn filled(&mut self, bytes: usize, is_short: bool) {
        self.short_in_a_row = match is_short {
            true => self.short_in_a_row.saturating_add(1),
            false => 0,
        };
        self.read(bytes);
    }

    /// Whether the stream is slower than the core, so that it is cheaper moved more rarely.
    pub(crate) fn is_slow(self) -> bool {
        self.short_in_a_row >= SHORT_IN_A_ROW
    }

    /// No pipe could be had: copy on, and ask again after as many large reads.
    pub(crate) fn no_pipe(&mut self) {
        *self = Pace::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(reads: &[usize]) -> Mode {
        let mut pace = Pace::new();
        reads.iter().for_each(|bytes| pace.read(*bytes));
        pace.mode()
    }

    #[test]
    fn goes_over_in_bulk_and_comes_back_when_small() {
        assert_eq!(after(&[65536, 65536]), Mode::Copy);
        assert_eq!(after(&[65536, 65536, 65536]), Mode::Splice);
        assert_eq!(after(&[65536, 65536, 100, 65536, 65536]), Mode::Copy);
        assert_eq!(after(&[65536, 65536, 65536, 100, 100]), Mode::Splice);
        assert_eq!(after(&[65536, 65536, 65536, 100, 100, 100]), Mode::Copy);
    }

    #[test]
    fn a_stream_that_falls_short_again_and_again_is_slow() {
        let mut pace = Pace::new();
        let mut fill = |is_short| {
            pace.filled(LARGE_BYTES, is_short);
            pace.is_slow()
        };
        assert_eq!([true, true, false, true, true].map(&mut fill), [false; 5]);
        assert_eq!([true, true, false].map(fill), [true, true, false]);
    }

    proptest! {
        #[test]
        fn small_messages_never_splice(reads in prop::collection::vec(1usize..LARGE_BYTES, 0..200)) {
            prop_assert_eq!(after(&reads), Mode::Copy);
        }

        #[test]
        fn bulk_stays_spliced(reads in prop::collection::vec(SMALL_BYTES..1 << 20, 0..200)) {
            let mut bulk = vec![LARGE_BYTES; usize::from(IN_A_ROW)];
            bulk.extend(reads);
            prop_assert_eq!(after(&bulk), Mode::Splice);
        }

        #[test]
        fn changes_only_after_enough_reads_in_a_row(
            reads in prop::collection::vec(1usize..1 << 18, 1..200)
        ) {
            let mut pace = Pace::new();
            let mut since_change = 0;
            for bytes in reads {
                let before = pace.mode();
                pace.read(bytes);
                since_change += 1;
                if pace.mode() != before {
                    prop_assert!(since_change >= u32::from(IN_A_ROW));
                    since_change = 0;
                }
            }
        }
    }
}
