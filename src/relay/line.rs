//! The line in which a core's bulk directions stand, so that they move in single file: one turn of
//! one direction, then a turn of the ring for everybody else. Without it the small exchanges that
//! became ready together with eight streams wait for eight turns.
//!
//! Whoever stands in line is woken by the driver of the core and by nobody else, so the driver must
//! not block while the line is not empty.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The line of one core; a clone is the same line.
#[derive(Debug, Clone, Default)]
pub struct Line(Rc<RefCell<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// By number, which only grows.
    places: VecDeque<(u64, Waker)>,
    next_number: u64,
}

impl Line {
    /// A place at the end.
    pub fn stand(&self, context: &Context<'_>) -> Place {
        let mut waiting = self.0.borrow_mut();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.places.push_back((number, context.waker().clone()));
        Place {
            line: self.clone(),
            number,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().places.is_empty()
    }

    /// Lets the first one go and wakes its task. Whether there was one.
    pub fn call_next(&self) -> bool {
        let Some((_, waker)) = self.0.borrow_mut().places.pop_front() else {
            return false;
        };
        waker.wake();
        true
    }
}

/// A place in the line, given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    line: Line,
    number: u64,
}

impl Place {
    /// Ready once it has been called.
    pub fn poll_called(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.line.0.borrow_mut();
        let Ok(index) = waiting.index(self.number) else {
            return Poll::Ready(());
        };
        let (_, waker) = &mut waiting.places[index];
        if !waker.will_wake(context.waker()) {
            *waker = context.waker().clone();
        }
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.line.0.borrow_mut();
        if let Ok(index) = waiting.index(self.number) {
            waiting.places.remove(index);
        }
    }
}

impl Waiting {
    fn index(&self, number: u64) -> Result<usize, usize> {
        self.places.binary_search_by_key(&number, |(one, _)| *one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_is_called_and_who_leaves_is_passed_over() {
        let line = Line::default();
        let context = Context::from_waker(Waker::noop());
        let places: Vec<Place> = (0..4).map(|_| line.stand(&context)).collect();
        let called = |places: &[Place]| -> Vec<bool> {
            let called = places.iter().map(|place| place.poll_called(&context));
            called.map(|poll| poll.is_ready()).collect()
        };
        assert_eq!(called(&places), [false; 4]);
        assert!(line.call_next());
        assert_eq!(called(&places), [true, false, false, false]);
        let [first, second, third, fourth] = <[Place; 4]>::try_from(places).unwrap();
        drop((first, second));
        assert!(line.call_next());
        assert_eq!(called(&[third, fourth]), [true, false]);
        assert!(line.is_empty(), "a dropped place is given up");
        assert!(!line.call_next());
    }
}
