//! Finds the ClientHello in a stream of TLS records and the name in the ClientHello.
//!
//! A hello may be spread over any number of records (RFC 8446 section 5.1), of one byte each if the client
//! likes. The walk checks record headers as they come and counts; only when the last byte of the hello is there is
//! it put together, once, and parsed, once. What lies behind the hello, in the same record or in later ones, is not looked at.

use std::borrow::Cow;
use std::fmt::Write;

use super::{Head, Refusal, Step};
use crate::route::{Host, HostError};

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
const SESSION_ID_BYTES_MAX: usize = 32;
const RANDOM_BYTES: usize = 32;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_ECH: u16 = 0xfe0d;
/// The only NameType there is (RFC 6066 section 3).
const NAME_TYPE_HOST_NAME: u8 = 0;

/// Longest ALPN text kept for the log, in bytes; browsers send 11, and a client must not fill the log.
const ALPN_TEXT_BYTES_MAX: usize = 256;

/// The methods by which an HTTP request is told from noise, each with the space behind it.
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

/// How far the records were walked.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    /// Bytes walked over; the next one is a record header or content of the current record.
    at: u32,
    /// Content of the current record that was not walked over yet.
    record_left: u32,
    /// Bytes of the handshake message walked over, its header included.
    message: u32,
    /// What the message's header says so far about the length behind it.
    declared: u32,
}

impl Walk {
    /// `within` is what was received, cut at the limit.
    pub(super) fn advance(&mut self, within: &[u8], limit: u32) -> Step {
        loop {
            self.check_size(limit)?;
            if self.is_complete() {
                break;
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
        let message = gather(within, self.message as usize);
        parse_hello(&message[HANDSHAKE_HEADER_BYTES as usize..]).map(Some)
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

    /// Refuses as soon as the message's header says that its end lies behind the limit.
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
            _ => name_noise(rest),
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

/// Names what is no TLS; asks for more only while it is undecided which name it gets.
fn name_noise(rest: &[u8]) -> Result<Option<u32>, Refusal> {
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

/// The first `length` bytes of handshake in records that were walked; borrowed when one record holds them.
fn gather(within: &[u8], length: usize) -> Cow<'_, [u8]> {
    let mut scratch = Vec::new();
    let mut at = 0;
    loop {
        let content = usize::from(u16::from_be_bytes([within[at + 3], within[at + 4]]));
        at += RECORD_HEADER_BYTES;
        let taken = content.min(length - scratch.len());
        let fragment = &within[at..at + taken];
        if taken == length {
            return Cow::Borrowed(fragment);
        }
        if scratch.is_empty() {
            scratch.reserve_exact(length);
        }
        scratch.extend_from_slice(fragment);
        if scratch.len() == length {
            return Cow::Owned(scratch);
        }
        at += taken;
    }
}

/// Reads fields off the front of some bytes; a field that is not there is `None`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|field| field[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2)
            .map(|field| u16::from_be_bytes([field[0], field[1]]))
    }

    /// A field that begins with one byte of length.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    /// A field that begins with two bytes of length.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }
}

/// The body of a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
fn parse_hello(body: &[u8]) -> Result<Head, Refusal> {
    let mut reader = Reader(body);
    let lies = Refusal::HelloLength;
    let version = reader.u16().ok_or(lies)?;
    if version >> 8 != 3 {
        return Err(Refusal::HelloVersion);
    }
    reader.bytes(RANDOM_BYTES).ok_or(lies)?;
    if reader.vector8().ok_or(lies)?.len() > SESSION_ID_BYTES_MAX {
        return Err(Refusal::SessionIdTooLong);
    }
    let suites = reader.vector16().ok_or(lies)?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Refusal::CipherSuites);
    }
    if reader.vector8().ok_or(lies)?.is_empty() {
        return Err(Refusal::CompressionMethods);
    }
    // Before TLS 1.2 a hello may end here, without even an empty block of extensions.
    let mut extensions: &[u8] = &[];
    if !reader.0.is_empty() {
        extensions = reader.vector16().ok_or(lies)?;
    }
    if !reader.0.is_empty() {
        return Err(Refusal::HelloTrailingData);
    }
    parse_extensions(extensions)
}

