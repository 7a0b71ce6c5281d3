//! The line in which a core's bulk directions stand, so that they move in single file: one turn of
//! one direction, then a turn of the ring for everybody else. Without it the small exchanges that
//! became ready together with eight streams wait for eight turns.
//!
//! A place in it is an operation that the kernel never sees and that completes when it is called.

use super::Ring;
use super::operation::{Held, Operation, Waits};

impl Ring {
    /// Completes when it is the turn of whoever stands here; those before come first.
    pub fn stand_in_line(&self) -> Operation {
        let mut operations = self.0.operations.borrow_mut();
        let (key, user_data) = operations.insert(Held::Nothing, Waits::ForOne(None));
        self.0.line.borrow_mut().push_back(user_data);
        drop(operations);
        Operation::new(self, key)
    }

    /// Lets the first one in line go. Whether there was one; it has left the line unserved if its
    /// future was dropped.
    pub fn call_next(&self) -> bool {
        let Some(user_data) = self.0.line.borrow_mut().pop_front() else {
            return false;
        };
        self.0.operations.borrow_mut().complete(user_data, 0, false);
        true
    }

    /// Whether somebody stands in line, so that the driver must not block.
    pub(super) fn has_line(&self) -> bool {
        !self.0.line.borrow().is_empty()
    }
}
