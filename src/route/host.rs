//! The one canonical form of a name. Lookup, log and Redis keys all go through it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name in bytes, without the trailing dot (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// A validated, canonical host name: lower case, no trailing dot, no port, A-labels.
#[derive(Clone)]
pub struct Host {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
    literal: bool,
}

/// Why bytes are no host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    Empty,
    TooLong,
    BadByte(u8),
    BadLabel,
    BadLiteral,
    BadIdna,
}

impl fmt::Display for HostError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Empty => write!(out, "the name is empty; give a host name"),
            HostError::TooLong => write!(out, "the name is longer than 253 bytes; shorten it"),
            HostError::BadByte(byte) => write!(
                out,
                "byte 0x{byte:02x} cannot be in a host name; use letters, digits, '-', '_' and '.'"
            ),
            HostError::BadLabel => write!(out, "a label is empty or longer than 63 bytes"),
            HostError::BadLiteral => write!(out, "not an IP address; check its digits"),
            HostError::BadIdna => write!(out, "not a valid international name (IDNA)"),
        }
    }
}

impl std::error::Error for HostError {}

impl Host {
    /// Name bytes as a client sent them, the port already removed.
    pub fn parse(bytes: &[u8]) -> Result<Host, HostError> {
        if let Some(inner) = bytes.strip_prefix(b"[") {
            let address = inner
                .strip_suffix(b"]")
                .and_then(|inner| std::str::from_utf8(inner).ok())
                .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
                .ok_or(HostError::BadLiteral)?;
            return Ok(Host::filled(format!("[{address}]").as_bytes(), true));
        }
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(HostError::Empty);
        }
        if bytes.len() > NAME_BYTES_MAX {
            return Err(HostError::TooLong);
        }
        for label in bytes.split(|byte| *byte == b'.') {
            if label.is_empty() || label.len() > 63 {
                return Err(HostError::BadLabel);
            }
            for byte in label {
                if !byte.is_ascii_alphanumeric() && *byte != b'-' && *byte != b'_' {
                    return Err(HostError::BadByte(*byte));
                }
            }
        }
        let text = std::str::from_utf8(bytes).expect("checked to be ASCII");
        let literal = text.parse::<Ipv4Addr>().is_ok();
        Ok(Host::filled(&bytes.to_ascii_lowercase(), literal))
    }

    /// A name as an operator typed it: as [`Host::parse`], and Unicode goes through IDNA.
    pub fn from_operator(text: &str) -> Result<Host, HostError> {
        if text.is_ascii() {
            return Host::parse(text.as_bytes());
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| HostError::BadIdna)?;
        Host::parse(ascii.as_bytes())
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("checked to be ASCII")
    }

    pub fn is_ip_literal(&self) -> bool {
        self.literal
    }

    fn filled(name: &[u8], literal: bool) -> Host {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Host {
            bytes,
            len: name.len() as u8,
            literal,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Host {
        match address {
            IpAddr::V4(address) => Host::filled(address.to_string().as_bytes(), true),
            IpAddr::V6(address) => Host::filled(format!("[{address}]").as_bytes(), true),
        }
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.as_str())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
