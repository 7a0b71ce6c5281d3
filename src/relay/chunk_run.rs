//! How many bytes of a body may be spliced next: data that need not be looked at and, between two
//! chunks, the chunk-size line before the data, which was peeked at but not read. Pure: bytes come in, a
//! count goes out.

use super::pace::LARGE_BYTES;
use crate::http::Framing;

/// How much is peeked at between two chunks: an end of line, as many digits as a chunk size may have,
/// and another end of line. A longer line has a chunk extension and is read.
pub(super) const CHUNK_LINE_BYTES: usize = 20;

/// A chunk-size line, mostly empty, and how many bytes behind it need not be looked at.
pub(super) struct OpaqueRun {
    line: [u8; CHUNK_LINE_BYTES],
    line_bytes: usize,
    opaque_bytes: u64,
}

impl OpaqueRun {
    /// The run that the framing knows of without looking at the next bytes.
    pub(super) fn known(framing: &Framing) -> OpaqueRun {
        OpaqueRun {
            line: [0; CHUNK_LINE_BYTES],
            line_bytes: 0,
            opaque_bytes: framing.opaque_bytes(),
        }
    }

    /// The run that the framing will know of once the next bytes are read, which begin with `peeked`. A
    /// fault in them makes no run; it is found when they are read.
    pub(super) fn behind_line(framing: &Framing, peeked: &[u8]) -> OpaqueRun {
        let mut run = OpaqueRun::known(framing);
        let mut framing = framing.clone();
        for byte in peeked.iter().take(CHUNK_LINE_BYTES) {
            if run.opaque_bytes > 0 || framing.feed(&[*byte]).is_err() {
                break;
            }
            run.line[run.line_bytes] = *byte;
            run.line_bytes += 1;
            run.opaque_bytes = framing.opaque_bytes();
        }
        run
    }

    /// Whether splicing it costs less than copying.
    pub(super) fn is_large(&self) -> bool {
        self.opaque_bytes >= LARGE_BYTES as u64
    }

    /// The length of the run, line included, or `bytes_max` if that is less.
    pub(super) fn bytes_up_to(&self, bytes_max: usize) -> usize {
        let opaque_bytes = self.opaque_bytes.min(bytes_max as u64) as usize;
        bytes_max.min(self.line_bytes + opaque_bytes)
    }

    /// Advances the framing over the first `bytes` of the run, which were spliced.
    pub(super) fn advance(&self, framing: &mut Framing, bytes: usize) {
        let line = &self.line[..bytes.min(self.line_bytes)];
        let fed = framing.feed(line);
        debug_assert!(
            fed.is_ok(),
            "a copy of the framing has accepted these bytes"
        );
        framing.skip((bytes - line.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::Length;

    /// A framing that has read the data of the first chunk.
    fn behind_a_chunk() -> Framing {
        let mut framing = Framing::new(Length::Chunked);
        framing.feed(b"1\r\nx").unwrap();
        framing
    }

    #[test]
    fn the_run_reaches_behind_a_complete_chunk_size_line() {
        let run = |peeked: &[u8]| {
            let run = OpaqueRun::behind_line(&behind_a_chunk(), peeked);
            (run.line_bytes, run.opaque_bytes)
        };
        assert_eq!(run(b"\r\n40000\r\nabcdefghij"), (9, 0x40000));
        assert_eq!(run(b"\r\nFFFFFFFFFFFFFFFF\r\n"), (20, u64::MAX));
        for (no_run, why) in [
            (&b""[..], "nothing was received"),
            (b"\r\n40000\r", "the line is incomplete"),
            (
                b"\r\n40000;a=a+long+extension\r\n",
                "the line has an extension",
            ),
            (b"\r\n0\r\n\r\n", "the chunk is the last"),
            (b"40000\r\n", "the end of line is missing"),
        ] {
            let run = OpaqueRun::behind_line(&behind_a_chunk(), no_run);
            assert!(!run.is_large(), "{why}");
        }
    }

    proptest! {
        /// However the message is moved, it ends where it ends when every byte is read.
        #[test]
        fn the_framing_advances_as_if_it_had_read_what_was_spliced(
            sizes in prop::collection::vec(1usize..100_000, 1..8),
            moves in prop::collection::vec(1usize..90_000, 1..8),
        ) {
            let mut message = b"1\r\nx".to_vec();
            for size in &sizes {
                message.extend(format!("\r\n{size:x}\r\n").bytes());
                message.resize(message.len() + size, b'y');
            }
            message.extend(b"\r\n0\r\n\r\n");
            let mut framing = behind_a_chunk();
            let mut at = 4;
            let mut moves = moves.iter().cycle();
            while !framing.is_done() {
                let run = OpaqueRun::behind_line(&framing, &message[at..]);
                let bytes = run.bytes_up_to(*moves.next().unwrap());
                prop_assert!(bytes > 0);
                run.advance(&mut framing, bytes);
                at += bytes;
            }
            prop_assert_eq!(at, message.len());
        }
    }
}
