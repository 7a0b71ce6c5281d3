//! A race between backends for one client: several have its hello, and the first that answers gets the
//! client (elsewhere called hedging). Only the newest candidate may have what the client sends meanwhile.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::client::LookupEntry;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::relay::{FirstEvent, KEEP_ALIVE_AFTER, Relay};
use crate::ring::Deadline;
use crate::state::Local;
use crate::upstream::Attempts;

/// A connection to a backend that has the client's head.
pub(super) struct Connected {
    pub relay: Relay,
    /// Ends with the connection.
    pub _lookup_entry: Option<Box<LookupEntry>>,
    pub head_bytes: usize,
}

/// A backend that has the client's head and whose answer is awaited.
pub(super) struct Candidate {
    pub connected: Connected,
    /// When the backend had been sent the head.
    pub head_sent: Instant,
    /// Which attempt it is, counted from 1.
    pub attempts: u32,
    /// The id of the connection in the backend's PROXY header, where it got one.
    pub id: Option<Box<str>>,
}

/// The backends that have the hello of one client.
#[derive(Default)]
pub(super) struct Race {
    /// The one that got the hello last.
    newest: Option<Candidate>,
    /// Those that did not answer in time, oldest first; hardly ever any.
    earlier: Vec<Candidate>,
}

/// One candidate of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Newest,
    /// The index among the earlier ones.
    Earlier(usize),
}

/// What has happened first, and on the connection to which candidate.
#[derive(Debug, Clone, Copy)]
pub(super) struct CandidateEvent {
    pub position: Position,
    pub event: FirstEvent,
}

/// How work that ran beside a race has ended.
pub(super) enum WorkOrEvent<T> {
    Done(T),
    /// An earlier candidate had an event first, and the work was dropped.
    Event(CandidateEvent),
}

impl Race {
    /// Whether another backend has to get the hello before the race can go on.
    pub(super) fn needs_candidate(&self) -> bool {
        self.newest.is_none()
    }

    /// Whether there are no earlier candidates.
    pub(super) fn has_only_newest(&self) -> bool {
        self.earlier.is_empty()
    }

    pub(super) fn enter(&mut self, candidate: Candidate) {
        self.newest = Some(candidate);
    }

    /// Makes the last of the earlier candidates the newest again, since no other backend can get the
    /// hello. `false` when there is none.
    pub(super) fn fall_back(&mut self) -> bool {
        self.newest = self.earlier.pop();
        self.newest.is_some()
    }

    /// Ends the race with the newest candidate, whatever has become of it.
    pub(super) fn into_newest(mut self) -> Candidate {
        self.newest.take().expect("the race has a candidate")
    }

    /// Lets another backend join beside the newest one, which took too long.
    pub(super) fn open_to_another(&mut self, local: &Local, attempts: &mut Attempts) {
        if let Some(newest) = self.newest.take() {
            let backend = newest.connected.relay.live();
            attempts.record_retry(local, backend, Outcome::BackendTimeout);
            self.earlier.push(newest);
        }
    }

    /// Does `work` until it is done or an earlier candidate has an event.
    pub(super) async fn beside<F: Future>(
        &mut self,
        local: &Local,
        work: F,
    ) -> WorkOrEvent<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(WorkOrEvent::Done(done)),
            Poll::Pending => self.poll_earlier(local, context).map(WorkOrEvent::Event),
        })
        .await
    }

    /// Waits until one of the candidates has an event. `None` when that takes too long: while there is
    /// another backend that might get the hello, longer than a first byte may take; otherwise longer
    /// than a connection may be idle.
    pub(super) async fn next_event(
        &mut self,
        local: &Local,
        attempts: &Attempts,
        has_another: impl Fn(&Attempts) -> bool,
        deadline: &Deadline,
    ) -> Option<CandidateEvent> {
        let newest = self.newest.as_ref().expect("the race has a candidate");
        let head_sent = newest.head_sent;
        if has_another(attempts) {
            let live = newest.connected.relay.live();
            let ends = local.ring.now() + live.patience(local.limits.first_byte_deadline);
            deadline.set(ends.min(attempts.ends()));
            let event = poll_fn(|context| self.poll(local, deadline, context)).await;
            if event.is_some() || has_another(attempts) {
                return event;
            }
        }
        let ends = head_sent + local.limits.idle_deadline;
        let keep_alive_at = ends.min(local.ring.now() + KEEP_ALIVE_AFTER);
        deadline.set(keep_alive_at);
        let event = poll_fn(|context| self.poll(local, deadline, context)).await;
        if event.is_some() || keep_alive_at == ends {
            return event;
        }
        for candidate in self.newest.iter_mut().chain(&mut self.earlier) {
            candidate.connected.relay.enable_keep_alive(local);
        }
        deadline.set(ends);
        poll_fn(|context| self.poll(local, deadline, context)).await
    }

    /// Takes the candidate that had an event out of the race. `Some` when the connection goes on with it;
    /// otherwise its connection is over.
    pub(super) fn settle(
        &mut self,
        local: &Local,
        attempts: &mut Attempts,
        CandidateEvent { position, event }: CandidateEvent,
    ) -> Option<Candidate> {
        let mut candidate = match position {
            Position::Newest => self.newest.take().expect("the race has a candidate"),
            Position::Earlier(index) => self.earlier.remove(index),
        };
        let live = candidate.connected.relay.live();
        match event {
            FirstEvent::BackendAnswered => {
                attempts.record_answer(local, live.backend());
                // A late first byte is a failure only of those that had the hello before this one.
                let slower = |other: &&Candidate| other.head_sent < candidate.head_sent;
                for slower in self.earlier.iter().filter(slower) {
                    let live = slower.connected.relay.live();
                    live.record_failure(local, Outcome::BackendTimeout);
                }
                return Some(candidate);
            }
            FirstEvent::ClientActive if position == Position::Newest => return Some(candidate),
            FirstEvent::BackendEnded(outcome) => attempts.record_unanswered(local, live, outcome),
            // The removal is no failure of the backend.
            FirstEvent::BackendRemoved => local.count(Counter::RetriesRemoved),
            FirstEvent::ClientActive => {}
        }
        candidate.connected.relay.abandon(local);
        None
    }

    fn poll(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Option<CandidateEvent>> {
        // The earlier ones come first: polling the newest may send it further bytes of the client.
        if let Poll::Ready(event) = self.poll_earlier(local, context) {
            return Poll::Ready(Some(event));
        }
        let newest = self.newest.as_mut().expect("the race has a candidate");
        let relay = &mut newest.connected.relay;
        if let Poll::Ready(event) = relay.poll_first_event(local, Protocol::Tls, context) {
            return Poll::Ready(Some(CandidateEvent {
                position: Position::Newest,
                event,
            }));
        }
        deadline.poll_passed(context).map(|()| None)
    }

    fn poll_earlier(&mut self, local: &Local, context: &mut Context<'_>) -> Poll<CandidateEvent> {
        for (index, earlier) in self.earlier.iter_mut().enumerate() {
            let relay = &mut earlier.connected.relay;
            if let Poll::Ready(event) = relay.poll_first_answer(local, Protocol::Tls, context) {
                return Poll::Ready(CandidateEvent {
                    position: Position::Earlier(index),
                    event,
                });
            }
        }
        Poll::Pending
    }
}
