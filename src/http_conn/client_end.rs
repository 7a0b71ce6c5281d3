//! The client's end of the connection: its socket, the bytes that were received of requests to come, and
//! whether more may have come while nobody was reading.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::ring::{Deadline, Operation};
use crate::state::Local;
use crate::sys::Socket;

/// What a wait for the client has ended with.
pub(super) enum ClientWait {
    Readable,
    Draining,
    TimedOut,
}

/// The client's socket and what was received ahead.
pub(super) struct ClientStream {
    pub socket: Socket,
    /// Received bytes; the first `used` of them belong to requests that were parsed.
    pub received: Vec<u8>,
    used: usize,
    /// Completes when the client sends, finishes or fails.
    pub watch: Option<Operation>,
    /// The socket may have something to read, so that reading comes before waiting.
    pub has_unread: bool,
}

impl ClientStream {
    pub(super) fn new(socket: Socket, received: Vec<u8>) -> ClientStream {
        ClientStream {
            socket,
            received,
            used: 0,
            watch: None,
            has_unread: false,
        }
    }

    /// Waits until there is something to read. With `may_drain` the wait ends, too, when a drain lets go
    /// of the client.
    pub(super) async fn wait(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        may_drain: bool,
    ) -> ClientWait {
        let watch = self
            .watch
            .get_or_insert_with(|| local.ring.readable(&self.socket));
        let waited = poll_fn(|context| {
            if Pin::new(&mut *watch).poll(context).is_ready() {
                return Poll::Ready(ClientWait::Readable);
            }
            if may_drain && let Some(leaves) = local.idle_leaves_at(deadline) {
                if local.ring.now() >= leaves {
                    return Poll::Ready(ClientWait::Draining);
                }
                deadline.set_no_later(leaves);
            }
            deadline.poll_passed(context).map(|()| ClientWait::TimedOut)
        })
        .await;
        if let ClientWait::Readable = waited {
            self.watch = None;
        }
        waited
    }

    /// The received bytes of requests that were not parsed yet.
    pub(super) fn pending(&self) -> &[u8] {
        &self.received[self.used..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Removed once per read, so that used bytes do not pile up with a client that never pauses.
        self.received.drain(..std::mem::take(&mut self.used));
        self.received.extend_from_slice(bytes);
    }

    /// Marks the first `bytes` of the pending ones as used. The others are not moved, since many small
    /// requests may have come in one piece. When nothing is pending, no memory is held.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.received.len() {
            self.received = Vec::new();
            self.used = 0;
        }
    }
}
