//! Fuzz entries.

use super::fields::{FieldName, FieldStorage};
use super::forwarded::{Downstream, Forwarding};
use super::framing::Framing;
use super::h2c::{FirstRequest, PREFACE};
use super::length::Length;
use super::normalize::ChunkedOutput;
use super::request::{Reading, RequestReader};
use super::response::{RequestSummary, ResponseHead};
use super::rewrite::{self, Persistence};
use crate::refusal::Refusal;

const BYTES_MAX: usize = 65_536;
const DOWNSTREAM: Downstream = Downstream {
    client: None,
    port: 80,
    trusted: false,
};

/// Asserts that the verdict on a request head does not depend on how the bytes were cut, and that a
/// recipient of the forwarded request understands it as it was understood here.
#[doc(hidden)]
pub fn fuzz_request(data: &[u8]) {
    for bytes_max in [BYTES_MAX, 64, data.len()] {
        check_cuts(data, bytes_max);
    }
    check_forwarded(data);
}

/// That the verdict is the same however the bytes are cut, that it stays, and that the limit holds.
fn check_cuts(data: &[u8], bytes_max: usize) {
    let mut storage = FieldStorage::new();
    let whole = RequestReader::new(bytes_max).advance(data, &mut storage);
    assert!(
        whole != Reading::More || data.len() < bytes_max,
        "more is asked for at the limit"
    );
    // Strides that do not fit any line, byte by byte among them.
    for stride in [1, 7, 1 + data.len() / 3] {
        let mut reader = RequestReader::new(bytes_max);
        let mut is_decided = false;
        for end in (0..data.len()).step_by(stride).chain([data.len()]) {
            let mut storage = FieldStorage::new();
            match reader.advance(&data[..end], &mut storage) {
                Reading::More => assert!(!is_decided, "more is asked for at {end} bytes"),
                decided => {
                    assert_eq!(decided, whole, "at {end} bytes");
                    is_decided = true;
                }
            }
        }
        assert_eq!(is_decided, whole != Reading::More);
    }
}

/// That a recipient of the forwarded request understands it as it was understood here, and would forward
/// it unchanged.
fn check_forwarded(data: &[u8]) {
    let mut storage = FieldStorage::new();
    let Reading::Found(head) = RequestReader::new(BYTES_MAX).advance(data, &mut storage) else {
        return;
    };
    let mut once = Vec::new();
    rewrite::request(&head, &Forwarding::ALL, &DOWNSTREAM, &mut once);
    let mut storage = FieldStorage::new();
    let Reading::Found(again) = RequestReader::new(2 * BYTES_MAX).advance(&once, &mut storage)
    else {
        panic!("{} is not understood again", once.escape_ascii());
    };
    assert_eq!(again.head_bytes, once.len());
    assert_eq!(
        (again.method, again.body, &again.host, again.upgrade),
        (head.method, head.body, &head.host, head.upgrade)
    );
    let one_less = head.max_forwards.map(|left| left.saturating_sub(1));
    assert_eq!(again.max_forwards, one_less);
    let is_kept_out = |known| {
        matches!(
            known,
            FieldName::Lookalike | FieldName::Proxy | FieldName::XForwardedOther
        )
    };
    assert!(
        !again
            .fields
            .iter()
            .any(|field| is_kept_out(FieldName::of(field.name)))
    );
    if one_less.is_some_and(|left| left > 0) {
        return;
    }
    let is_host = |name: &str| FieldName::of(name) == FieldName::Host;
    let hosts = again.fields.iter().filter(|field| is_host(field.name));
    assert!(hosts.count() <= 1);
    let mut twice = Vec::new();
    rewrite::request(&again, &Forwarding::ALL, &DOWNSTREAM, &mut twice);
    assert_eq!(once, twice, "{}", once.escape_ascii());
}

/// Asserts that the verdict on a response head does not depend on how much of it has arrived, and that
/// a client understands what is passed on as it was understood here.
#[doc(hidden)]
pub fn fuzz_response(data: &[u8]) {
    for is_head in [false, true] {
        for minor_version in [0, 1] {
            check_response(
                data,
                RequestSummary {
                    is_head,
                    minor_version,
                },
            );
        }
    }
}

fn check_response(data: &[u8], request: RequestSummary) {
    let mut storage = FieldStorage::new();
    let whole = ResponseHead::parse(data, BYTES_MAX, request, &mut storage);
    // Cut at some 30 places only, because each time parsing begins at the first byte.
    for end in (0..data.len()).step_by(1 + data.len() / 30) {
        let mut storage = FieldStorage::new();
        match ResponseHead::parse(&data[..end], BYTES_MAX, request, &mut storage) {
            Ok(None) => {}
            Ok(found) => assert_eq!(Ok(&found), whole.as_ref(), "at {end} bytes"),
            Err(_) => assert!(whole.is_err(), "refused at {end} bytes, and not at the end"),
        }
    }
    let Ok(Some(head)) = whole else {
        return;
    };
    let mut once = Vec::new();
    rewrite::response(&head, Persistence::Default, &mut once);
    let mut storage = FieldStorage::new();
    let again = match ResponseHead::parse(&once, 2 * BYTES_MAX, request, &mut storage) {
        Ok(Some(again)) => again,
        other => panic!("{} is understood as {other:?}", once.escape_ascii()),
    };
    let body = match head.chunked_output {
        ChunkedOutput::Decoded if head.body != Length::None => Length::UntilClose,
        _ => head.body,
    };
    assert_eq!(again.head_bytes, once.len());
    assert_eq!(
        (again.status, again.reason, again.body, again.stated_length),
        (head.status, head.reason, body, head.stated_length)
    );
    let mut twice = Vec::new();
    rewrite::response(&again, Persistence::Default, &mut twice);
    assert_eq!(
        once.escape_ascii().to_string(),
        twice.escape_ascii().to_string()
    );
}