fn parse_extensions(block: &[u8]) -> Result<Head, Refusal> {
    let mut head = Head {
        name: None,
        alpn: Box::default(),
        ech: false,
    };
    let mut seen = Seen::default();
    let mut reader = Reader(block);
    while !reader.0.is_empty() {
        let kind = reader.u16().ok_or(Refusal::HelloLength)?;
        let data = reader.vector16().ok_or(Refusal::HelloLength)?;
        if !seen.insert(kind) {
            return Err(match kind {
                EXTENSION_SERVER_NAME => Refusal::SniRepeated,
                _ => Refusal::ExtensionRepeated,
            });
        }
        match kind {
            EXTENSION_SERVER_NAME => head.name = Some(parse_server_name(data)?),
            EXTENSION_ALPN => head.alpn = parse_alpn(data)?,
            EXTENSION_ECH => head.ech = true,
            _ => {}
        }
    }
    Ok(head)
}

/// The extension types met so far, one bit each: a hello of 64 KiB can hold 16,000 extensions, and
/// comparing each with each would cost a thousand times what reading them does.
struct Seen([u64; 1024]);

impl Default for Seen {
    fn default() -> Seen {
        Seen([0; 1024])
    }
}

impl Seen {
    /// Whether the type is new.
    fn insert(&mut self, kind: u16) -> bool {
        let word = &mut self.0[usize::from(kind >> 6)];
        let bit = 1 << (kind & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// The one host_name of a server_name extension (RFC 6066 section 3). An entry of another type is refused and not skipped:
/// none is defined, so its end is not known, and OpenSSL and BoringSSL refuse it too.
fn parse_server_name(data: &[u8]) -> Result<Host, Refusal> {
    let mut reader = Reader(data);
    let list = reader.vector16().ok_or(Refusal::SniLength)?;
    if list.is_empty() || !reader.0.is_empty() {
        return Err(Refusal::SniLength);
    }
    let mut entries = Reader(list);
    if entries.u8() != Some(NAME_TYPE_HOST_NAME) {
        return Err(Refusal::SniNameType);
    }
    let name = entries.vector16().ok_or(Refusal::SniLength)?;
    match entries.u8() {
        None => {}
        Some(NAME_TYPE_HOST_NAME) => {
            entries.vector16().ok_or(Refusal::SniLength)?;
            return Err(Refusal::SniSeveralNames);
        }
        Some(_) => return Err(Refusal::SniNameType),
    }
    Host::parse(name).map_err(|error| match error {
        HostError::Empty => Refusal::SniEmpty,
        HostError::TooLong => Refusal::SniTooLong,
        HostError::BadByte(_) => Refusal::SniBadByte,
        HostError::BadLabel | HostError::BadLiteral | HostError::BadIdna => Refusal::SniBadName,
    })
}

/// The protocols of an ALPN extension (RFC 7301 section 3.1) as text for the log: commas between them, in them
/// escaped, cut with three dots at [`ALPN_TEXT_BYTES_MAX`].
fn parse_alpn(data: &[u8]) -> Result<Box<str>, Refusal> {
    let mut reader = Reader(data);
    let list = reader.vector16().ok_or(Refusal::AlpnMalformed)?;
    if list.is_empty() || !reader.0.is_empty() {
        return Err(Refusal::AlpnMalformed);
    }
    let mut text = String::new();
    let mut names = Reader(list);
    let mut cut = false;
    while !names.0.is_empty() {
        let name = names.vector8().ok_or(Refusal::AlpnMalformed)?;
        if name.is_empty() {
            return Err(Refusal::AlpnMalformed);
        }
        if cut {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        for byte in name {
            match byte {
                b',' => text.push_str("\\x2c"),
                _ => write!(text, "{}", byte.escape_ascii()).expect("a string takes all"),
            }
        }
        cut = text.len() > ALPN_TEXT_BYTES_MAX;
    }
    if cut {
        text.truncate(ALPN_TEXT_BYTES_MAX - 3);
        text.push_str("...");
    }
    Ok(text.into_boxed_str())
}
