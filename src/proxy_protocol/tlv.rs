//! The TLVs (type, length, value) behind the addresses of version 2 (section 2.2).

use crate::refusal::Refusal;

/// A TLV begins with its type and two bytes of length.
pub(super) const TLV_HEADER_BYTES: usize = 3;
/// Longest PP2_TYPE_UNIQUE_ID (section 2.2.5).
pub(super) const UNIQUE_ID_BYTES_MAX: usize = 128;

/// The type of a TLV. The constants are those that mean something here (section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlvKind(pub u8);

impl TlvKind {
    /// The application protocol in use.
    pub const ALPN: TlvKind = TlvKind(0x01);
    /// The host name that the client asked for.
    pub const AUTHORITY: TlvKind = TlvKind(0x02);
    /// A checksum of the header.
    pub const CRC32C: TlvKind = TlvKind(0x03);
    /// Padding.
    pub const NOOP: TlvKind = TlvKind(0x04);
    /// The id of the connection, for logs.
    pub const UNIQUE_ID: TlvKind = TlvKind(0x05);
    /// Details of the TLS connection that the sender has terminated.
    pub const SSL: TlvKind = TlvKind(0x20);
    /// The first of the types for custom use (PP2_TYPE_MIN_CUSTOM); here the JA4 fingerprint.
    pub const JA4: TlvKind = TlvKind(0xe0);
}

/// One TLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    pub kind: TlvKind,
    pub value: &'a [u8],
}

/// The TLVs of one header, checked: each ends where the next begins, the last at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tlvs(Box<[u8]>);

impl Tlvs {
    /// Checks all but the checksum.
    pub(super) fn parse(bytes: &[u8]) -> Result<Tlvs, Refusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tlv, after) = split(rest).ok_or(Refusal::ProxyV2Tlv)?;
            let fits = match tlv.kind {
                TlvKind::CRC32C => tlv.value.len() == 4,
                TlvKind::UNIQUE_ID => tlv.value.len() <= UNIQUE_ID_BYTES_MAX,
                _ => true,
            };
            if !fits {
                return Err(Refusal::ProxyV2Tlv);
            }
            rest = after;
        }
        Ok(Tlvs(bytes.into()))
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (tlv, after) = split(rest)?;
            rest = after;
            Some(tlv)
        })
    }

    /// The value of the first TLV of this type.
    pub fn value(&self, kind: TlvKind) -> Option<&[u8]> {
        self.iter()
            .find(|tlv| tlv.kind == kind)
            .map(|tlv| tlv.value)
    }
}

/// What a header of version 2 that is written says beside the addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutgoingTlvs<'a> {
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    /// The application protocol, where it is known.
    pub alpn: Option<&'a [u8]>,
    /// At most 128 bytes. Where the client came with a header that has an id, that one is written.
    pub unique_id: &'a [u8],
    /// The fingerprint of the client's hello.
    pub ja4: Option<&'a [u8]>,
    /// The TLVs of the header that the client came with. They are passed on where none of the above
    /// takes their place, as far as there is room.
    pub received: Option<&'a Tlvs>,
}

/// The TLV that `rest` begins with, and the bytes behind it.
fn split(rest: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (header, rest) = rest.split_first_chunk::<TLV_HEADER_BYTES>()?;
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let (value, after) = rest.split_at_checked(length)?;
    let kind = TlvKind(header[0]);
    Some((Tlv { kind, value }, after))
}
