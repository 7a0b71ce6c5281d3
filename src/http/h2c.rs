//! The beginning of an HTTP/2 connection without TLS (RFC 9113 section 3.3): the preface, SETTINGS, and
//! the first request, by whose `:authority` the whole connection is routed. Nothing else of HTTP/2 is
//! read, and nothing is changed.

use super::authority::Authority;
use super::hpack::{self, Malformed, Name};
use super::steps;
use crate::host::Host;
use crate::refusal::Refusal;

/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEADER_BYTES: usize = 9;
/// Largest frame before both sides have agreed on more (RFC 9113 section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// Reads the beginning of one connection. It keeps positions and the fields of the first request, so that
/// bytes that arrive one by one cost no more than bytes that arrive at once.
#[derive(Debug, Default)]
pub(crate) struct FirstRequest {
    /// Bytes walked over: the preface and whole frames.
    at: usize,
    /// The header block so far, when a HEADERS frame has come and its end has not.
    block: Option<Vec<u8>>,
}

impl FirstRequest {
    /// The host of the first request; `None`: more bytes are needed. `received` is everything that the
    /// client has sent: what the last call got, and more behind it.
    ///
    /// # Errors
    /// When the bytes are not HTTP/2, or `bytes_max` bytes hold no whole request head.
    pub(crate) fn advance(
        &mut self,
        received: &[u8],
        bytes_max: usize,
    ) -> Result<Option<Host>, Refusal> {
        let within = &received[..received.len().min(bytes_max)];
        match self.walk(within)? {
            None if received.len() >= bytes_max => Err(Refusal::RequestHeadTooLarge),
            host => Ok(host),
        }
    }

    fn walk(&mut self, bytes: &[u8]) -> Result<Option<Host>, Refusal> {
        if self.at == 0 {
            let known = bytes.len().min(PREFACE.len());
            if bytes[..known] != PREFACE[..known] {
                return Err(Refusal::H2cMalformed);
            }
            if known < PREFACE.len() {
                return Ok(None);
            }
            self.at = known;
        }
        while let Some((header, behind)) = bytes[self.at..].split_at_checked(FRAME_HEADER_BYTES) {
            steps::count(1);
            let frame = FrameHeader::parse(header);
            if frame.length > FRAME_BYTES_MAX || !self.is_allowed(frame.kind) {
                return Err(Refusal::H2cMalformed);
            }
            let Some(payload) = behind.get(..frame.length) else {
                return Ok(None);
            };
            self.at += FRAME_HEADER_BYTES + frame.length;
            let fragment = match frame.kind {
                HEADERS => fragment(payload, frame.flags).ok_or(Refusal::H2cMalformed)?,
                CONTINUATION => payload,
                _ => continue,
            };
            let block = self.block.get_or_insert_default();
            block.extend_from_slice(fragment);
            if frame.flags & END_HEADERS != 0 {
                return host(block).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether the next frame may be of this kind.
    fn is_allowed(&self, kind: u8) -> bool {
        if self.block.is_some() {
            return kind == CONTINUATION;
        }
        let is_first = self.at == PREFACE.len();
        if is_first {
            return kind == SETTINGS;
        }
        // An unknown kind may be an extension, which is to be ignored (RFC 9113 section 5.5).
        let is_unknown = kind > CONTINUATION;
        is_unknown || [HEADERS, PRIORITY, SETTINGS, PING, WINDOW_UPDATE].contains(&kind)
    }
}

/// The header of a frame (RFC 9113 section 4.1), without the stream.
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
}

impl FrameHeader {
    /// `bytes` are [`FRAME_HEADER_BYTES`] long.
    fn parse(bytes: &[u8]) -> FrameHeader {
        FrameHeader {
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize,
            kind: bytes[3],
            flags: bytes[4],
        }
    }
}

/// The part of the header block in a HEADERS frame, without padding and priority.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, behind) = rest.split_first()?;
        (padding, rest) = (usize::from(*first), behind);
    }
    if flags & WITH_PRIORITY != 0 {
        rest = rest.get(5..)?;
    }
    rest.get(..rest.len().checked_sub(padding)?)
}

