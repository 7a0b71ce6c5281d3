//! The body of a ClientHello: its name, its ALPN list and whether it is an outer one (ECH).
//!
//! Every length is checked, and each level has to end exactly where the level above says: a hello
//! that can be read in two ways is refused, because the backend might read it the other way.

use std::fmt::Write;

use super::head::Head;
use crate::host::{Host, HostError};
use crate::refusal::Refusal;

/// The version of SSL 3.0, the first with this form of hello.
const VERSION_MIN: u16 = 0x0300;
const SESSION_ID_BYTES_MAX: usize = 32;
pub(super) const RANDOM_BYTES: usize = 32;

pub(super) const EXTENSION_SERVER_NAME: u16 = 0;
pub(super) const EXTENSION_ALPN: u16 = 16;
const EXTENSION_ECH: u16 = 0xfe0d;
/// The only defined NameType (RFC 6066 section 3).
const NAME_TYPE_HOST_NAME: u8 = 0;

/// Longest ALPN text in the log, in bytes. Browsers send 11; the bound keeps clients from filling the log.
const ALPN_TEXT_BYTES_MAX: usize = 256;

/// Reads fields off the front of some bytes; a field that is not there is `None`.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|field| field[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes(2)
            .map(|field| u16::from_be_bytes([field[0], field[1]]))
    }

    /// A field that begins with one byte of length.
    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    /// A field that begins with two bytes of length.
    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }
}

/// The body of a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
pub(super) fn parse_hello(body: &[u8]) -> Result<Head, Refusal> {
    let mut reader = Reader(body);
    let malformed = Refusal::HelloLength;
    let version = reader.u16().ok_or(malformed)?;
    // A version that does not exist yet is for the backend to negotiate (RFC 8446 section 4.2.1, RFC
    // 5246 appendix E.1); the form of the hello stays the same.
    if version < VERSION_MIN {
        return Err(Refusal::HelloVersion);
    }
    reader.bytes(RANDOM_BYTES).ok_or(malformed)?;
    if reader.vector8().ok_or(malformed)?.len() > SESSION_ID_BYTES_MAX {
        return Err(Refusal::SessionIdTooLong);
    }
    let suites = reader.vector16().ok_or(malformed)?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Refusal::CipherSuites);
    }
    if reader.vector8().ok_or(malformed)?.is_empty() {
        return Err(Refusal::CompressionMethods);
    }
    // Before TLS 1.2 a hello may end here, without even an empty block of extensions.
    let mut extensions: &[u8] = &[];
    if !reader.0.is_empty() {
        extensions = reader.vector16().ok_or(malformed)?;
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

/// The extension types seen so far, one bit each: a hello of 64 KiB can hold 16,000 extensions, and to
/// compare each with each would cost a thousand times what reading them does.
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

/// The one host_name of a server_name extension (RFC 6066 section 3). An entry of another type is
/// refused and not skipped: none is defined, so its end is not known, and OpenSSL and BoringSSL
/// refuse it too.
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

/// The protocols of an ALPN extension (RFC 7301 section 3.1) as text for the log: with commas between
/// them, commas in names escaped, and cut at [`ALPN_TEXT_BYTES_MAX`] with three dots.
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
                _ => write!(text, "{}", byte.escape_ascii())
                    .expect("writing to a String never fails"),
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
