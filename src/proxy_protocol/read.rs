//! The bytes of a sender → the header in front of them. The answer depends on the bytes alone and not
//! on how they were cut: the caller hands in all that was received, and asks again with more.

use super::header::Header;
use super::{v1, v2};
use crate::refusal::Refusal;

/// The longest header that is read, in bytes.
pub(crate) const HEADER_BYTES_MAX: usize = v2::FIXED_BYTES + v2::CONTENT_BYTES_MAX;

/// The four answers to "is there a header in front of these bytes?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The first `bytes` bytes are a header; the rest is the client's.
    Found { header: Header, bytes: usize },
    /// Perhaps; ask again with more bytes. Never the answer to `HEADER_BYTES_MAX` bytes or more.
    More,
    /// There is no header: the bytes are the client's from the first one on.
    Absent,
    /// The bytes begin as a header does and break a rule.
    Refused(Refusal),
}

/// Reads the header that `received` begins with.
pub fn read(received: &[u8]) -> Reading {
    for (signature, read) in [
        (&v1::SIGNATURE[..], v1::read as fn(&[u8]) -> _),
        (&v2::SIGNATURE[..], v2::read),
    ] {
        if received.starts_with(signature) {
            return match read(received) {
                Ok(Some(parsed)) => Reading::Found {
                    header: parsed.header,
                    bytes: parsed.bytes,
                },
                Ok(None) => Reading::More,
                Err(refusal) => Reading::Refused(refusal),
            };
        }
        if signature.starts_with(received) {
            return Reading::More;
        }
    }
    Reading::Absent
}

/// Whether bytes begin with the signature of a header, valid or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    Present,
    Absent,
    /// More bytes are needed to tell.
    Undecided,
}

impl Signature {
    pub(crate) fn of(received: &[u8]) -> Signature {
        let signatures = [&v1::SIGNATURE[..], &v2::SIGNATURE[..]];
        if signatures
            .iter()
            .any(|signature| received.starts_with(signature))
        {
            Signature::Present
        } else if signatures
            .iter()
            .any(|signature| signature.starts_with(received))
        {
            Signature::Undecided
        } else {
            Signature::Absent
        }
    }
}
