//! What may be spliced next of a body: bytes that need not be seen, and between two chunks the line
//! before them, looked at but not yet read. Pure: bytes come in, a count goes out.

use super::pace::LARGE_BYTES;
use crate::http::Framing;

/// What is looked at between two chunks: an end of line, as many digits as there may be, and another
/// end. A longer line has a long extension, and is read.
pub(super) const LINE_BYTES: usize = 20;

/// A line, often none, and how many bytes behind it need not be seen.
pub(super) struct Run {
    line: [u8; LINE_BYTES],
    line_bytes: usize,
    opaque: u64,
}

impl Run {
    /// What the framing knows by itself.
    pub(super) fn known(framing: &Framing) -> Run {
        Run {
            line: [0; LINE_BYTES],
            line_bytes: 0,
            opaque: framing.opaque_bytes(),
        }
    }

    /// What the framing will know once the next bytes are read, which begin with `seen`. What is wrong
    /// with them is found when they are.
    pub(super) fn behind(framing: &Framing, seen: &[u8]) -> Run {
        let mut run = Run::known(framing);
        let mut framing = framing.clone();
        for byte in seen.iter().take(LINE_BYTES) {
            if run.opaque > 0 || framing.feed(&[*byte]).is_err() {
                break;
            }
            run.line[run.line_bytes] = *byte;
            run.line_bytes += 1;
            run.opaque = framing.opaque_bytes();
        }
        run
    }

    /// Whether splicing pays.
    pub(super) fn is_large(&self) -> bool {
        self.opaque >= LARGE_BYTES as u64
    }

    /// Its length, `most` if it is longer.
    pub(super) fn bytes_up_to(&self, most: usize) -> usize {
        let opaque = self.opaque.min(most as u64) as usize;
        most.min(self.line_bytes + opaque)
    }

    /// The framing takes note that its first `bytes` were moved.
    pub(super) fn pass(&self, framing: &mut Framing, bytes: usize) {
        let line = &self.line[..bytes.min(self.line_bytes)];
        let fed = framing.feed(line);
        debug_assert!(fed.is_ok(), "it was fed to a copy before");
        framing.skip((bytes - line.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::Length;

    /// A framing that stands behind the data of its first chunk.
    fn behind_a_chunk() -> Framing {
        let mut framing = Framing::new(Length::Chunked);
        framing.feed(b"1\r\nx").unwrap();
        framing
    }

    #[test]
    fn a_line_is_seen_through_to_the_chunk_behind_it() {
        let run = |seen: &[u8]| {
            let run = Run::behind(&behind_a_chunk(), seen);
            (run.line_bytes, run.opaque)
        };
        assert_eq!(run(b"\r\n40000\r\nabcdefghij"), (9, 0x40000));
        assert_eq!(run(b"\r\nFFFFFFFFFFFFFFFF\r\n"), (20, u64::MAX));
        for (no_run, why) in [
            (&b""[..], "nothing is there"),
            (b"\r\n40000\r", "the line is not whole"),
            (b"\r\n40000;a=a+long+extension\r\n", "it has an extension"),
            (b"\r\n0\r\n\r\n", "it is the last"),
            (b"40000\r\n", "it is wrong"),
        ] {
            let run = Run::behind(&behind_a_chunk(), no_run);
            assert!(!run.is_large(), "{why}");
        }
    }

    proptest! {
        /// However it is moved, the message ends where it ends when every byte is read.
        #[test]
        fn the_framing_is_as_if_it_had_read_what_was_moved(
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
                let run = Run::behind(&framing, &message[at..]);
                let bytes = run.bytes_up_to(*moves.next().unwrap());
                prop_assert!(bytes > 0);
                run.pass(&mut framing, bytes);
                at += bytes;
            }
            prop_assert_eq!(at, message.len());
        }
    }
}
