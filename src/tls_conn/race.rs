//! Several backends have the hello of one client, and the first that answers has the client. Only the
//! one that was asked last may have what the client says meanwhile.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::client::LookupEntry;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{Begun, PROBED_AFTER, Relay};
use crate::ring::Deadline;
use crate::state::Local;
use crate::upstream::Attempts;

/// A backend that has the head, and has mostly begun to answer.
pub(super) struct Reached {
    pub relay: Relay,
    /// Ends with the connection.
    pub _lookup_entry: Option<Box<LookupEntry>>,
    pub head_bytes: usize,
}

/// A backend that has the hello and is waited for.
pub(super) struct Asked {
    pub reached: Reached,
    /// Since when it has it.
    pub since: Instant,
    pub attempts: u32,
    /// By which its log knows the connection.
    pub id: Option<Box<str>>,
}

/// Those that have the hello of one client.
#[derive(Default)]
pub(super) struct Race {
    /// The one that was asked last.
    current: Option<Asked>,
    /// Those that were waited for in vain, in the order in which they were asked; hardly ever any.
    silent: Vec<Asked>,
}

/// Who has something to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Current,
    /// The one with this number among those that kept silent.
    Silent(usize),
}

/// What came first.
pub(super) enum Meanwhile<T> {
    Done(T),
    Heard(Who, Begun),
}

impl Race {
    /// Whether another backend is to be asked.
    pub(super) fn has_nobody(&self) -> bool {
        self.current.is_none()
    }

    /// Whether no other than the one that was asked last is left.
    pub(super) fn is_alone(&self) -> bool {
        self.silent.is_empty()
    }

    pub(super) fn enter(&mut self, asked: Asked) {
        self.current = Some(asked);
    }

    /// Nobody else can be asked, so that the last one that kept silent is the best there is.
    pub(super) fn fall_back(&mut self) -> Option<()> {
        self.current = self.silent.pop();
        self.current.as_ref().map(|_| ())
    }

    /// The one that was asked last, whatever has become of it.
    pub(super) fn leave_it(mut self) -> Asked {
        self.current.take().expect("somebody was asked")
    }

    /// Another one is to be asked besides the last.
    pub(super) fn goes_on(&mut self, local: &Local, attempts: &mut Attempts) {
        if let Some(current) = self.current.take() {
            let backend = current.reached.relay.live();
            attempts.goes_on(local, backend, Outcome::BackendTimeout);
            self.silent.push(current);
        }
    }

    /// Does `work`, as long as nobody who kept silent has something to tell.
    pub(super) async fn meanwhile<F: Future>(
        &mut self,
        local: &Local,
        work: F,
    ) -> Meanwhile<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Meanwhile::Done(done)),
            Poll::Pending => {
                let heard = self.poll_silent(local, context);
                heard.map(|(who, begun)| Meanwhile::Heard(who, begun))
            }
        })
        .await
    }

    /// Waits until one of them has something to tell: while another backend may be asked, as long as a
    /// first byte may take, which is `None`, otherwise as long as a connection may be idle.
    pub(super) async fn listen(
        &mut self,
        local: &Local,
        attempts: &Attempts,
        has_another: impl Fn(&Attempts) -> bool,
        deadline: &Deadline,
    ) -> Option<(Who, Begun)> {
        let current = self.current.as_ref().expect("somebody was asked");
        let since = current.since;
        if has_another(attempts) {
            let live = current.reached.relay.live();
            let ends = local.ring.now() + live.patience(local.limits.first_byte_deadline);
            deadline.set(ends.min(attempts.ends()));
            let heard = poll_fn(|context| self.poll(local, deadline, context)).await;
            if heard.is_some() || has_another(attempts) {
                return heard;
            }
        }
        let ends = since + local.limits.idle_deadline;
        let probed_at = ends.min(local.ring.now() + PROBED_AFTER);
        deadline.set(probed_at);
        let heard = poll_fn(|context| self.poll(local, deadline, context)).await;
        if heard.is_some() || probed_at == ends {
            return heard;
        }
        for one in self.current.iter_mut().chain(&mut self.silent) {
            one.reached.relay.probe(local);
        }
        deadline.set(ends);
        poll_fn(|context| self.poll(local, deadline, context)).await
    }

    /// What was heard of one of them; `Some` is the one that the connection goes on with.
    pub(super) fn settle(
        &mut self,
        local: &Local,
        attempts: &mut Attempts,
        who: Who,
        begun: Begun,
    ) -> Option<Asked> {
        let mut one = match who {
            Who::Current => self.current.take().expect("somebody was asked"),
            Who::Silent(nth) => self.silent.remove(nth),
        };
        match begun {
            Begun::Answered => {
                attempts.answered(local, one.reached.relay.live().backend());
                // A slow first byte is a failure only of those that had the hello before and were slower.
                for slower in self.silent.iter().filter(|other| other.since < one.since) {
                    let live = slower.reached.relay.live();
                    live.failed(local, Outcome::BackendTimeout);
                }
                return Some(one);
            }
            Begun::ClientWentOn if who == Who::Current => return Some(one),
            Begun::Unanswered(outcome) => {
                attempts.unanswered(local, one.reached.relay.live(), outcome);
            }
            // No fault of its own.
            Begun::Removed => local.count(Counter::WentRound),
            Begun::ClientWentOn => {}
        }
        one.reached.relay.give_up(local);
        None
    }

    fn poll(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Option<(Who, Begun)>> {
        // Before the client's bytes go to the last one.
        if let Poll::Ready(heard) = self.poll_silent(local, context) {
            return Poll::Ready(Some(heard));
        }
        let current = self.current.as_mut().expect("somebody was asked");
        let relay = &mut current.reached.relay;
        if let Poll::Ready(begun) = relay.poll_begin(local, Protocol::Tls, context) {
            return Poll::Ready(Some((Who::Current, begun)));
        }
        deadline.poll_passed(context).map(|()| None)
    }

    fn poll_silent(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<(Who, Begun)> {
        for (nth, silent) in self.silent.iter_mut().enumerate() {
            let relay = &mut silent.reached.relay;
            if let Poll::Ready(begun) = relay.poll_answer(local, Protocol::Tls, context) {
                return Poll::Ready((Who::Silent(nth), begun));
            }
        }
        Poll::Pending
    }
}
