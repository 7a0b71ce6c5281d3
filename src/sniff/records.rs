//! Finds the ClientHello in a stream of TLS records.
//!
//! A hello may be spread over any number of records (RFC 8446 section 5.1), down to one byte each. The
//! walk checks record headers as they arrive; only when the last byte of the hello is there, its
//! fragments are put together, once. What follows the hello, in the same record or in later ones, is not
//! looked at: it reaches the backend as it came.

use std::borrow::Cow;

use crate::refusal::Refusal;

/// Type of a handshake record (RFC 8446 section 5.1).
const RECORD_HANDSHAKE: u8 = 22;
/// The other record types: ChangeCipherSpec, alert, application data, heartbeat.
const RECORD_OTHERS: [u8; 4] = [20, 21, 23, 24];
const RECORD_HEADER_BYTES: usize = 5;
/// Longest plaintext of a record (RFC 8446 section 5.1); before the hello nothing is encrypted.
const RECORD_BYTES_MAX: u32 = 1 << 14;
/// Type of a ClientHello message (RFC 8446 section 4).
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
/// A handshake message begins with its type and three bytes of length.
const HANDSHAKE_HEADER_BYTES: u32 = 4;

/// The methods by which an HTTP request is recognised, each with the space behind it.
const HTTP_METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"OPTIONS ",
    b"CONNECT ",
    b"DELETE ",
    b"PATCH ",
    b"PRI ",
];

/// Whether the bytes are handshake records and nothing else. Early data (RFC 8446 section 4.2.10), which
/// may follow a ClientHello at once, is in records of another type.
pub(crate) fn is_hello_alone(mut received: &[u8]) -> bool {
    while let [kind, _, _, high, low, rest @ ..] = received {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != RECORD_HANDSHAKE || rest.len() < length {
            return false;
        }
        received = &rest[length..];
    }
    received.is_empty()
}

/// How far the records were walked.
#[derive(Debug, Clone, Default)]
pub(super) struct RecordWalk {
    /// Bytes walked over; the next one is a record header or content of the current record.
    at: u32,
    /// Content of the current record that was not walked over yet.
    record_left: u32,
    /// Bytes of the handshake message walked over, its header included.
    message: u32,
    /// The length that the message's header declares, as far as that header was read.
    declared: u32,
}

impl RecordWalk {
    /// The body of the hello, once its last byte is there. `within` is what was received, cut at the
    /// limit.
    pub(super) fn advance<'b>(
        &mut self,
        within: &'b [u8],
        limit: u32,
    ) -> Result<Option<Cow<'b, [u8]>>, Refusal> {
        loop {
            self.check_size(limit)?;
            if self.is_complete() {
                return Ok(Some(gather(within, self.message as usize)));
            }
            let rest = &within[self.at as usize..];
            if rest.is_empty() {
                return Ok(None);
            }
            if self.record_left > 0 {
                self.walk_content(rest)?;
            } else if let Some(length) = record_length(rest, self.at == 0)? {
                self.at += RECORD_HEADER_BYTES as u32;
                self.record_left = length;
            } else {
                return Ok(None);
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.message >= HANDSHAKE_HEADER_BYTES
            && self.message == HANDSHAKE_HEADER_BYTES + self.declared
    }

    fn walk_content(&mut self, rest: &[u8]) -> Result<(), Refusal> {
        let step = match self.message {
            0 if rest[0] != HANDSHAKE_CLIENT_HELLO => return Err(Refusal::NotClientHello),
            0 => 1,
            1..HANDSHAKE_HEADER_BYTES => {
                self.declared = self.declared << 8 | u32::from(rest[0]);
                1
            }
            _ => {
                let there = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                let missing = HANDSHAKE_HEADER_BYTES + self.declared - self.message;
                self.record_left.min(missing).min(there)
            }
        };
        self.at += step;
        self.record_left -= step;
        self.message += step;
        Ok(())
    }

    /// Refuses as soon as the message's header shows that the message will exceed the limit.
    fn check_size(&self, limit: u32) -> Result<(), Refusal> {
        if self.message < HANDSHAKE_HEADER_BYTES {
            return Ok(());
        }
        let missing = HANDSHAKE_HEADER_BYTES + self.declared - self.message;
        let later = missing.saturating_sub(self.record_left);
        let headers = later.div_ceil(RECORD_BYTES_MAX) * RECORD_HEADER_BYTES as u32;
        match self.at.checked_add(missing + headers) {
            Some(end) if end <= limit => Ok(()),
            _ => Err(Refusal::HelloTooLarge),
        }
    }
}

/// The length in the record header that `rest` begins with; `None` when it is not all there.
fn record_length(rest: &[u8], first: bool) -> Result<Option<u32>, Refusal> {
    if rest[0] != RECORD_HANDSHAKE {
        return match rest[0] {
            kind if !first || RECORD_OTHERS.contains(&kind) => Err(Refusal::RecordNotHandshake),
            _ => refuse_first_bytes(rest),
        };
    }
    if rest.get(1).is_some_and(|major| *major != 3) {
        return Err(Refusal::RecordVersion);
    }
    let Some(header) = rest.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Ok(None);
    };
    match u32::from(u16::from_be_bytes([header[3], header[4]])) {
        0 => Err(Refusal::RecordEmpty),
        length if length > RECORD_BYTES_MAX => Err(Refusal::RecordTooLong),
        length => Ok(Some(length)),
    }
}

/// The refusal of bytes that do not begin a TLS record; `None` while more bytes are needed to name it.
fn refuse_first_bytes(rest: &[u8]) -> Result<Option<u32>, Refusal> {
    // SSL 2.0 record: two bytes of length with the high bit set, then message type 1 (RFC 5246 appendix E.2).
    if rest[0] & 0x80 != 0 {
        return match rest.get(2) {
            None => Ok(None),
            Some(1) => Err(Refusal::SslV2Hello),
            Some(_) => Err(Refusal::NotTls),
        };
    }
    if HTTP_METHODS.iter().any(|method| rest.starts_with(method)) {
        return Err(Refusal::HttpOnTlsPort);
    }
    if HTTP_METHODS.iter().any(|method| method.starts_with(rest)) {
        return Ok(None);
    }
    Err(Refusal::NotTls)
}

/// The body of the handshake message that takes `length` bytes, its header included, of records that
/// were walked over; borrowed when one record holds it.
fn gather(within: &[u8], length: usize) -> Cow<'_, [u8]> {
    const MESSAGE_HEADER_BYTES: usize = HANDSHAKE_HEADER_BYTES as usize;
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        let content = usize::from(u16::from_be_bytes([within[at + 3], within[at + 4]]));
        at += RECORD_HEADER_BYTES;
        let taken = content.min(length - message.len());
        let fragment = &within[at..at + taken];
        if taken == length {
            return Cow::Borrowed(&fragment[MESSAGE_HEADER_BYTES..]);
        }
        if message.is_empty() {
            message.reserve_exact(length);
        }
        message.extend_from_slice(fragment);
        if message.len() == length {
            message.drain(..MESSAGE_HEADER_BYTES);
            return Cow::Owned(message);
        }
        at += taken;
    }
}
