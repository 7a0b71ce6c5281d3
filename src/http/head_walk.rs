//! Finds the end of a request head and checks its first line.
//!
//! The walk looks at each byte once. It checks the method and the target byte by byte as they arrive, so
//! that noise is refused at once and not when a deadline ends; then it looks for the empty line.

use super::field_lines::{is_token, trim_line_end};
use super::request_line::RequestLine;
use crate::refusal::Refusal;

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// How far one head was walked. It keeps positions only, never bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadWalk {
    /// Bytes walked over.
    at: u32,
    /// Where the current header line begins.
    line: u32,
    /// Where the request line begins: behind the empty lines that may precede it (RFC 9112
    /// section 2.2).
    request_line: u32,
    /// Where the first header line begins.
    fields: u32,
    part: Part,
}

/// What the byte at [`HeadWalk::at`] belongs to.
#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    EmptyLines,
    Method,
    /// The request line behind the method.
    Target,
    Fields,
    /// Behind the empty line.
    End,
}

/// What a step of the walk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The current part has ended.
    NextPart,
    /// All bytes that arrived were walked over.
    NeedsMore,
}

/// The parts of a complete head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeadParts<'b> {
    /// Without its line end.
    pub request_line: &'b [u8],
    /// The header lines and the empty line.
    pub fields: &'b [u8],
    /// Of the whole head, leading empty lines included.
    pub bytes: usize,
}

impl HeadWalk {
    /// The head's parts, once its empty line has arrived. `within` is what was received, cut at the
    /// limit: what the last call got, and more behind it. Nothing moves on a refusal, so that asking
    /// again gives the same one.
    pub(super) fn advance<'b>(
        &mut self,
        within: &'b [u8],
    ) -> Result<Option<HeadParts<'b>>, Refusal> {
        loop {
            let progress = match self.part {
                Part::EmptyLines => self.walk_empty_lines(within)?,
                Part::Method => self.walk_method(within)?,
                Part::Target => self.walk_target(within)?,
                Part::Fields => self.walk_fields(within),
                Part::End => {
                    let (fields, end) = (self.fields as usize, self.at as usize);
                    return Ok(Some(HeadParts {
                        request_line: trim_line_end(&within[self.request_line as usize..fields]),
                        fields: &within[fields..end],
                        bytes: end,
                    }));
                }
            };
            if progress == Progress::NeedsMore {
                return Ok(None);
            }
        }
    }

    fn walk_empty_lines(&mut self, within: &[u8]) -> Result<Progress, Refusal> {
        loop {
            match within[self.at as usize..] {
                [] | [b'\r'] => return Ok(Progress::NeedsMore),
                [b'\n', ..] => self.at += 1,
                [b'\r', b'\n', ..] => self.at += 2,
                [TLS_HANDSHAKE, ..] => return Err(Refusal::TlsOnHttpPort),
                _ => break,
            }
        }
        self.request_line = self.at;
        self.part = Part::Method;
        Ok(Progress::NextPart)
    }

    fn walk_method(&mut self, within: &[u8]) -> Result<Progress, Refusal> {
        while let Some(byte) = within.get(self.at as usize) {
            match byte {
                b' ' if self.at > self.request_line => {
                    self.part = Part::Target;
                    return Ok(Progress::NextPart);
                }
                _ if is_token(*byte) => self.at += 1,
                _ => return Err(Refusal::NotHttp),
            }
        }
        Ok(Progress::NeedsMore)
    }

    fn walk_target(&mut self, within: &[u8]) -> Result<Progress, Refusal> {
        loop {
            let line_end_bytes = match within[self.at as usize..] {
                [] | [b'\r'] => return Ok(Progress::NeedsMore),
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                [b'\r', ..] => return Err(Refusal::BareCr),
                [0, ..] => return Err(Refusal::NulByte),
                [byte, ..] if byte.is_ascii_control() => return Err(Refusal::RequestLine),
                _ => 0,
            };
            if line_end_bytes > 0 {
                RequestLine::parse(&within[self.request_line as usize..self.at as usize])?;
                self.at += line_end_bytes;
                self.fields = self.at;
                self.line = self.at;
                self.part = Part::Fields;
                return Ok(Progress::NextPart);
            }
            self.at += 1;
        }
    }

    fn walk_fields(&mut self, within: &[u8]) -> Progress {
        loop {
            let rest = &within[self.at as usize..];
            let Some(distance) = rest.iter().position(|byte| *byte == b'\n') else {
                self.at += rest.len() as u32;
                return Progress::NeedsMore;
            };
            let line_end = self.at as usize + distance;
            let is_empty = matches!(within[self.line as usize..line_end], [] | [b'\r']);
            self.at += distance as u32 + 1;
            self.line = self.at;
            if is_empty {
                self.part = Part::End;
                return Progress::NextPart;
            }
        }
    }
}
