//! Version 2: sixteen fixed bytes, the addresses, and TLVs (section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Addresses, Endpoints, Header, Parsed};
use super::tlv::{OutgoingTlvs, TLV_HEADER_BYTES, TlvKind, Tlvs, UNIQUE_ID_BYTES_MAX};
use crate::refusal::Refusal;
use crate::route::ProxyVersion;

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, and two bytes of length.
pub(super) const FIXED_BYTES: usize = 16;

/// What a header that is read may have behind its fixed bytes. The protocol's own bound is 65,535;
/// HAProxy, AWS and Envoy send a few hundred, nginx takes 4,096.
pub(super) const CONTENT_BYTES_MAX: usize = 4096;

/// The longest header that is written, in bytes: as much as current nginx takes.
pub(super) const WRITTEN_BYTES_MAX: usize = 4096;

const VERSION: u8 = 0x2;
const COMMAND_LOCAL: u8 = 0x0;
const COMMAND_PROXY: u8 = 0x1;

const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Lengths of two addresses and two ports of IPv4, of the same of IPv6, and of two paths.
const TCP4_BYTES: usize = 12;
const TCP6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

const CRC32C_BYTES: usize = 4;

/// Reads the header that `received` begins with, whose signature was found; `None`: valid so far.
pub(super) fn read(received: &[u8]) -> Result<Option<Parsed>, Refusal> {
    let fixed = &received[SIGNATURE.len()..];
    let Some(&version_and_command) = fixed.first() else {
        return Ok(None);
    };
    let (version, command) = (version_and_command >> 4, version_and_command & 0xf);
    if version != VERSION || !matches!(command, COMMAND_LOCAL | COMMAND_PROXY) {
        return Err(Refusal::ProxyV2Version);
    }
    let Some(&[_, family, high, low]) = fixed.first_chunk::<4>() else {
        return Ok(None);
    };
    let content_bytes = usize::from(u16::from_be_bytes([high, low]));
    if content_bytes > CONTENT_BYTES_MAX {
        return Err(Refusal::ProxyV2TooLong);
    }
    let bytes = FIXED_BYTES + content_bytes;
    let Some(whole) = received.get(..bytes) else {
        return Ok(None);
    };
    let (endpoints, tlvs) = match command {
        // Family and content have to be ignored.
        COMMAND_LOCAL => (Endpoints::Local, Tlvs::default()),
        _ => read_content(whole, family)?,
    };
    let header = Header {
        version: ProxyVersion::V2,
        endpoints,
        tlvs,
    };
    Ok(Some(Parsed { header, bytes }))
}

fn read_content(whole: &[u8], family: u8) -> Result<(Endpoints, Tlvs), Refusal> {
    let address_bytes = match family {
        // The length of its addresses is not defined, so that everything behind is ignored, too.
        UNSPEC => return Ok((Endpoints::Local, Tlvs::default())),
        TCP4 => TCP4_BYTES,
        TCP6 => TCP6_BYTES,
        UNIX_STREAM => UNIX_BYTES,
        _ => return Err(Refusal::ProxyV2Family),
    };
    let (addresses, rest) = whole[FIXED_BYTES..]
        .split_at_checked(address_bytes)
        .ok_or(Refusal::ProxyV2Length)?;
    let endpoints = match family {
        TCP4 => Endpoints::Tcp(addresses_of::<4, Ipv4Addr>(addresses)),
        TCP6 => Endpoints::Tcp(addresses_of::<16, Ipv6Addr>(addresses)),
        _ => Endpoints::Unix,
    };
    let tlvs = Tlvs::parse(rest)?;
    check_sum(whole, rest.len(), &tlvs)?;
    Ok((endpoints, tlvs))
}

/// Both addresses, then both ports; `block` has exactly their length.
fn addresses_of<const N: usize, Ip>(block: &[u8]) -> Addresses
where
    Ip: From<[u8; N]> + Into<std::net::IpAddr>,
{
    let ip = |at: usize| {
        let octets: [u8; N] = block[at..at + N].try_into().expect("N bytes");
        Ip::from(octets).into()
    };
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    Addresses::new(
        SocketAddr::new(ip(0), port(2 * N)),
        SocketAddr::new(ip(N), port(2 * N + 2)),
    )
}

