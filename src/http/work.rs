//! How much a parser does, counted so that tests can say that it is linear in what it reads whatever
//! the machine is busy with. Outside of tests there is no count.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// A parser has looked at so much.
#[inline(always)]
pub(super) fn done(steps: usize) {
    #[cfg(test)]
    STEPS.set(STEPS.get() + steps);
    #[cfg(not(test))]
    let _ = steps;
}

/// The steps that this thread takes within `f`.
#[cfg(test)]
pub(super) fn of(f: impl FnOnce()) -> usize {
    let before = STEPS.get();
    f();
    STEPS.get() - before
}
