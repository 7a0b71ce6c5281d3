//! Writes a header for a backend.

use super::header::Addresses;
use super::tlv::OutgoingTlvs;
use super::{v1, v2};
use crate::route::ProxyVersion;

/// Appends the header to `out`. Without `addresses` it says that nothing is known of the client.
pub fn write(
    out: &mut Vec<u8>,
    version: ProxyVersion,
    addresses: Option<&Addresses>,
    tlvs: &OutgoingTlvs<'_>,
) {
    match version {
        ProxyVersion::V1 => v1::write(out, addresses),
        ProxyVersion::V2 => v2::write(out, addresses, tlvs),
    }
}
