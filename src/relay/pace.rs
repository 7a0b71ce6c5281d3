//! Decides whether a direction copies or splices. Pure: the sizes of reads come in, a mode goes out.
//!
//! Splicing a small message costs up to twice as much as copying it (two system calls, and bookkeeping
//! of the pipe in each); copying bulk costs three times as much as splicing it. So a direction starts by
//! copying, changes to splicing when its reads stay large, and changes back when they become small.

/// A read of at least this many bytes is bulk. Half of the copy buffer; one request, response head or
/// TLS record is smaller.
pub(crate) const LARGE_BYTES: usize = 32 * 1024;
/// A read of less than this is no longer bulk. Lower than [`LARGE_BYTES`], so that a stream whose pieces
/// vary around one size does not change its mode all the time.
const SMALL_BYTES: usize = 16 * 1024;
/// As many reads in a row have to favour the other mode before it is taken.
const IN_A_ROW: u8 = 3;
/// After as many short fills of a pipe in a row, a stream counts as slower than the worker. A stream that
/// keeps up with the worker has a short fill only now and then.
const SHORT_IN_A_ROW: u8 = 3;

/// How a direction moves its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Copy,
    Splice,
}

/// What the recent reads of one direction were like.
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

    /// Notes the size of one read that found data.
    pub(crate) fn read(&mut self, bytes: usize) {
        let (favours_change, other) = match self.mode {
            Mode::Copy => (bytes >= LARGE_BYTES, Mode::Splice),
            Mode::Splice => (bytes < SMALL_BYTES, Mode::Copy),
        };
        if !favours_change {
            self.in_a_row = 0;
            return;
        }
        self.in_a_row += 1;
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.mode = other;
        }
    }

    /// Notes the size of one fill of a pipe, and whether it was short.
    pub(crate) fn filled(&mut self, bytes: usize, is_short: bool) {
        self.short_in_a_row = if is_short {
            self.short_in_a_row.saturating_add(1)
        } else {
            0
        };
        self.read(bytes);
    }

    /// Whether the stream is slower than the worker. Then it costs less to move its bytes more rarely and
    /// more of them at a time.
    pub(crate) fn is_slow(self) -> bool {
        self.short_in_a_row >= SHORT_IN_A_ROW
    }

    /// Notes that no pipe could be had: the direction copies, and asks for a pipe again after
    /// [`IN_A_ROW`] large reads.
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
    fn splices_bulk_and_copies_again_when_reads_become_small() {
        assert_eq!(after(&[65536, 65536]), Mode::Copy);
        assert_eq!(after(&[65536, 65536, 65536]), Mode::Splice);
        assert_eq!(after(&[65536, 65536, 100, 65536, 65536]), Mode::Copy);
        assert_eq!(after(&[65536, 65536, 65536, 100, 100]), Mode::Splice);
        assert_eq!(after(&[65536, 65536, 65536, 100, 100, 100]), Mode::Copy);
    }

    #[test]
    fn a_stream_with_short_fills_in_a_row_is_slow() {
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
