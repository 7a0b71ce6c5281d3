//! Reads the PROXY header that may stand in front of the client's bytes.

use std::io;

use super::admit;
use super::identity::Client;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::{self, Endpoints, HEADER_BYTES_MAX, Reading};
use crate::refusal::Refusal;
use crate::state::Local;

/// Reads the PROXY header in front of an HTTP client's bytes, where the sender may send one. Gives back
/// what the client has sent behind it.
pub(crate) async fn read_proxy_header(local: &Local, client: &Client) -> Result<Vec<u8>, Outcome> {
    let mut phase = ProxyPhase::of(local, client, Protocol::Http)?;
    let mut received = Vec::new();
    while phase != ProxyPhase::Forbidden {
        let read = {
            let mut buffer = local.buffer.borrow_mut();
            let read = client.socket().recv(&mut buffer);
            received.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
            read
        };
        match read {
            Ok(0) => return Err(early_close_outcome(client, &received)),
            Ok(_) if !phase.advance(local, client, &mut received)? => {}
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = local.ring.readable(client.socket()).await;
            }
            Err(_) => return Err(early_close_outcome(client, &received)),
        }
    }
    Ok(received)
}

/// How the connection ends when no more bytes come.
pub(crate) fn early_close_outcome(client: &Client, received: &[u8]) -> Outcome {
    let endpoints = client.proxy_header().map(|header| header.endpoints);
    match endpoints {
        Some(Endpoints::Local) if received.is_empty() => Outcome::HealthCheck,
        _ => Outcome::ClientLeft,
    }
}

/// Whether a PROXY header may, or must, come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyPhase {
    /// The sender is not trusted, so none may come.
    Forbidden,
    /// One may come.
    Optional,
    /// One has to come.
    Required,
    /// The header is read, or none came: what comes is the client's.
    Over,
}

impl ProxyPhase {
    /// One getpeername(2), and none where nobody may send headers.
    ///
    /// # Errors
    /// For a sender who is not believed at a receiving end, which serves no direct clients; for one
    /// that has reset the connection by now, as HAProxy's checks do, and is nobody any more: neither
    /// to be believed nor to be accused.
    pub(crate) fn of(
        local: &Local,
        client: &Client,
        protocol: Protocol,
    ) -> Result<ProxyPhase, Outcome> {
        let settings = &local.proxy;
        if settings.from.is_empty() {
            return Ok(ProxyPhase::Forbidden);
        }
        let is_receiving_end = protocol == Protocol::Tcp;
        let sender = client.peer().ok_or(Outcome::ClientLeft)?;
        match settings.trusts(sender) {
            true if settings.required || is_receiving_end => Ok(ProxyPhase::Required),
            true => Ok(ProxyPhase::Optional),
            false if is_receiving_end => Err(Outcome::Refused(Refusal::ProxyUntrusted)),
            false => Ok(ProxyPhase::Forbidden),
        }
    }

    /// Room for a header beside what the client may send.
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            ProxyPhase::Optional | ProxyPhase::Required => HEADER_BYTES_MAX,
            // The signature has room in the client's.
            ProxyPhase::Forbidden | ProxyPhase::Over => 0,
        }
    }

    /// Takes a header off the phase. Whether the rest is the client's own; if not, more is needed.
    pub(crate) fn advance(
        &mut self,
        local: &Local,
        client: &Client,
        received: &mut Vec<u8>,
    ) -> Result<bool, Outcome> {
        let refused = |refusal| Err(Outcome::Refused(refusal));
        match *self {
            ProxyPhase::Over => return Ok(true),
            // Not a byte behind the signature is looked at: who may not speak is not listened to.
            ProxyPhase::Forbidden => match proxy_protocol::begins_with_signature(received) {
                None => return Ok(false),
                Some(true) => return refused(Refusal::ProxyUntrusted),
                Some(false) => {}
            },
            ProxyPhase::Optional | ProxyPhase::Required => match proxy_protocol::read(received) {
                Reading::More => return Ok(false),
                Reading::Refused(refusal) => return refused(refusal),
                Reading::Absent if *self == ProxyPhase::Required => {
                    return refused(Refusal::ProxyMissing);
                }
                Reading::Absent => {}
                Reading::Found { header, bytes } => {
                    client.set_proxy_header(header);
                    received.drain(..bytes);
                    admit::after_proxy_header(local, client)?;
                }
            },
        }
        // Where a header has used up less than it might, its room is still filled; the sniffer
        // looks no further than its own limit.
        *self = ProxyPhase::Over;
        Ok(true)
    }
}
