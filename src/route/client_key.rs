//! What counts as one client.

use std::net::IpAddr;

/// A number for the client behind an address: an IPv4 address, or the /64 of an IPv6 address. Each
/// subscriber has at least a /64 (RFC 6177) and its hosts change their addresses within it (RFC 8981).
pub(crate) fn client_key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()) | 4 << 32,
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}
