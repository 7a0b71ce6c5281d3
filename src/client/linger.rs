//! The last words to a client, and reading on until it has them: closing with bytes of the client
//! unread resets the connection and destroys an answer on its way (RFC 9112 section 9.6). Who is
//! within an upload reads no answer before its end, so how much it still sends is no bound; time is.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::ring::{Deadline, Operation, Wait};
use crate::state::Local;
use crate::sys::{Socket, is_transient};

/// A client that neither sends nor takes anything for this long has what it will ever have. Two of
/// the waits after which a lost segment is sent again (RFC 6298 section 2).
const SILENCE: Duration = Duration::from_secs(2);
/// As long it may go on sending, or taking what is under way, all in all; less where the body deadline
/// is less. nginx waits as long.
const LINGER_DEADLINE: Duration = Duration::from_secs(30);
/// Read before everybody else has a turn: four buffers, less than a tenth of a millisecond.
const TURN_READS: u32 = 4;

/// Sends `words`, then the end of stream, and meanwhile reads and forgets what the client sends,
/// until it has finished or its time is over.
pub(crate) async fn linger(local: &Local, client: &Socket, words: &[u8], deadline: &Deadline) {
    let most = LINGER_DEADLINE.min(local.limits.body_deadline);
    let now = local.ring.now();
    let mut linger = Linger {
        local,
        client,
        words,
        writable: None,
        discard: Discard::default(),
        left_bytes: usize::MAX,
        ends: now + most,
    };
    if words.is_empty() {
        client.shutdown_write();
    }
    deadline.set(linger.ends.min(now + SILENCE));
    poll_fn(|context| linger.poll(deadline, context)).await;
}

struct Linger<'l> {
    local: &'l Local,
    client: &'l Socket,
    /// What is still to be sent.
    words: &'l [u8],
    writable: Option<Operation>,
    discard: Discard,
    /// What the client had not acknowledged when the present silence began.
    left_bytes: usize,
    ends: Instant,
}

impl Linger<'_> {
    fn poll(&mut self, deadline: &Deadline, context: &mut Context<'_>) -> Poll<()> {
        if self.send(context).is_err() {
            return Poll::Ready(());
        }
        let finished = self.discard.poll(self.local, self.client, context);
        if finished.is_ready() && self.words.is_empty() {
            return Poll::Ready(());
        }
        while deadline.poll_passed(context).is_ready() {
            let now = self.local.ring.now();
            let left_bytes = self.words.len() + self.client.unacknowledged();
            let takes = left_bytes > 0 && left_bytes < self.left_bytes;
            if !self.discard.take_progress() && !takes || now >= self.ends {
                return Poll::Ready(());
            }
            self.left_bytes = left_bytes;
            deadline.set(self.ends.min(now + SILENCE));
        }
        Poll::Pending
    }

    fn send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.words.is_empty() {
            if let Some(writable) = &mut self.writable {
                if Pin::new(writable).poll(context).is_pending() {
                    return Ok(());
                }
                self.writable = None;
            }
            match self.client.send(self.words) {
                Ok(sent) => {
                    self.words = &self.words[sent..];
                    if self.words.is_empty() {
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

/// Reads and forgets what a client sends.
#[derive(Default)]
pub(crate) struct Discard {
    /// For more to read, or for its turn.
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
