//! Reads the head of a connection: first the PROXY header, where the sender may send one, then the
//! client's own first bytes, until they contain a complete hello.

use std::io;

use crate::client::{Client, ProxyPhase, early_close_outcome};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::sniff::{Head, Sniff, Sniffer};
use crate::state::Local;

/// Reads until the head is complete. Returns the head and every byte that the client has sent, to be sent
/// to the backend; a PROXY header is not among them.
pub(crate) async fn read_head(
    local: &Local,
    client: &Client,
    protocol: Protocol,
) -> Result<(Head, Vec<u8>), Outcome> {
    // Only TLS has a hello. With plain TCP, everything behind the PROXY header goes to the backend unread.
    let mut sniffer =
        (protocol == Protocol::Tls).then(|| Sniffer::new(local.limits.hello_bytes_max));
    let hello_bytes_max = sniffer.as_ref().map_or(0, |_| local.limits.hello_bytes_max);
    // One byte more than the limit is enough to see that a hello exceeds it. Bytes behind a hello that
    // fits stay in the socket for the relay.
    let bytes_max = hello_bytes_max + 1;
    let mut phase = ProxyPhase::of(local, client, protocol)?;
    let mut received = Vec::new();
    loop {
        // The borrow of the worker's buffer ends with this block, before anything is awaited.
        let read = {
            let mut buffer = local.buffer.borrow_mut();
            let room = buffer
                .len()
                .min(bytes_max + phase.bytes_max() - received.len());
            let read = client.socket().recv(&mut buffer[..room]);
            received.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
            read
        };
        match read {
            Ok(0) => return Err(early_close_outcome(client, &received)),
            Ok(_) if !phase.advance(local, client, &mut received)? => {}
            Ok(_) => {
                let Some(sniffer) = &mut sniffer else {
                    return Ok((Head::default(), received));
                };
                match sniffer.advance(&received) {
                    Sniff::Found(head) => return Ok((head, received)),
                    Sniff::Refused(refusal) => return Err(Outcome::Refused(refusal)),
                    Sniff::More => {}
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = local.ring.readable(client.socket()).await;
            }
            Err(_) => return Err(early_close_outcome(client, &received)),
        }
    }
}
