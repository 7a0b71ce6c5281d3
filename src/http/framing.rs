//! Where a body ends (RFC 9112 sections 6 and 7): a state machine over bytes in any cut. It says how many
//! bytes belong to the message, refuses what two readers could read differently, and names the runs of
//! bytes whose content does not matter, which may be spliced.
//!
//! Bytes are forwarded as they came, chunk lines and trailers included: every line has to have one
//! strict form, so that no reader can take it for something else. Responses are read more leniently;
//! see [`Framing::normalize`].

use super::field_lines::is_token;
use super::fields::{FORBIDDEN_TRAILER_BYTES_MAX, is_forbidden_trailer};
use super::length::Length;
use crate::refusal::Refusal;

/// Longest chunk extension in bytes. No known client sends any; the common servers stop between 4 KiB
/// and 16 KiB per line.
pub(super) const CHUNK_EXTENSION_BYTES_MAX: u16 = 1024;
/// Sixteen hexadecimal digits are 64 bits.
const CHUNK_DIGITS_MAX: u8 = 16;
/// All trailer lines of one message in bytes.
const TRAILERS_BYTES_MAX: u16 = 8 * 1024;
/// As much of a trailer's name as is kept: the longest forbidden one, and one byte more to tell a longer
/// name from it.
const NAME_BYTES: usize = FORBIDDEN_TRAILER_BYTES_MAX + 1;

/// How far one body was read.
#[derive(Debug, Clone)]
pub struct Framing(pub(super) State);

/// What the next byte of a body belongs to.
#[derive(Debug, Clone)]
pub(super) enum State {
    Done,
    /// So many bytes are left of a body with Content-Length.
    Counted(u64),
    UntilClose,
    /// The size of a chunk, of which so many digits were read.
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        bytes: u16,
    },
    /// Whitespace behind a size; in responses only.
    SizeWhitespace {
        size: u64,
        bytes: u16,
    },
    /// The LF that ends the line of a size.
    SizeLf {
        size: u64,
    },
    /// So many bytes are left of a chunk's data.
    Data(u64),
    DataCr,
    DataLf,
    Trailers {
        line: TrailerState,
        bytes: u16,
    },
}

/// Which part of a trailer line the next byte belongs to.
#[derive(Debug, Clone)]
pub(super) enum TrailerState {
    Begin,
    Name {
        name: [u8; NAME_BYTES],
        length: u8,
    },
    Value,
    Lf,
    /// The LF of the empty line.
    LastLf,
}

impl Framing {
    pub fn new(length: Length) -> Framing {
        Framing(match length {
            Length::None | Length::Bytes(0) => State::Done,
            Length::Bytes(bytes) => State::Counted(bytes),
            Length::Chunked => State::Size { size: 0, digits: 0 },
            Length::UntilClose => State::UntilClose,
        })
    }

    /// Whether the message has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Whether the message is complete if the sender closes now.
    pub fn ends_with_stream(&self) -> bool {
        matches!(self.0, State::Done | State::UntilClose)
    }

