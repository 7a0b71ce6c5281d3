//! The client's end of the connection: what came of the requests to come, and whether anything came
//! while nobody reads.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::ring::{Deadline, Operation};
use crate::state::Local;
use crate::sys::Socket;

/// What a wait for the client has ended with.
pub(super) enum Waited {
    Readable,
    Draining,
    TooLong,
}

/// The client's end, as far as it is watched while a response is awaited.
pub(super) struct ClientEnd {
    pub socket: Socket,
    /// Bytes received; the first `used` of them belong to requests that were taken in.
    pub(super) held: Vec<u8>,
    used: usize,
    /// Completes when the client sends, finishes or fails.
    pub watch: Option<Operation>,
    /// The watch has completed: there is something to read.
    pub has_spoken: bool,
}

impl ClientEnd {
    pub(super) fn new(socket: Socket, received: Vec<u8>) -> ClientEnd {
        ClientEnd {
            socket,
            held: received,
            used: 0,
            watch: None,
            has_spoken: false,
        }
    }

    /// Waits until there is something to read; `may_drain`: or until a drain lets go of the client.
    pub(super) async fn wait(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        may_drain: bool,
    ) -> Waited {
        let watch = self
            .watch
            .get_or_insert_with(|| local.ring.readable(&self.socket));
        let waited = poll_fn(|context| {
            if Pin::new(&mut *watch).poll(context).is_ready() {
                return Poll::Ready(Waited::Readable);
            }
            if may_drain && let Some(leaves) = local.idle_leaves_at(deadline) {
                if local.ring.now() >= leaves {
                    return Poll::Ready(Waited::Draining);
                }
                deadline.set_no_later(leaves);
            }
            deadline.poll_passed(context).map(|()| Waited::TooLong)
        })
        .await;
        if let Waited::Readable = waited {
            self.watch = None;
        }
        waited
    }

    /// What was received of the requests to come.
    pub(super) fn pending(&self) -> &[u8] {
        &self.held[self.used..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Once per read, so that what was used does not pile up behind a client that never pauses.
        self.held.drain(..std::mem::take(&mut self.used));
        self.held.extend_from_slice(bytes);
    }

    /// The first `bytes` of what is pending are done with. Many small requests may come in one
    /// piece, so the rest is not moved; where nothing is left, no memory is held.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.held.len() {
            self.held = Vec::new();
            self.used = 0;
        }
    }
}
