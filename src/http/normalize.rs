//! Chunks of a response as real servers write them, written anew in proper form: blanks behind a size
//! are dropped, and a line that ends with a bare LF gets its CR. What that leaves open is refused as
//! in a request. For a client of HTTP/1.0 the lines are left out and the data goes on alone.

use super::framing::{CHUNK_EXTENSION_BYTES_MAX, Framing, Line, Place};
use crate::refusal::Refusal;

/// How much of a chunked body goes on to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunks {
    Whole,
    /// Their data alone.
    DataOnly,
}

/// What becomes of a byte of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Pass,
    Drop,
    /// It ends a line that has no CR.
    AddCr,
}

impl Framing {
    /// Takes in `bytes` as [`Framing::feed`] does, and writes what goes on of them to `out`.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn mend(
        &mut self,
        bytes: &[u8],
        chunks: Chunks,
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
            if chunks == Chunks::Whole {
                match edit {
                    Edit::Pass => out.push(byte),
                    Edit::Drop => {}
                    Edit::AddCr => out.extend_from_slice(b"\r\n"),
                }
            }
            at += 1;
        }
        Ok(at)
    }

    fn edit(&mut self, byte: u8) -> Result<Edit, Refusal> {
        match (&mut self.0, byte) {
            (Place::Size { size, digits }, b' ' | b'\t') if *digits > 0 => {
                self.0 = Place::Blanks {
                    size: *size,
                    bytes: 1,
                };
                return Ok(Edit::Drop);
            }
            (Place::Blanks { bytes, .. }, b' ' | b'\t') if *bytes < CHUNK_EXTENSION_BYTES_MAX => {
                *bytes += 1;
                return Ok(Edit::Drop);
            }
            (Place::Size { size, digits }, b'\n') if *digits > 0 => {
                self.0 = Place::SizeEnd { size: *size };
            }
            (Place::Blanks { size, .. }, b'\n') => self.0 = Place::SizeEnd { size: *size },
            (Place::Extension { size, bytes }, b'\n') if *bytes > 0 => {
                self.0 = Place::SizeEnd { size: *size };
            }
            (Place::DataCr, b'\n') => self.0 = Place::DataLf,
            (Place::Trailers { line, .. }, b'\n') => match line {
                Line::Begin => *line = Line::LastLf,
                Line::Value => *line = Line::Lf,
                _ => return self.byte(byte).map(|()| Edit::Pass),
            },
            _ => return self.byte(byte).map(|()| Edit::Pass),
        }
        // As if the CR had come.
        self.byte(byte).map(|()| Edit::AddCr)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::fuzz::fuzz_chunks;
    use crate::http::length::Length;

    fn mended(bytes: &[u8]) -> Result<(String, String, bool), Refusal> {
        let of = |chunks| -> Result<(String, bool), Refusal> {
            let mut framing = Framing::new(Length::Chunked);
            let mut out = Vec::new();
            framing.mend(bytes, chunks, &mut out)?;
            Ok((String::from_utf8(out).unwrap(), framing.is_done()))
        };
        let (whole, done) = of(Chunks::Whole)?;
        Ok((whole, of(Chunks::DataOnly)?.0, done))
    }

    #[test]
    fn what_is_clear_is_written_in_proper_form() {
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
            assert_eq!(mended(bytes.as_bytes()), want, "{bytes:?}");
            for end in 0..bytes.len() {
                let (_, _, done) = mended(&bytes.as_bytes()[..end]).expect("a sound prefix");
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
            assert_eq!(mended(bytes.as_bytes()), Err(want), "{bytes:?}");
            fuzz_chunks(bytes.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn nearly_chunked(
            lines in prop::collection::vec(r"[0-9a-c]{0,2}[ \t]{0,2}(;[a=\t ]{0,3})?\r?\n(x{1,5}\r?\n)?", 0..6),
        ) {
            fuzz_chunks(lines.concat().as_bytes());
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_chunks(&data);
        }
    }
}
