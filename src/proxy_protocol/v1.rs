//! Version 1: one line of text, `PROXY TCP4 192.0.2.7 192.0.2.1 40000 443` (section 2.1).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::read::Step;
use super::{Addresses, Header, Subject, Tlvs, V1_BYTES_MAX};
use crate::refusal::Refusal;
use crate::route::ProxyVersion;

pub(super) const SIGNATURE: [u8; 6] = *b"PROXY ";

/// `received` begins with the signature.
pub(super) fn read(received: &[u8]) -> Step {
    let within = &received[..received.len().min(V1_BYTES_MAX)];
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
    let subject = line.ok().and_then(parse).ok_or(Refusal::ProxyV1Malformed)?;
    let header = Header {
        version: ProxyVersion::V1,
        subject,
        tlvs: Tlvs::default(),
    };
    Ok(Some((header, end + 2)))
}

fn more_or_too_long(within: &[u8]) -> Step {
    match within.len() < V1_BYTES_MAX {
        true => Ok(None),
        false => Err(Refusal::ProxyV1TooLong),
    }
}

/// What stands between the signature and the line end; one blank between two words.
fn parse(line: &str) -> Option<Subject> {
    let mut words = line.split(' ');
    let ip = match words.next()? {
        "TCP4" => |word| Ipv4Addr::from_str(word).ok().map(IpAddr::V4),
        "TCP6" => |word| Ipv6Addr::from_str(word).ok().map(IpAddr::V6),
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(Subject::Sender),
        _ => return None,
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (from, to) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    match words.next() {
        None => Some(Subject::Inet(Addresses::new(
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
    // A string on the way, because addresses are written as text.
    let mut line = String::with_capacity(V1_BYTES_MAX);
    match addresses {
        None => line.push_str("PROXY UNKNOWN\r\n"),
        Some(Addresses {
            source,
            destination,
        }) => write!(
            line,
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
        .expect("a string takes all"),
    }
    out.extend_from_slice(line.as_bytes());
}