fn host(block: &[u8]) -> Result<Host, Refusal> {
    let mut authority: Option<Vec<u8>> = None;
    let mut host: Option<Vec<u8>> = None;
    let mut connect = false;
    hpack::decode(block, |name, value| {
        let place = match name {
            Name::Authority => &mut authority,
            Name::Host => &mut host,
            Name::Method | Name::Other => {
                connect |= name == Name::Method && value == b"CONNECT";
                return Ok(());
            }
        };
        match place.replace(value.to_vec()) {
            Some(_) => Err(Refusal::HostRepeated),
            None => Ok(()),
        }
    })?;
    if connect {
        return Err(Refusal::ConnectMethod);
    }
    let named = authority.or(host).ok_or(Refusal::HostMissing)?;
    Authority::parse(&named).map(|authority| authority.host)
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Refusal {
        Refusal::H2cMalformed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::fuzz::fuzz_h2c;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        loona_hpack::Encoder::new().encode(fields)
    }

    fn found(frames: &[Vec<u8>]) -> Result<Option<String>, Refusal> {
        let bytes = [PREFACE, &frames.concat()].concat();
        fuzz_h2c(&bytes[PREFACE.len()..]);
        let first = FirstRequest::default().advance(&bytes, 65_536);
        first.map(|host| host.map(|host| host.to_string()))
    }

    #[test]
    fn the_first_request_names_the_host() {
        let settings = frame(SETTINGS, 0, &[]);
        let fields = block(&[
            (":method", "GET"),
            (":authority", "A.Test:80"),
            (":path", "/"),
        ]);
        let whole = frame(HEADERS, END_HEADERS, &fields);
        let want = Ok(Some("a.test".to_owned()));
        assert_eq!(found(&[settings.clone(), whole.clone()]), want);
        let window = frame(WINDOW_UPDATE, 0, &[0, 0, 1, 0]);
        assert_eq!(
            found(&[settings.clone(), window, frame(99, 0, b"x"), whole]),
            want
        );
        let padded = [&[2, 0, 0, 0, 0, 9], &fields[..], b"\0\0"].concat();
        let padded = frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, &padded);
        assert_eq!(found(&[settings.clone(), padded]), want);
        let (one, two) = fields.split_at(7);
        let cut = [
            frame(HEADERS, 0, one),
            frame(CONTINUATION, END_HEADERS, two),
        ];
        assert_eq!(found(&[settings.clone(), cut.concat()]), want);
        let host = block(&[(":method", "GET"), ("host", "b.test")]);
        let host = frame(HEADERS, END_HEADERS, &host);
        assert_eq!(found(&[settings, host]), Ok(Some("b.test".to_owned())));
    }

    #[test]
    fn what_is_no_http2_is_refused() {
        let settings = frame(SETTINGS, 0, &[]);
        let headers = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS, &block(fields));
        for (frames, want) in [
            (
                vec![headers(&[(":authority", "a.test")])],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), frame(0, 0, b"data")],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), frame(CONTINUATION, 4, b"")],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), frame(HEADERS, 0, b""), settings.clone()],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), frame(HEADERS, END_HEADERS | PADDED, &[9])],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), frame(HEADERS, END_HEADERS, &[0xff; 9])],
                Refusal::H2cMalformed,
            ),
            (
                vec![settings.clone(), headers(&[(":method", "GET")])],
                Refusal::HostMissing,
            ),
            (
                vec![
                    settings.clone(),
                    headers(&[(":authority", "a"), (":authority", "b")]),
                ],
                Refusal::HostRepeated,
            ),
            (
                vec![
                    settings.clone(),
                    headers(&[(":method", "CONNECT"), (":authority", "a")]),
                ],
                Refusal::ConnectMethod,
            ),
            (
                vec![settings, headers(&[(":authority", "a b")])],
                Refusal::HostBadByte,
            ),
        ] {
            assert_eq!(found(&frames), Err(want));
        }
        let first_host = |received, max| FirstRequest::default().advance(received, max);
        let other = b"PRI * HTTP/2.0\r\n\r\nXX";
        assert_eq!(first_host(other, 100), Err(Refusal::H2cMalformed));
        assert_eq!(first_host(PREFACE, 24), Err(Refusal::RequestHeadTooLarge));
    }

    /// A header block in frames as large as they may be.
    fn in_frames(block: &[u8]) -> Vec<u8> {
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, &[])].concat();
        let pieces = block.chunks(FRAME_BYTES_MAX);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let flags = if at == last { END_HEADERS } else { 0 };
            bytes.extend(frame(kind, flags, piece));
        }
        bytes
    }

    /// Whatever a block is made of, reading it takes steps as it has bytes, and a few for each. A bit
    /// of Huffman code is a part of a step.
    #[test]
    fn the_work_is_that_of_the_bytes() {
        let bytes = 32_000;
        let entry = [&b"\x40\x7f\xa1\x1e"[..], &[b'n'; 4000], b"\0"].concat();
        for (what, beginning, repeated) in [
            ("empty Huffman strings", &b""[..], &b"\x00\x80\x80"[..]),
            ("short Huffman strings", b"", b"\x00\x81\x1f\x81\x1f"),
            ("one long Huffman string", b"\0\0\xff\x80\xf8\x01", b"\0"),
            ("references to a large entry", &entry, b"\xbe"),
            (
                "the name of a large entry, again entered",
                &entry,
                b"\x7e\0",
            ),
            ("small entries", b"", b"\x40\0\0"),
            ("size updates", b"", b"\x20"),
            ("numbers", b"", b"\x0f\x80\x80\x80\0\0"),
        ] {
            let mut block = beginning.to_vec();
            while block.len() < bytes {
                block.extend_from_slice(repeated);
            }
            let received = in_frames(&block);
            let steps = steps::taken_by(|| {
                let host = FirstRequest::default().advance(&received, 65_536);
                assert!(host.is_err(), "{what}");
            });
            assert!(steps <= 3 * received.len(), "{what}: {steps} steps");
        }
    }

    #[test]
    fn what_comes_byte_by_byte_is_walked_once() {
        let window = frame(WINDOW_UPDATE, 0, &[0, 0, 1, 0]).repeat(2000);
        let fields = block(&[(":authority", "a.test"), ("x", &"y".repeat(4000))]);
        let continued = frame(CONTINUATION, 0, b"").repeat(400);
        let bytes = [
            PREFACE,
            &frame(SETTINGS, 0, &[]),
            &window,
            &frame(HEADERS, 0, &fields),
            &continued,
            &frame(CONTINUATION, END_HEADERS, b""),
        ]
        .concat();
        let mut walk = FirstRequest::default();
        let steps = steps::taken_by(|| {
            for end in 0..bytes.len() {
                assert_eq!(walk.advance(&bytes[..end], 65_536), Ok(None));
            }
            let found = walk.advance(&bytes, 65_536);
            assert_eq!(found.unwrap().unwrap().to_string(), "a.test");
        });
        assert!(
            steps <= 3 * bytes.len(),
            "{steps} steps for {}",
            bytes.len()
        );
    }

    proptest! {
        #[test]
        fn any_frames(
            frames in prop::collection::vec(
                (0u8..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..5,
            ),
        ) {
            let frames: Vec<Vec<u8>> = std::iter::once(frame(SETTINGS, 0, &[]))
                .chain(frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)))
                .collect();
            fuzz_h2c(&frames.concat());
        }

        #[test]
        fn any_block(block in prop::collection::vec(any::<u8>(), 0..60)) {
            fuzz_h2c(&[frame(SETTINGS, 0, &[]), frame(HEADERS, END_HEADERS, &block)].concat());
        }
    }
}
