//! Reads the head of a connection: first what a proxy in front may have to say of the client, then
//! the client's own first bytes, until the name is in them.

use std::io;

use super::admit;
use crate::client::Client;
use crate::local::Local;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::proxy_protocol::{self, HEADER_BYTES_MAX, Reading, Subject};
use crate::refusal::Refusal;
use crate::sniff::{Head, HeadLimits, Sniff, Sniffer};

/// Reads until the head is complete. Gives back the head and every byte that the client sent, to be
/// replayed; a PROXY header is not among them.
pub(crate) async fn read_head(
    local: &Local,
    client: &Client,
    protocol: Protocol,
) -> Result<(Head, Vec<u8>), Outcome> {
    let limits = head_limits(local);
    // One byte beyond the limit is enough to see that it is exceeded; what lies behind a head
    // that fits stays in the socket for the relay.
    let bytes_max = 1 + match protocol {
        Protocol::Tls => limits.hello_bytes_max,
        Protocol::Http => limits.request_head_bytes_max,
        // What comes behind the header is the relay's.
        Protocol::Tcp => 0,
    };
    let mut front = Front::of(local, client, protocol)?;
    let mut sniffer = Sniffer::new(protocol, limits);
    let mut received = Vec::new();
    loop {
        // The borrow of the core's buffer ends with this block, before anything is awaited.
        let read = {
            let mut buffer = local.buffer.borrow_mut();
            let room = buffer
                .len()
                .min(bytes_max + front.bytes_max() - received.len());
            let read = client.socket().recv(&mut buffer[..room]);
            received.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
            read
        };
        match read {
            Ok(0) => return Err(left(client, &received)),
            Ok(_) if !front.pass(local, client, &mut received)? => {}
            Ok(_) => match sniffer.advance(&received) {
                Sniff::Found(head) => return Ok((head, received)),
                Sniff::Refused(refusal) => return Err(Outcome::Refused(refusal)),
                Sniff::More => {}
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = local.ring.readable(client.socket()).await;
            }
            Err(_) => return Err(left(client, &received)),
        }
    }
}

/// Reads what a proxy in front of an HTTP client has to say of it, where one may. Gives back what
/// the client has sent behind it.
pub(crate) async fn read_front(local: &Local, client: &Client) -> Result<Vec<u8>, Outcome> {
    let mut front = Front::of(local, client, Protocol::Http)?;
    let mut received = Vec::new();
    while front != Front::Closed {
        let read = {
            let mut buffer = local.buffer.borrow_mut();
            let read = client.socket().recv(&mut buffer);
            received.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
            read
        };
        match read {
            Ok(0) => return Err(left(client, &received)),
            Ok(_) if !front.pass(local, client, &mut received)? => {}
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = local.ring.readable(client.socket()).await;
            }
            Err(_) => return Err(left(client, &received)),
        }
    }
    Ok(received)
}

/// How the connection ends when no more bytes come.
pub(crate) fn left(client: &Client, received: &[u8]) -> Outcome {
    let subject = client.introduction().map(|header| header.subject);
    match subject {
        Some(Subject::Sender) if received.is_empty() => Outcome::HealthCheck,
        _ => Outcome::ClientLeft,
    }
}

/// The place in front of the client's bytes where a PROXY header may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// The sender may not say for whom it speaks.
    Closed,
    /// It may.
    Open,
    /// It has to.
    Required,
    /// What comes is the client's.
    Passed,
}

impl Front {
    /// One getpeername(2), and none where nobody may send headers.
    ///
    /// # Errors
    /// For a sender who is not believed at a receiving end, which serves no direct clients; for one
    /// that has reset the connection by now, as HAProxy's checks do, and is nobody any more: neither
    /// to be believed nor to be accused.
    fn of(local: &Local, client: &Client, protocol: Protocol) -> Result<Front, Outcome> {
        let settings = &local.proxy;
        if settings.from.is_empty() {
            return Ok(Front::Closed);
        }
        let is_receiving_end = protocol == Protocol::Tcp;
        let sender = client.peer().ok_or(Outcome::ClientLeft)?;
        match settings.trusts(sender) {
            true if settings.required || is_receiving_end => Ok(Front::Required),
            true => Ok(Front::Open),
            false if is_receiving_end => Err(Outcome::Refused(Refusal::ProxyUntrusted)),
            false => Ok(Front::Closed),
        }
    }

    /// Room for a header beside what the client may send.
    fn bytes_max(self) -> usize {
        match self {
            Front::Open | Front::Required => HEADER_BYTES_MAX,
            // The signature has room in the client's.
            Front::Closed | Front::Passed => 0,
        }
    }

    /// Takes a header off the front. Whether the rest is the client's own; if not, more is needed.
    fn pass(
        &mut self,
        local: &Local,
        client: &Client,
        received: &mut Vec<u8>,
    ) -> Result<bool, Outcome> {
        let refused = |refusal| Err(Outcome::Refused(refusal));
        match *self {
            Front::Passed => return Ok(true),
            // Not a byte behind the signature is looked at: who may not speak is not listened to.
            Front::Closed => match proxy_protocol::begins_with_signature(received) {
                None => return Ok(false),
                Some(true) => return refused(Refusal::ProxyUntrusted),
                Some(false) => {}
            },
            Front::Open | Front::Required => match proxy_protocol::read(received) {
                Reading::More => return Ok(false),
                Reading::Refused(refusal) => return refused(refusal),
                Reading::Absent if *self == Front::Required => {
                    return refused(Refusal::ProxyMissing);
                }
                Reading::Absent => {}
                Reading::Found(header, bytes) => {
                    client.introduce(header);
                    received.drain(..bytes);
                    admit::introduced(local, client)?;
                }
            },
        }
        // Where a header has used up less than it might, its room is still filled; the sniffer
        // looks no further than its own limit.
        *self = Front::Passed;
        Ok(true)
    }
}

pub(super) fn head_limits(local: &Local) -> HeadLimits {
    HeadLimits {
        hello_bytes_max: local.limits.hello_bytes_max,
        request_head_bytes_max: local.limits.request_head_bytes_max,
    }
}
