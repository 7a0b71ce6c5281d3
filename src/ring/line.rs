//! The line in which a core's bulk directions stand, so that they move in single file: one turn of
//! one direction, then a turn of the ring for everybody else. Without it the small exchanges that
//! became ready together with eight streams wait for eight turns.
//!
//! Who has patience lets all others go first while they have something to do: a stream that is slower
//! than the core then moves larger pieces more rarely, which is what makes bulk cheap.
//!
//! A place in it is an operation that the kernel never sees and that completes when it is called.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::operation::{Completed, Held, Operation, Waits};
use super::{Events, Ring};

/// For how long the patient let others go first: ten times what a turn of a busy core takes.
const PATIENCE: Duration = Duration::from_micros(500);

/// The result of a place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nobody else wants the core.
    Alone,
    AmongOthers,
}

impl Completed for Turn {
    fn of(result: i32) -> Turn {
        match result {
            0 => Turn::AmongOthers,
            _ => Turn::Alone,
        }
    }
}

/// What whoever moves bytes waits for.
pub(crate) enum Wait {
    Event(Operation),
    /// Its turn, mostly because the event has come.
    InLine(Operation<Turn>),
}

/// What came of a [`Wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Event(Events),
    InLine(Turn),
}

impl Wait {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Waited> {
        match self {
            Wait::Event(event) => Pin::new(event).poll(context).map(Waited::Event),
            Wait::InLine(turn) => Pin::new(turn).poll(context).map(Waited::InLine),
        }
    }
}

/// Those who stand in line, by the time since when.
#[derive(Default)]
pub(super) struct Line {
    ready: VecDeque<Place>,
    patient: VecDeque<Place>,
}

struct Place {
    user_data: u64,
    since: Instant,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.patient.is_empty()
    }

    fn next(&mut self, now: Instant, others_are_busy: bool) -> Option<u64> {
        let patient = self.patient.front();
        let patient = patient.filter(|place| !others_are_busy || now >= place.since + PATIENCE);
        let line = match (self.ready.front(), patient) {
            (Some(ready), Some(patient)) if patient.since < ready.since => &mut self.patient,
            (None, Some(_)) => &mut self.patient,
            _ => &mut self.ready,
        };
        line.pop_front().map(|place| place.user_data)
    }
}

impl Ring {
    /// Completes when it is the turn of whoever stands here; those before come first, and who
    /// `is_patient` lets all others do so for half a millisecond.
    pub(crate) fn stand_in_line(&self, is_patient: bool) -> Operation<Turn> {
        let mut operations = self.0.operations.borrow_mut();
        let (key, user_data) = operations.insert(Held::Nothing, Waits::ForOne(None));
        let mut line = self.0.line.borrow_mut();
        let line = match is_patient {
            true => &mut line.patient,
            false => &mut line.ready,
        };
        let since = self.now();
        line.push_back(Place { user_data, since });
        drop(operations);
        Operation::new(self, key)
    }

    /// Lets the next one in line go. Whether there was one; it has left the line unserved if its
    /// future was dropped.
    pub(crate) fn call_next(&self) -> bool {
        let others_are_busy = self.0.was_busy.get();
        let next = self.0.line.borrow_mut().next(self.now(), others_are_busy);
        let Some(user_data) = next else {
            return false;
        };
        // Since the last turn in line nothing has come for others: at most the event for which this
        // one came here.
        let is_alone = self.0.told.take() <= 1 && self.0.line.borrow().is_empty();
        let mut operations = self.0.operations.borrow_mut();
        operations.complete(user_data, i32::from(is_alone), false);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(line: &mut Line, now: Instant, others_are_busy: bool) -> Vec<u64> {
        std::iter::from_fn(|| line.next(now, others_are_busy)).collect()
    }

    #[test]
    fn the_patient_go_last_until_their_patience_ends() {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let line = || Line {
            patient: [(1, 0), (4, 30)]
                .map(|(user_data, us)| Place {
                    user_data,
                    since: at(us),
                })
                .into(),
            ready: [(2, 10), (3, 20)]
                .map(|(user_data, us)| Place {
                    user_data,
                    since: at(us),
                })
                .into(),
        };
        assert_eq!(called(&mut line(), at(40), true), [2, 3]);
        assert_eq!(called(&mut line(), at(500), true), [1, 2, 3]);
        assert_eq!(called(&mut line(), at(530), true), [1, 2, 3, 4]);
        // Nobody else wants the core.
        assert_eq!(called(&mut line(), at(40), false), [1, 2, 3, 4]);
        assert!(!line().is_empty() && Line::default().is_empty());
    }
}
