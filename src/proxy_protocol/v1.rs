//! Version 1: one line of text, `PROXY TCP4 192.0.2.7 192.0.2.1 40000 443` (section 2.1).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::header::{Addresses, Endpoints, Header, Parsed};
use super::tlv::Tlvs;
use crate::refusal::Refusal;
use crate::route::ProxyVersion;

pub(super) const SIGNATURE: [u8; 6] = *b"PROXY ";

/// The longest header in bytes, line end included (section 2.1).
pub(super) const BYTES_MAX: usize = 107;

/// Reads the header that `received` begins with, whose signature was found; `None`: valid so far.
pub(super) fn read(received: &[u8]) -> Result<Option<Parsed>, Refusal> {
    let within = &received[..received.len().min(BYTES_MAX)];
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let Some(end) = within.iter().position(is_end) else {
        return more_or_too_long(within);
    };
    match (within[end], within.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return more_or_too_long(within),
        _ => return Err(Refusal::ProxyV1Malformed),
    }
    let line = str::from_utf8(&within[SIGNATURE.len()..end]);
    let endpoints = line.ok().and_then(parse).ok_or(Refusal::ProxyV1Malformed)?;
    let header = Header {
        version: ProxyVersion::V1,
        endpoints,
        tlvs: Tlvs::default(),
    };
    Ok(Some(Parsed {
        header,
        bytes: end + 2,
    }))
}

fn more_or_too_long(within: &[u8]) -> Result<Option<Parsed>, Refusal> {
    if within.len() < BYTES_MAX {
        Ok(None)
    } else {
        Err(Refusal::ProxyV1TooLong)
    }
}

/// Parses what is between the signature and the line end; one space is between two words.
fn parse(line: &str) -> Option<Endpoints> {
    let mut words = line.split(' ');
    let ip = match words.next()? {
        "TCP4" => |word| Ipv4Addr::from_str(word).ok().map(IpAddr::V4),
        "TCP6" => |word| Ipv6Addr::from_str(word).ok().map(IpAddr::V6),
        // Everything behind it has to be ignored.
        "UNKNOWN" => return Some(Endpoints::Local),
        _ => return None,
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (from, to) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    match words.next() {
        None => Some(Endpoints::Tcp(Addresses::new(
            SocketAddr::new(source, from),
            SocketAddr::new(destination, to),
        ))),
        Some(_) => None,
    }
}

/// Decimal digits without leading zeros.
fn parse_port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let padded = word.len() > 1 && word.starts_with('0');
    if plain && !padded {
        word.parse().ok()
    } else {
        None
    }
}

pub(super) fn write(out: &mut Vec<u8>, addresses: Option<&Addresses>) {
    // Addresses are formatted as text, which needs a String.
    let mut line = String::with_capacity(BYTES_MAX);
    match addresses {
        None => line.push_str("PROXY UNKNOWN\r\n"),
        Some(addresses) => {
            let (source, destination) = (addresses.source(), addresses.destination());
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            write!(line, "PROXY {family} {from} {to} {from_port} {to_port}\r\n")
                .expect("writing to a String never fails");
        }
    }
    out.extend_from_slice(line.as_bytes());
}