/// Asserts that the verdict on a body and its end do not depend on how the bytes were cut, nor on
/// whether runs of data were seen; and that normalized chunks are valid to the strict reader and have
/// the same data.
#[doc(hidden)]
pub fn fuzz_chunks(data: &[u8]) {
    let counted = Length::Bytes(data.first().copied().unwrap_or_default().into());
    for length in [Length::Chunked, counted, Length::UntilClose] {
        check_body(data, length);
    }
    check_normalized(data);
}

fn check_body(body: &[u8], length: Length) {
    let mut whole = Framing::new(length);
    let verdict = whole.feed(body);
    for stride in [1, 3, 1 + body.len() / 3] {
        for skips in [false, true] {
            let mut cut = Framing::new(length);
            assert_eq!(
                feed_in_pieces(&mut cut, body, stride, skips),
                verdict,
                "cut into pieces of {stride} bytes"
            );
            if verdict.is_ok() {
                assert_eq!(cut.is_done(), whole.is_done());
                assert_eq!(cut.opaque_bytes(), whole.opaque_bytes());
            }
        }
    }
}

/// Feeds a body in pieces; with `skips`, runs of data are skipped unseen.
pub(super) fn feed_in_pieces(
    framing: &mut Framing,
    body: &[u8],
    stride: usize,
    skips: bool,
) -> Result<usize, Refusal> {
    let mut at = 0;
    while at < body.len() && !framing.is_done() {
        let piece = &body[at..body.len().min(at + stride)];
        let opaque = framing.opaque_bytes().min(piece.len() as u64);
        if skips && opaque > 0 {
            framing.skip(opaque);
            at += opaque as usize;
        } else {
            at += framing.feed(piece)?;
        }
    }
    Ok(at)
}

fn check_normalized(data: &[u8]) {
    let cut = |output, stride: usize| {
        let mut framing = Framing::new(Length::Chunked);
        let mut out = Vec::new();
        let mut used = 0;
        for piece in data.chunks(stride) {
            used += framing.normalize(piece, output, &mut out)?;
        }
        Ok::<_, Refusal>((out, used, framing.is_done()))
    };
    let chunked = cut(ChunkedOutput::Chunked, usize::MAX);
    let decoded = cut(ChunkedOutput::Decoded, usize::MAX);
    for stride in [1, 3, 1 + data.len() / 3] {
        assert_eq!(cut(ChunkedOutput::Chunked, stride), chunked);
        assert_eq!(cut(ChunkedOutput::Decoded, stride), decoded);
    }
    let mut strict = Framing::new(Length::Chunked);
    if let Ok(used) = strict.feed(data) {
        // There was nothing to normalize.
        let unchanged = (data[..used].to_vec(), used, strict.is_done());
        assert_eq!(chunked, Ok(unchanged));
    }
    if let Ok((out, _, done)) = &chunked {
        let mut strict = Framing::new(Length::Chunked);
        let used = strict.feed(out).expect("it is normalized");
        assert_eq!((used, strict.is_done()), (out.len(), *done));
        let mut data = Vec::new();
        let mut again = Framing::new(Length::Chunked);
        let read = again.normalize(out, ChunkedOutput::Decoded, &mut data);
        assert_eq!(read, Ok(out.len()));
        let (decoded, ..) = decoded.as_ref().expect("it is the same to read");
        assert_eq!(&data, decoded);
    }
}

/// Asserts that every prefix of the beginning of an HTTP/2 connection is undecided or has the verdict of
/// the whole, and that one walk that sees the bytes arrive finds the same. The preface may be left out.
#[doc(hidden)]
pub fn fuzz_h2c(data: &[u8]) {
    let frames = data.strip_prefix(PREFACE).unwrap_or(data);
    let whole = [PREFACE, frames].concat();
    let first_host = |received| FirstRequest::default().advance(received, 65_536);
    let verdict = first_host(&whole);
    let mut walk = FirstRequest::default();
    let mut walked = Ok(None);
    for end in 0..=whole.len() {
        if walked == Ok(None) {
            walked = walk.advance(&whole[..end], 65_536);
        }
        match first_host(&whole[..end]) {
            Ok(None) => assert_eq!(walked, Ok(None)),
            other => assert_eq!((&other, &other), (&verdict, &walked)),
        }
    }
}
