//! The client's end of the connection: what came of the requests to come, and whether anything came
//! while nobody reads.

use crate::ring::Operation;
use crate::sys::Socket;

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
