//! Fuzz entry for hellos.

use super::ja4::ja4;
use super::sniffer::{Sniff, Sniffer};

/// Asserts that the verdict does not depend on how the bytes were cut, that it stays, and that the
/// limit holds: for the default limit, a small one, and one that these bytes just reach.
#[doc(hidden)]
pub fn fuzz_hello(data: &[u8]) {
    // Whatever it finds, it must not panic.
    let _ = ja4(data);
    for bytes_max in [65_536, 64, data.len()] {
        let whole = Sniffer::new(bytes_max).advance(data);
        assert!(
            whole != Sniff::More || data.len() < bytes_max,
            "more is asked for at the limit"
        );
        // Strides that do not fit any record, byte by byte among them.
        for stride in [1, 7, 1 + data.len() / 3] {
            let mut sniffer = Sniffer::new(bytes_max);
            let mut verdict = sniffer.advance(&[]);
            for end in (0..data.len()).step_by(stride).chain([data.len()]) {
                let next = sniffer.advance(&data[..end]);
                assert!(
                    verdict == Sniff::More || verdict == next,
                    "the verdict changed from {verdict:?} to {next:?} at {end} bytes"
                );
                verdict = next;
            }
            assert_eq!(verdict, whole, "cut into pieces of {stride} bytes");
        }
    }
}
