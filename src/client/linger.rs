//! Lingering close: sends a last response and reads on until the client has it. Closing with bytes of
//! the client unread resets the connection and destroys a response on its way (RFC 9112 section 9.6). A
//! client reads no response before the end of its upload, so the bytes that it still sends have no
//! bound; the time has one.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::ring::{Deadline, Operation, Wait};
use crate::state::Local;
use crate::sys::{Socket, is_transient};

/// A client that neither sends nor acknowledges anything for this long is given up. Twice the first
/// retransmission timeout (RFC 6298 section 2).
const SILENCE: Duration = Duration::from_secs(2);
/// The whole time for lingering, unless the body deadline is shorter. nginx waits as long
/// (`lingering_time`).
const LINGER_DEADLINE: Duration = Duration::from_secs(30);
/// Reads before other connections have their turn: four buffers, less than 0.1 ms.
const TURN_READS: u32 = 4;

/// Sends `response`, then the end of the stream, and discards what the client sends, until the client
/// has finished or its time is over.
pub(crate) async fn linger(local: &Local, client: &Socket, response: &[u8], deadline: &Deadline) {
    let most = LINGER_DEADLINE.min(local.limits.body_deadline);
    let now = local.ring.now();
    let mut linger = Linger {
        local,
        client,
        response,
        writable: None,
        discard: Discard::default(),
        unacknowledged_bytes: usize::MAX,
        ends: now + most,
    };
    if response.is_empty() {
        client.shutdown_write();
    }
    deadline.set(linger.ends.min(now + SILENCE));
    poll_fn(|context| linger.poll(deadline, context)).await;
}

struct Linger<'l> {
    local: &'l Local,
    client: &'l Socket,
    /// The part that is still to be sent.
    response: &'l [u8],
    writable: Option<Operation>,
    discard: Discard,
    /// Bytes that the client had not acknowledged when it was last looked at.
    unacknowledged_bytes: usize,
    ends: Instant,
}

impl Linger<'_> {
    fn poll(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<()> {
        if self.send(context).is_err() {
            return Poll::Ready(());
        }
        let finished = self.discard.poll(self.local, self.client, context);
        if finished.is_ready() && self.response.is_empty() {
            return Poll::Ready(());
        }
        while deadline.poll_passed(context).is_ready() {
            let now = self.local.ring.now();
            let unacknowledged_bytes = self.response.len() + self.client.unacknowledged_bytes();
            let has_acknowledged =
                unacknowledged_bytes > 0 && unacknowledged_bytes < self.unacknowledged_bytes;
            if !self.discard.take_progress() && !has_acknowledged || now >= self.ends {
                return Poll::Ready(());
            }
            self.unacknowledged_bytes = unacknowledged_bytes;
            deadline.set(self.ends.min(now + SILENCE));
        }
        Poll::Pending
    }

    fn send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.response.is_empty() {
            if let Some(writable) = &mut self.writable {
                if Pin::new(writable).poll(context).is_pending() {
                    return Ok(());
                }
                self.writable = None;
            }
            match self.client.send(self.response) {
                Ok(sent) => {
                    self.response = &self.response[sent..];
                    if self.response.is_empty() {
                        self.client.shutdown_write();
                    }
                }
                Err(error) if is_transient(&error) => {
                    self.writable = Some(self.local.ring.writable(self.client));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads what a client sends and discards it.
#[derive(Default)]
pub(crate) struct Discard {
    /// For more to read, or for its turn in the bulk run queue.
    wait: Option<Wait>,
    has_read: bool,
    is_over: bool,
}

impl Discard {
    /// Ready when the client has finished or failed.
    pub(crate) fn poll(
        &mut self,
        local: &Local,
        client: &Socket,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut reads_left = TURN_READS;
        while !self.is_over {
            if let Some(wait) = &mut self.wait {
                ready!(wait.poll(context));
                self.wait = None;
            }
            if reads_left == 0 {
                self.wait = Some(Wait::Turn(local.ring.yield_to_queue(true)));
                continue;
            }
            let read = client.recv(&mut local.buffer.borrow_mut());
            match read {
                Ok(0) => self.is_over = true,
                Ok(_) => {
                    reads_left -= 1;
                    self.has_read = true;
                }
                Err(error) if is_transient(&error) => {
                    self.wait = Some(Wait::Event(local.ring.readable(client)));
                }
                Err(_) => self.is_over = true,
            }
        }
        Poll::Ready(())
    }

    /// Whether anything was read since this was asked last.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_read)
    }
}
