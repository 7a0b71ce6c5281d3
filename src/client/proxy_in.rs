//! Reads the PROXY header that may stand in front of the client's bytes.

use std::io;

use super::admit;
use super::identity::Client;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::{self, Endpoints, HEADER_BYTES_MAX, Reading, Signature};
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

/// How a connection ends that closes before its head was complete. A PROXY header LOCAL without
/// anything behind it is a health check of the sender.
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
    /// What a new connection begins with. One getpeername(2), and none where nobody may send headers.
    ///
    /// # Errors
    /// For an untrusted sender in `unwrap`, which serves no direct clients; for a sender that has reset
    /// the connection by now, as HAProxy's checks do, so that its address is not known any more.
    pub(crate) fn of(
        local: &Local,
        client: &Client,
        protocol: Protocol,
    ) -> Result<ProxyPhase, Outcome> {
        let settings = &local.proxy;
        if settings.from.is_empty() {
            return Ok(ProxyPhase::Forbidden);
        }
        let is_unwrap = protocol == Protocol::Tcp;
        let sender = client.peer().ok_or(Outcome::ClientLeft)?;
        if settings.trusts(sender) {
            let is_required = settings.required || is_unwrap;
            return Ok(if is_required {
                ProxyPhase::Required
            } else {
                ProxyPhase::Optional
            });
        }
        if is_unwrap {
            return Err(Outcome::Refused(Refusal::ProxyUntrusted));
        }
        Ok(ProxyPhase::Forbidden)
    }

    /// Bytes that a header may take, beside those of the client.
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            ProxyPhase::Optional | ProxyPhase::Required => HEADER_BYTES_MAX,
            // A forbidden header is known by its signature, which fits into the client's bytes.
            ProxyPhase::Forbidden | ProxyPhase::Over => 0,
        }
    }

    /// Takes the header off `received`. Whether what is left is the client's own; if not, more bytes are
    /// needed.
    ///
    /// # Errors
    /// A refusal of the header, or the outcome of a limit of the client that it names.
    pub(crate) fn advance(
        &mut self,
        local: &Local,
        client: &Client,
        received: &mut Vec<u8>,
    ) -> Result<bool, Outcome> {
        let refused = |refusal| Err(Outcome::Refused(refusal));
        match *self {
            ProxyPhase::Over => return Ok(true),
            // The signature alone refuses an untrusted sender; nothing behind it is parsed.
            ProxyPhase::Forbidden => match Signature::of(received) {
                Signature::Undecided => return Ok(false),
                Signature::Present => return refused(Refusal::ProxyUntrusted),
                Signature::Absent => {}
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
        // More of the client's bytes may have been read than its own limit allows, because a header was
        // shorter than it might have been; the parser of the head looks no further than its limit.
        *self = ProxyPhase::Over;
        Ok(true)
    }
}
