//! Chunks of a response as real servers write them, normalized: whitespace behind a size is dropped, and
//! a line that ends with a bare LF gets its CR. Everything else that breaks a rule is refused as in a
//! request. For a client of HTTP/1.0, which does not know chunks, only their data is passed on.

use super::framing::{CHUNK_EXTENSION_BYTES_MAX, Framing, State, TrailerState};
use crate::refusal::Refusal;

/// What a client gets of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkedOutput {
    /// The chunks.
    Chunked,
    /// Only their data.
    Decoded,
}

/// What becomes of a byte outside the data of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Drop,
    /// The byte is an LF that ends a line without a CR.
    InsertCr,
}

impl Framing {
    /// Reads `bytes` as [`Framing::feed`] does, and writes them normalized to `out`.
    ///
    /// # Errors
    /// As [`Framing::feed`].
    pub(crate) fn normalize(
        &mut self,
        bytes: &[u8],
        output: ChunkedOutput,
        out: &mut Vec<u8>,
    ) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let opaque = self.opaque_bytes();
            if opaque > 0 {
                let run = opaque.min((bytes.len() - at) as u64);
                self.skip(run);
                out.extend_from_slice(&bytes[at..at + run as usize]);
                at += run as usize;
                continue;
            }
            let byte = bytes[at];
            let edit = self.edit(byte)?;
            if output == ChunkedOutput::Chunked {
                match edit {
                    Edit::Keep => out.push(byte),
                    Edit::Drop => {}
                    Edit::InsertCr => out.extend_from_slice(b"\r\n"),
                }
            }
            at += 1;
        }
        Ok(at)
    }

    fn edit(&mut self, byte: u8) -> Result<Edit, Refusal> {
        match (&mut self.0, byte) {
            (State::Size { size, digits }, b' ' | b'\t') if *digits > 0 => {
                self.0 = State::SizeWhitespace {
                    size: *size,
                    bytes: 1,
                };
                return Ok(Edit::Drop);
            }
            (State::SizeWhitespace { bytes, .. }, b' ' | b'\t')
                if *bytes < CHUNK_EXTENSION_BYTES_MAX =>
            {
                *bytes += 1;
                return Ok(Edit::Drop);
            }
            (State::Size { size, digits }, b'\n') if *digits > 0 => {
                self.0 = State::SizeLf { size: *size };
            }
            (State::SizeWhitespace { size, .. }, b'\n') => self.0 = State::SizeLf { size: *size },
            (State::Extension { size, bytes }, b'\n') if *bytes > 0 => {
                self.0 = State::SizeLf { size: *size };
            }
            (State::DataCr, b'\n') => self.0 = State::DataLf,
            (State::Trailers { line, .. }, b'\n') => match line {
                TrailerState::Begin => *line = TrailerState::LastLf,
                TrailerState::Value => *line = TrailerState::Lf,
                _ => return self.feed_byte(byte).map(|()| Edit::Keep),
            },
            _ => return self.feed_byte(byte).map(|()| Edit::Keep),
        }
        // The state is now what it would be had the CR come.
        self.feed_byte(byte).map(|()| Edit::InsertCr)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::fuzz::fuzz_chunks;
    use crate::http::length::Length;

    fn normalized(bytes: &[u8]) -> Result<(String, String, bool), Refusal> {
        let of = |output| -> Result<(String, bool), Refusal> {
            let mut framing = Framing::new(Length::Chunked);
            let mut out = Vec::new();
            framing.normalize(bytes, output, &mut out)?;
            Ok((String::from_utf8(out).unwrap(), framing.is_done()))
        };
        let (whole, done) = of(ChunkedOutput::Chunked)?;
        Ok((whole, of(ChunkedOutput::Decoded)?.0, done))
    }

    #[test]
    fn what_is_unambiguous_is_normalized() {
        for (bytes, whole, data) in [
            (
                "5  \r\nhello\r\n0\r\n\r\n",
                "5\r\nhello\r\n0\r\n\r\n",
                "hello",
            ),
            (
                "5\t ;a=b\r\nhello\r\n0 \r\n\r\n",
                "5;a=b\r\nhello\r\n0\r\n\r\n",
                "hello",
            ),
            ("5\nhello\n0\n\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "1;a\nx\r\n0\nA: b\nC:\r\n\n",
                "1;a\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n",
                "x",
            ),
            ("1 \nx\n0 \n\r\n", "1\r\nx\r\n0\r\n\r\n", "x"),
        ] {
            let want = Ok((whole.to_owned(), data.to_owned(), true));
            assert_eq!(normalized(bytes.as_bytes()), want, "{bytes:?}");
            for end in 0..bytes.len() {
                let (_, _, done) = normalized(&bytes.as_bytes()[..end]).expect("a sound prefix");
                assert!(!done, "{bytes:?} up to {end}");
                fuzz_chunks(&bytes.as_bytes()[..end]);
            }
        }
    }

    #[test]
    fn what_is_ambiguous_stays_refused() {
        let blanks = format!("5{}\r\n", " ".repeat(1025));
        for (bytes, want) in [
            (" 5\r\n", Refusal::ChunkSize),
            ("\n", Refusal::ChunkSize),
            ("5 5\r\n", Refusal::ChunkSize),
            ("5 \rx", Refusal::ChunkSize),
            ("5\r\r\n", Refusal::ChunkSize),
            (&blanks, Refusal::ChunkSize),
            ("0x5\r\n", Refusal::ChunkSize),
            ("5;\n", Refusal::ChunkExtension),
            ("10000000000000000\n", Refusal::ChunkOverflow),
            ("1\nxx\n", Refusal::ChunkEnd),
            ("1\nx 0", Refusal::ChunkEnd),
            ("0\nX\n", Refusal::Trailer),
            ("0\n X: y\n", Refusal::Trailer),
            ("0\nContent-Length: 5\n", Refusal::Trailer),
        ] {
            assert_eq!(normalized(bytes.as_bytes()), Err(want), "{bytes:?}");
            fuzz_chunks(bytes.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn nearly_chunked(
            lines in prop::collection::vec(
                r"[0-9a-c]{0,2}[ \t]{0,2}(;[a=\t ]{0,3})?\r?\n(x{1,5}\r?\n)?",
                0..6,
            ),
        ) {
            fuzz_chunks(lines.concat().as_bytes());
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_chunks(&data);
        }
    }
}
