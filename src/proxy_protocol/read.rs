//! Bytes → header. The answer depends on the bytes alone and not on how they were cut: the caller
//! hands in all that was received, and asks again with more.

use super::{Header, v1, v2};
use crate::refusal::Refusal;

/// The four answers to "is there a header in front of these bytes?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A header of so many bytes; what lies behind them is the client's.
    Found(Header, usize),
    /// Perhaps; ask again with more bytes. Never the answer to
    /// [`HEADER_BYTES_MAX`](super::HEADER_BYTES_MAX) bytes or more.
    More,
    /// The bytes begin with no header, but with the client's own.
    Absent,
    /// They begin like a header and are none.
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
                Ok(Some((header, bytes))) => Reading::Found(header, bytes),
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

/// Whether the bytes begin like a header of either version, right or wrong; `None` while they may.
pub(crate) fn begins_with_signature(received: &[u8]) -> Option<bool> {
    let mut undecided = false;
    for signature in [&v1::SIGNATURE[..], &v2::SIGNATURE[..]] {
        if received.starts_with(signature) {
            return Some(true);
        }
        undecided |= signature.starts_with(received);
    }
    (!undecided).then_some(false)
}

/// What the reader of one version comes to; `None` is "valid so far".
pub(super) type Step = Result<Option<(Header, usize)>, Refusal>;

/// Fuzz entry: asserts that the answer stays once it is not "more", that a header ends within the
/// bytes, and that it means the same when it is written and read again.
#[doc(hidden)]
pub fn fuzz_header(data: &[u8]) {
    let whole = read(data);
    let is_header = match &whole {
        Reading::Absent => Some(false),
        Reading::Found(..) | Reading::Refused(_) => Some(true),
        Reading::More => begins_with_signature(data).filter(|begins| *begins),
    };
    assert_eq!(begins_with_signature(data), is_header);
    let mut answer = Reading::More;
    for end in 0..=data.len().min(super::HEADER_BYTES_MAX + 1) {
        let next = read(&data[..end]);
        assert!(
            answer == Reading::More || answer == next,
            "the answer changed from {answer:?} to {next:?} at {end} bytes"
        );
        answer = next;
    }
    assert_eq!(answer, whole, "cut into bytes");
    match whole {
        Reading::More => assert!(data.len() < super::HEADER_BYTES_MAX),
        Reading::Found(header, bytes) => {
            assert!(bytes <= data.len() && bytes <= super::HEADER_BYTES_MAX);
            check_again(&header);
        }
        Reading::Absent | Reading::Refused(_) => {}
    }
}

fn check_again(header: &Header) {
    let super::Subject::Inet(addresses) = header.subject else {
        return;
    };
    for version in [
        crate::route::ProxyVersion::V1,
        crate::route::ProxyVersion::V2,
    ] {
        let notes = super::Notes {
            received: Some(&header.tlvs),
            ..super::Notes::default()
        };
        let mut written = Vec::new();
        super::write(&mut written, version, Some(&addresses), &notes);
        assert!(written.len() <= super::WRITTEN_BYTES_MAX);
        match read(&written) {
            Reading::Found(again, bytes) => {
                assert_eq!((again.subject, bytes), (header.subject, written.len()));
            }
            other => panic!("what was written reads as {other:?}"),
        }
    }
}