/// Checks the CRC32C, if there is one; it is computed over the header with zeros in its place.
fn check_sum(whole: &[u8], tlv_bytes: usize, tlvs: &Tlvs) -> Result<(), Refusal> {
    let mut at = whole.len() - tlv_bytes;
    let mut found = None;
    for tlv in tlvs.iter() {
        let value_at = at + TLV_HEADER_BYTES;
        if tlv.kind == TlvKind::CRC32C && found.replace(value_at).is_some() {
            // It is not defined which of two checksums is zero while the other is computed.
            return Err(Refusal::ProxyV2Tlv);
        }
        at = value_at + tlv.value.len();
    }
    let Some(at) = found else { return Ok(()) };
    let end = at + CRC32C_BYTES;
    let sum = crc32c::crc32c(&whole[..at]);
    let sum = crc32c::crc32c_append(sum, &[0; CRC32C_BYTES]);
    let sum = crc32c::crc32c_append(sum, &whole[end..]);
    if sum.to_be_bytes() == whole[at..end] {
        Ok(())
    } else {
        Err(Refusal::ProxyV2Checksum)
    }
}

/// The header always has room for the proxy's own TLVs: ALPN and authority of at most 255 bytes, an id, a
/// fingerprint and a checksum, behind 36 bytes of addresses.
const _: () = assert!(
    FIXED_BYTES + TCP6_BYTES + 2 * 258 + UNIQUE_ID_BYTES_MAX + 3 + 39 + 7 < WRITTEN_BYTES_MAX
);

/// Without addresses it is LOCAL, and TLVs are left out, which a receiver would have to ignore.
pub(super) fn write(out: &mut Vec<u8>, addresses: Option<&Addresses>, tlvs: &OutgoingTlvs<'_>) {
    let begin = out.len();
    out.extend_from_slice(&SIGNATURE);
    let Some(addresses) = addresses else {
        out.extend_from_slice(&[VERSION << 4 | COMMAND_LOCAL, UNSPEC, 0, 0]);
        return;
    };
    let family = match addresses.source() {
        SocketAddr::V4(_) => TCP4,
        SocketAddr::V6(_) => TCP6,
    };
    out.extend_from_slice(&[VERSION << 4 | COMMAND_PROXY, family, 0, 0]);
    for end in [addresses.source(), addresses.destination()] {
        match end {
            SocketAddr::V4(end) => out.extend_from_slice(&end.ip().octets()),
            SocketAddr::V6(end) => out.extend_from_slice(&end.ip().octets()),
        }
    }
    out.extend_from_slice(&addresses.source().port().to_be_bytes());
    out.extend_from_slice(&addresses.destination().port().to_be_bytes());
    write_tlvs(out, begin, tlvs);
    push(out, TlvKind::CRC32C, &[0; CRC32C_BYTES]);
    let content_bytes = out.len() - begin - FIXED_BYTES;
    let length = u16::try_from(content_bytes).expect("below WRITTEN_BYTES_MAX");
    out[begin + FIXED_BYTES - 2..][..2].copy_from_slice(&length.to_be_bytes());
    let sum = crc32c::crc32c(&out[begin..]);
    let sum_at = out.len() - CRC32C_BYTES;
    out[sum_at..].copy_from_slice(&sum.to_be_bytes());
}

fn write_tlvs(out: &mut Vec<u8>, begin: usize, tlvs: &OutgoingTlvs<'_>) {
    let received_id = tlvs
        .received
        .and_then(|received| received.value(TlvKind::UNIQUE_ID));
    let unique_id = received_id.unwrap_or(tlvs.unique_id);
    let own = [
        (TlvKind::AUTHORITY, tlvs.authority.map(str::as_bytes)),
        (TlvKind::ALPN, tlvs.alpn),
        (
            TlvKind::UNIQUE_ID,
            Some(unique_id).filter(|id| !id.is_empty()),
        ),
        (TlvKind::JA4, tlvs.ja4),
    ];
    for (kind, value) in own {
        if let Some(value) = value {
            push(out, kind, value);
        }
    }
    let is_replaced = |kind| {
        own.iter()
            .any(|(own, value)| *own == kind && value.is_some())
    };
    for tlv in tlvs.received.into_iter().flat_map(Tlvs::iter) {
        let end = out.len() - begin + 2 * TLV_HEADER_BYTES + tlv.value.len() + CRC32C_BYTES;
        let passes = !is_replaced(tlv.kind) && !matches!(tlv.kind, TlvKind::NOOP | TlvKind::CRC32C);
        if passes && end <= WRITTEN_BYTES_MAX {
            push(out, tlv.kind, tlv.value);
        }
    }
}

fn push(out: &mut Vec<u8>, kind: TlvKind, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("no TLV is as long as that");
    out.push(kind.0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
