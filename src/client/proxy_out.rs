//! Writes the PROXY header for a backend that expects one, in front of the client's first byte. Header
//! and head are one piece of memory, so that they leave in one segment.

use super::identity::Client;
use crate::host::Host;
use crate::outcome::Outcome;
use crate::proxy_protocol::{self, Endpoints, OutgoingTlvs, TlvKind};
use crate::route::ProxyVersion;
use crate::sniff::{self, Head};
use crate::state::Local;

/// Room for the header of a usual connection: IPv6 addresses, a name, an id and a fingerprint.
const USUAL_BYTES: usize = 192;

/// The first bytes for the backend.
pub(crate) struct HeadWithProxy {
    /// The header, and what was received behind it.
    pub bytes: Vec<u8>,
    /// The connection's unique id in a header of version 2, for the log; empty in version 1.
    pub id: Box<str>,
}

/// Puts the header in front of what was received.
///
/// # Errors
/// [`Outcome::ClientReset`] when the client has gone and with it its address.
pub(crate) fn write_proxy_header(
    local: &Local,
    client: &Client,
    version: ProxyVersion,
    head: Option<&Head>,
    received: &[u8],
) -> Result<HeadWithProxy, Outcome> {
    let endpoints = client.endpoints().ok_or(Outcome::ClientReset)?;
    let addresses = match &endpoints {
        Endpoints::Tcp(addresses) => Some(addresses),
        Endpoints::Unix | Endpoints::Local => None,
    };
    let mut bytes = Vec::with_capacity(USUAL_BYTES + received.len());
    let id = match version {
        ProxyVersion::V1 => {
            proxy_protocol::write(&mut bytes, version, addresses, &OutgoingTlvs::default());
            Box::default()
        }
        ProxyVersion::V2 => {
            let passed_on = client.proxy_header().map(|header| &header.tlvs);
            let own_id = format!("{:016x}", local.next_connection_id());
            let ja4 = local.proxy.ja4.then(|| sniff::ja4(received)).flatten();
            let tlvs = OutgoingTlvs {
                authority: head.and_then(|head| head.name.as_ref().map(Host::as_str)),
                alpn: head.and_then(Head::only_alpn).map(str::as_bytes),
                unique_id: own_id.as_bytes(),
                ja4: ja4.as_ref().map(|ja4| ja4.as_str().as_bytes()),
                received: passed_on,
            };
            proxy_protocol::write(&mut bytes, version, addresses, &tlvs);
            match passed_on.and_then(|tlvs| tlvs.value(TlvKind::UNIQUE_ID)) {
                Some(id) => id.escape_ascii().to_string().into(),
                None => own_id.into(),
            }
        }
    };
    bytes.extend_from_slice(received);
    Ok(HeadWithProxy { bytes, id })
}