    /// So many of the next bytes belong to the message whatever they are.
    pub fn opaque_bytes(&self) -> u64 {
        match self.0 {
            State::Counted(left) | State::Data(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Accounts for opaque bytes that were moved unseen.
    ///
    /// # Panics
    /// When they are more than [`Framing::opaque_bytes`].
    pub fn skip(&mut self, bytes: u64) {
        assert!(
            bytes <= self.opaque_bytes(),
            "only opaque bytes are skipped"
        );
        match &mut self.0 {
            State::Counted(left) | State::Data(left) => *left -= bytes,
            _ => {}
        }
        match self.0 {
            State::Counted(0) => self.0 = State::Done,
            State::Data(0) => self.0 = State::DataCr,
            _ => {}
        }
    }

    /// How many of `bytes` belong to the message; fewer than all only when it has ended with them.
    ///
    /// # Errors
    /// The rule that the body breaks. Afterwards nothing may be fed any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let opaque = self.opaque_bytes();
            if opaque > 0 {
                let run = opaque.min((bytes.len() - at) as u64);
                self.skip(run);
                at += run as usize;
            } else {
                self.feed_byte(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Reads a byte that is not opaque.
    pub(super) fn feed_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.0 = match std::mem::replace(&mut self.0, State::Done) {
            State::Size { size, digits } => match (char::from(byte).to_digit(16), byte) {
                (Some(_), _) if digits == CHUNK_DIGITS_MAX => return Err(Refusal::ChunkOverflow),
                (Some(digit), _) => State::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                },
                (None, b';') if digits > 0 => State::Extension { size, bytes: 0 },
                (None, b'\r') if digits > 0 => State::SizeLf { size },
                _ => return Err(Refusal::ChunkSize),
            },
            State::Extension { size, bytes } => match byte {
                b'\r' if bytes > 0 => State::SizeLf { size },
                b'\t' | b' '..=b'~' if bytes < CHUNK_EXTENSION_BYTES_MAX => State::Extension {
                    size,
                    bytes: bytes + 1,
                },
                _ => return Err(Refusal::ChunkExtension),
            },
            State::SizeWhitespace { size, .. } => match byte {
                b';' => State::Extension { size, bytes: 0 },
                b'\r' => State::SizeLf { size },
                _ => return Err(Refusal::ChunkSize),
            },
            State::SizeLf { size } => match (byte, size) {
                (b'\n', 0) => State::Trailers {
                    line: TrailerState::Begin,
                    bytes: 0,
                },
                (b'\n', _) => State::Data(size),
                _ => return Err(Refusal::ChunkSize),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::Size { size: 0, digits: 0 },
            State::DataCr | State::DataLf => return Err(Refusal::ChunkEnd),
            State::Trailers {
                line: TrailerState::LastLf,
                ..
            } if byte == b'\n' => State::Done,
            State::Trailers { bytes, .. } if bytes == TRAILERS_BYTES_MAX => {
                return Err(Refusal::TrailersTooLarge);
            }
            State::Trailers { line, bytes } => State::Trailers {
                line: trailer(line, byte)?,
                bytes: bytes + 1,
            },
            State::Done | State::Counted(_) | State::UntilClose | State::Data(_) => {
                unreachable!("opaque bytes are skipped")
            }
        };
        Ok(())
    }
}

fn trailer(line: TrailerState, byte: u8) -> Result<TrailerState, Refusal> {
    Ok(match line {
        TrailerState::Begin if byte == b'\r' => TrailerState::LastLf,
        TrailerState::Begin if is_token(byte) => {
            let mut name = [0; NAME_BYTES];
            name[0] = byte.to_ascii_lowercase();
            TrailerState::Name { name, length: 1 }
        }
        TrailerState::Name { name, length } if byte == b':' => {
            if is_forbidden_trailer(&name[..usize::from(length)]) {
                return Err(Refusal::Trailer);
            }
            TrailerState::Value
        }
        TrailerState::Name { mut name, length } if is_token(byte) => {
            let at = usize::from(length).min(NAME_BYTES - 1);
            name[at] = byte.to_ascii_lowercase();
            TrailerState::Name {
                name,
                length: at as u8 + 1,
            }
        }
        TrailerState::Value if byte == b'\r' => TrailerState::Lf,
        TrailerState::Value if !byte.is_ascii_control() || byte == b'\t' => TrailerState::Value,
        TrailerState::Lf if byte == b'\n' => TrailerState::Begin,
        _ => return Err(Refusal::Trailer),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::fuzz::{feed_in_pieces, fuzz_chunks};

    /// How much of the bytes is the body, when it ends within them.
    fn end_of(length: Length, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let mut framing = Framing::new(length);
        let used = framing.feed(bytes)?;
        Ok(framing.is_done().then_some(used))
    }

    #[test]
    fn bodies_end_where_they_say() {
        for (length, bytes, end) in [
            (Length::None, &b"next"[..], Some(0)),
            (Length::Bytes(0), b"next", Some(0)),
            (Length::Bytes(4), b"bodynext", Some(4)),
            (Length::Bytes(4), b"bod", None),
            (Length::UntilClose, b"anything", None),
            (Length::Chunked, b"0\r\n\r\nnext", Some(5)),
            (Length::Chunked, b"4\r\nbody\r\n0\r\n\r\nnext", Some(14)),
            (Length::Chunked, b"00Fa;x=\"y\"\r\n", None),
            (
                Length::Chunked,
                b"1;a\r\nx\r\n0;b\r\nX: y\r\nZ:\r\n\r\nn",
                Some(25),
            ),
        ] {
            assert_eq!(end_of(length, bytes), Ok(end), "{}", bytes.escape_ascii());
        }
        assert!(Framing::new(Length::UntilClose).ends_with_stream());
        assert!(!Framing::new(Length::Chunked).ends_with_stream());
        assert!(!Framing::new(Length::Bytes(1)).ends_with_stream());
    }

    #[test]
    fn what_is_no_chunk_is_refused_by_name() {
        let long_extension = format!("1;{}\r\n", "x".repeat(1025));
        let long_trailers = format!("0\r\nX: {}\r\n\r\n", "x".repeat(8192));
        for (bytes, want) in [
            ("\r\n", Refusal::ChunkSize),
            (";x\r\n", Refusal::ChunkSize),
            ("x\r\n", Refusal::ChunkSize),
            ("0x5\r\n", Refusal::ChunkSize),
            ("+5\r\n", Refusal::ChunkSize),
            ("-5\r\n", Refusal::ChunkSize),
            (" 5\r\n", Refusal::ChunkSize),
            ("5 \r\n", Refusal::ChunkSize),
            ("5\n", Refusal::ChunkSize),
            ("5\r\r\n", Refusal::ChunkSize),
            ("5_0\r\n", Refusal::ChunkSize),
            ("00000000000000000\r\n", Refusal::ChunkOverflow),
            ("10000000000000000\r\n", Refusal::ChunkOverflow),
            ("5;a\nb\r\n", Refusal::ChunkExtension),
            ("5;\0\r\n", Refusal::ChunkExtension),
            ("5;\r\n", Refusal::ChunkExtension),
            ("5;\u{e9}\r\n", Refusal::ChunkExtension),
            (long_extension.as_str(), Refusal::ChunkExtension),
            ("1\r\nxx\r\n", Refusal::ChunkEnd),
            ("1\r\nx\n", Refusal::ChunkEnd),
            ("1\r\nx\r0", Refusal::ChunkEnd),
            ("0\r\nX\r\n\r\n", Refusal::Trailer),
            ("0\r\n x: y\r\n\r\n", Refusal::Trailer),
            ("0\r\nX : y\r\n\r\n", Refusal::Trailer),
            ("0\r\nX: \0\r\n\r\n", Refusal::Trailer),
            ("0\r\nX: y\n\r\n", Refusal::Trailer),
            ("0\r\n\rX", Refusal::Trailer),
            ("0\r\n\nX", Refusal::Trailer),
            ("0\r\nContent-Length: 5\r\n\r\n", Refusal::Trailer),
            ("0\r\nTRANSFER-ENCODING: chunked\r\n\r\n", Refusal::Trailer),
            ("0\r\nHost: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nX: y\r\nX-Forwarded-For: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nx-forwarded-client-cert: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nX.Forwarded_Proto: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nX-Real-IP: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nX_Real-IP: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nForwarded: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nAuthorization: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nProxy-Authorization: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nCOOKIE: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nExpect: b\r\n\r\n", Refusal::Trailer),
            ("0\r\nMax-Forwards: 1\r\n\r\n", Refusal::Trailer),
            ("0\r\nRange: bytes=1-\r\n\r\n", Refusal::Trailer),
            (long_trailers.as_str(), Refusal::TrailersTooLarge),
        ] {
            assert_eq!(
                end_of(Length::Chunked, bytes.as_bytes()),
                Err(want),
                "{bytes:?}"
            );
        }
        let longer_name = b"0\r\nTransfer-Encodings: x\r\nHosts: y\r\nProxy-Authorizations: z\r\n\
         X-Forward: f\r\nDigest: d\r\n\r\n";
        assert_eq!(
            end_of(Length::Chunked, longer_name),
            Ok(Some(longer_name.len()))
        );
    }

    #[test]
    fn every_prefix_of_a_sound_body_is_sound() {
        let body = b"5;e=\"1\"\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\n\r\n";
        for end in 0..body.len() {
            assert_eq!(end_of(Length::Chunked, &body[..end]), Ok(None));
        }
        assert_eq!(end_of(Length::Chunked, body), Ok(Some(body.len())));
    }

    proptest! {
        #[test]
        fn chunked_bodies_are_found_whole(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..8),
            behind in prop::collection::vec(any::<u8>(), 0..20),
            stride in 1usize..90,
            skips in any::<bool>(),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(behind);
            let mut framing = Framing::new(Length::Chunked);
            prop_assert_eq!(feed_in_pieces(&mut framing, &body, stride, skips), Ok(length));
            prop_assert!(framing.is_done());
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_chunks(&data);
        }

        #[test]
        fn nearly_chunks(data in "(([0-9a-f]{1,2}(;[a-z]{0,3})?\r?\n)|[a-z\r\n]{0,9}|0\r\n|\r\n){0,9}") {
            fuzz_chunks(data.as_bytes());
        }
    }
}
