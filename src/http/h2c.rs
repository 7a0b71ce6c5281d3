//! The beginning of an HTTP/2 connection without TLS (RFC 9113 section 3.3): the preface, SETTINGS,
//! and the first request, whose `:authority` the whole connection is routed by. Nothing else of
//! HTTP/2 is understood, and nothing is changed.

use crate::route::Host;
use crate::sniff::Refusal;
use crate::sniff::request_line::parse_authority;

/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

/// The host of the first request; `None`: more bytes are needed. `received` is everything that the
/// client has sent.
///
/// # Errors
/// Where the bytes are no HTTP/2, or `bytes_max` hold no whole request head.
pub fn first_host(received: &[u8], bytes_max: usize) -> Result<Option<Host>, Refusal> {
    let within = &received[..received.len().min(bytes_max)];
    match walk(within)? {
        None if received.len() >= bytes_max => Err(Refusal::RequestHeadTooLarge),
        host => Ok(host),
    }
}

fn walk(bytes: &[u8]) -> Result<Option<Host>, Refusal> {
    let known = bytes.len().min(PREFACE.len());
    if bytes[..known] != PREFACE[..known] {
        return Err(Refusal::H2cMalformed);
    }
    let mut rest = &bytes[known..];
    let mut block: Option<Vec<u8>> = None;
    let mut is_first = true;
    while let Some((header, behind)) = rest.split_at_checked(FRAME_HEADER_BYTES) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let in_place = match (&block, kind) {
            (Some(_), kind) => kind == CONTINUATION,
            (None, kind) if is_first => kind == SETTINGS,
            (None, kind) => [HEADERS, PRIORITY, SETTINGS, PING, WINDOW_UPDATE].contains(&kind),
        };
        // What is unknown may be an extension, which is to be ignored (RFC 9113 section 5.5).
        let unknown = block.is_none() && !is_first && kind > CONTINUATION;
        if length > FRAME_BYTES_MAX || !(in_place || unknown) {
            return Err(Refusal::H2cMalformed);
        }
        let Some((payload, next)) = behind.split_at_checked(length) else {
            return Ok(None);
        };
        is_first = false;
        rest = next;
        let fragment = match kind {
            HEADERS => fragment(payload, flags).ok_or(Refusal::H2cMalformed)?,
            CONTINUATION => payload,
            _ => continue,
        };
        let block = block.get_or_insert_default();
        block.extend_from_slice(fragment);
        if flags & END_HEADERS != 0 {
            return host(block).map(Some);
        }
    }
    Ok(None)
}

/// The fields of a HEADERS frame, without padding and priority.
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
    let mut repeated = false;
    let mut connect = false;
    loona_hpack::Decoder::new()
        .decode_with_cb(block, |name, value| match &*name {
            b":authority" => repeated |= authority.replace(value.into_owned()).is_some(),
            b"host" => repeated |= host.replace(value.into_owned()).is_some(),
            b":method" => connect |= *value == *b"CONNECT",
            _ => {}
        })
        .map_err(|_| Refusal::H2cMalformed)?;
    if repeated {
        return Err(Refusal::HostRepeated);
    }
    if connect {
        return Err(Refusal::ConnectMethod);
    }
    let named = authority.or(host).ok_or(Refusal::HostMissing)?;
    parse_authority(&named)
}

/// Fuzz entry: every prefix of what is found is undecided or the same.
#[doc(hidden)]
pub fn fuzz_h2c(data: &[u8]) {
    let whole = [PREFACE, data].concat();
    let verdict = first_host(&whole, 65_536);
    for end in 0..whole.len() {
        match first_host(&whole[..end], 65_536) {
            Ok(None) => {}
            other => assert_eq!(other, verdict),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        first_host(&bytes, 65_536).map(|host| host.map(|host| host.to_string()))
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
        assert_eq!(
            first_host(b"PRI * HTTP/2.0\r\n\r\nXX", 100),
            Err(Refusal::H2cMalformed)
        );
        assert_eq!(first_host(PREFACE, 24), Err(Refusal::RequestHeadTooLarge));
    }

    proptest! {
        #[test]
        fn any_frames(frames in prop::collection::vec((0u8..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5)) {
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
