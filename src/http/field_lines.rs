//! The header lines of a request, held to the strict reading of RFC 9112 section 5.

use super::fields::{FIELDS_MAX, Field, FieldStorage};
use crate::refusal::Refusal;

/// The name and the value of each header line; `lines` ends with the empty line.
pub(super) fn parse<'b, 's>(
    lines: &'b [u8],
    storage: &'s mut FieldStorage<'b>,
) -> Result<&'s [Field<'b>], Refusal> {
    let mut parsed = httparse::parse_headers(lines, &mut storage.usual);
    if parsed == Err(httparse::Error::TooManyHeaders) {
        storage.many.resize(FIELDS_MAX, httparse::EMPTY_HEADER);
        parsed = httparse::parse_headers(lines, &mut storage.many);
    }
    match parsed {
        Ok(httparse::Status::Complete((length, fields))) if length == lines.len() => Ok(fields),
        Ok(_) => {
            debug_assert!(false, "httparse ends at the same empty line as the walk");
            Err(Refusal::HeaderName)
        }
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyHeaders),
        Err(_) => Err(broken_rule(lines)),
    }
}

/// Which rule the header lines break; `httparse` says only that they break one.
fn broken_rule(lines: &[u8]) -> Refusal {
    if lines.contains(&0) {
        return Refusal::NulByte;
    }
    let mut pairs = lines.windows(2);
    if pairs.any(|pair| pair[0] == b'\r' && pair[1] != b'\n') {
        return Refusal::BareCr;
    }
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
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

pub(super) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What methods and field names are made of (RFC 9110 section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
