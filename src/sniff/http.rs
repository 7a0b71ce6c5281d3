//! Finds the end of an HTTP/1 request head and the name in it.
//!
//! The walk looks at each byte once: at the request line byte by byte, so that noise is refused
//! before a deadline is, then for the empty line. When that is there the header lines are parsed,
//! once, by `httparse` with none of its leniencies. Where RFC 9112 lets a recipient choose, a head
//! that two readers may read differently is refused.

use std::ops::Range;

use super::request_line::{RequestLine, parse_authority};
use super::{Head, Step};
use crate::host::Host;
use crate::refusal::Refusal;

/// Most header lines looked at: browsers send about 20, the common servers stop between 100
/// (Apache, HAProxy) and 2,000 (Node), and the array for these is 8 KiB of stack.
pub(crate) const HEADERS_MAX: usize = 256;

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// How far the head was walked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Walk {
    /// Bytes walked over.
    at: u32,
    /// Where the current header line begins.
    line: u32,
    /// Where the request line begins: behind the empty lines that may precede it (RFC 9112
    /// section 2.2).
    request: u32,
    /// Where the first header line begins.
    headers: u32,
    place: Place,
}

/// What the byte at [`Walk::at`] belongs to.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    EmptyLines,
    Method,
    /// The request line behind the method.
    Target,
    Headers,
    /// Behind the empty line.
    End,
}

impl Walk {
    pub(super) fn advance(&mut self, within: &[u8]) -> Step {
        match self.walk_to_end(within)? {
            Some(span) => self.parse(within, &span).map(Some),
            None => Ok(None),
        }
    }

    /// Where the head's parts are, once its empty line has come. `within` is what was received, cut
    /// at the limit. Nothing moves on a refusal, so that asking again gives the same one.
    pub(crate) fn walk_to_end(&mut self, within: &[u8]) -> Result<Option<Span>, Refusal> {
        loop {
            let more = match self.place {
                Place::EmptyLines => self.walk_empty_lines(within)?,
                Place::Method => self.walk_method(within)?,
                Place::Target => self.walk_target(within)?,
                Place::Headers => self.walk_headers(within),
                Place::End => {
                    return Ok(Some(Span {
                        line: self.request as usize..self.headers as usize,
                        fields: self.headers as usize..self.at as usize,
                    }));
                }
            };
            if more {
                return Ok(None);
            }
        }
    }

    fn walk_empty_lines(&mut self, within: &[u8]) -> Result<bool, Refusal> {
        loop {
            match within[self.at as usize..] {
                [] | [b'\r'] => return Ok(true),
                [b'\n', ..] => self.at += 1,
                [b'\r', b'\n', ..] => self.at += 2,
                [TLS_HANDSHAKE, ..] => return Err(Refusal::TlsOnHttpPort),
                _ => break,
            }
        }
        self.request = self.at;
        self.place = Place::Method;
        Ok(false)
    }

    fn walk_method(&mut self, within: &[u8]) -> Result<bool, Refusal> {
        while let Some(byte) = within.get(self.at as usize) {
            match byte {
                b' ' if self.at > self.request => {
                    self.place = Place::Target;
                    return Ok(false);
                }
                _ if is_token(*byte) => self.at += 1,
                _ => return Err(Refusal::NotHttp),
            }
        }
        Ok(true)
    }

    fn walk_target(&mut self, within: &[u8]) -> Result<bool, Refusal> {
        loop {
            let line_end = match within[self.at as usize..] {
                [] | [b'\r'] => return Ok(true),
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                [b'\r', ..] => return Err(Refusal::BareCr),
                [0, ..] => return Err(Refusal::NulByte),
                [byte, ..] if byte.is_ascii_control() => return Err(Refusal::RequestLine),
                _ => 0,
            };
            if line_end > 0 {
                RequestLine::parse(&within[self.request as usize..self.at as usize])?;
                self.headers = self.at + line_end;
                self.at = self.headers;
                self.line = self.headers;
                self.place = Place::Headers;
                return Ok(false);
            }
            self.at += 1;
        }
    }

    fn walk_headers(&mut self, within: &[u8]) -> bool {
        loop {
            let rest = &within[self.at as usize..];
            let Some(distance) = rest.iter().position(|byte| *byte == b'\n') else {
                self.at += rest.len() as u32;
                return true;
            };
            let line_end = self.at as usize + distance;
            let is_empty = matches!(within[self.line as usize..line_end], [] | [b'\r']);
            self.at += distance as u32 + 1;
            self.line = self.at;
            if is_empty {
                self.place = Place::End;
                return false;
            }
        }
    }

    fn parse(&self, within: &[u8], span: &Span) -> Result<Head, Refusal> {
        let request = RequestLine::parse(trim_line_end(&within[span.line.clone()]))?;
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let fields = parse_fields(&within[span.fields.clone()], &mut storage)?;
        let host = host_of(fields)?;
        if host.is_none() && request.host_required() {
            return Err(Refusal::HostMissing);
        }
        Ok(Head {
            name: request
                .authority
                .map(|(host, _)| host)
                .or(host.map(|(host, _)| host)),
            alpn: Box::default(),
            ech: false,
        })
    }
}

/// Where the parts of a complete head are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// The request line with its line end.
    pub(crate) line: Range<usize>,
    /// The header lines, the empty line included; the head ends where they do.
    pub(crate) fields: Range<usize>,
}

/// The header lines, each by name and value; `fields` ends with the empty line.
pub(crate) fn parse_fields<'s, 'b>(
    fields: &'b [u8],
    storage: &'s mut [httparse::Header<'b>],
) -> Result<&'s [httparse::Header<'b>], Refusal> {
    match httparse::parse_headers(fields, storage) {
        Ok(httparse::Status::Complete((length, parsed))) if length == fields.len() => Ok(parsed),
        Ok(_) => {
            debug_assert!(false, "the empty line is where httparse finds it");
            Err(Refusal::HeaderName)
        }
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyHeaders),
        Err(_) => Err(name_fault(fields)),
    }
}

/// The Host among the header lines, and its value as it was sent.
pub(crate) fn host_of<'b>(
    fields: &[httparse::Header<'b>],
) -> Result<Option<(Host, &'b [u8])>, Refusal> {
    let mut host = None;
    for field in fields {
        if field.name.eq_ignore_ascii_case("host") && host.replace(field.value).is_some() {
            return Err(Refusal::HostRepeated);
        }
    }
    let Some(value) = host else {
        return Ok(None);
    };
    let value = value.trim_ascii();
    if value.contains(&b',') {
        return Err(Refusal::HostList);
    }
    Ok(Some((parse_authority(value)?, value)))
}

/// Which rule the header lines break; `httparse` says only that they break one.
fn name_fault(fields: &[u8]) -> Refusal {
    if fields.contains(&0) {
        return Refusal::NulByte;
    }
    let mut pairs = fields.windows(2);
    if pairs.any(|pair| pair[0] == b'\r' && pair[1] != b'\n') {
        return Refusal::BareCr;
    }
    for line in fields.split_inclusive(|byte| *byte == b'\n') {
        let line = trim_line_end(line);
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        match name {
            [b' ' | b'\t', ..] => return Refusal::FoldedHeader,
            [.., b' ' | b'\t'] if colon.is_some() => return Refusal::SpaceBeforeColon,
            _ if colon.is_none() || name.is_empty() => return Refusal::HeaderName,
            _ if !name.iter().all(|byte| is_token(*byte)) => return Refusal::HeaderName,
            _ => {}
        }
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Refusal::HeaderValue;
        }
    }
    Refusal::HeaderName
}

pub(crate) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What methods and field names are made of (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
