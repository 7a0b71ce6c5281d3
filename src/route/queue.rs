//! Who waits for a place at a backend that has as many connections as it may: first come, first
//! served, across cores and hosts. Whoever closes a connection hands its place to the one who waits
//! longest; as long as somebody waits nobody else is let in, see [`Vitals::open`].
//!
//! Locked only where somebody waits: that is a bit in the count of live connections, which the one
//! who closes sees as it counts down.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::backend::Backend;
use super::vitals::Vitals;
use crate::primitives::{AtomicU32, Mutex, MutexGuard};

/// Nobody has given it a place.
const WAITS: u32 = 0;
/// It takes none any more.
const GONE: u32 = u32::MAX;

/// Those who wait for one backend.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

/// By the most live connections that their host allows the backend, then by their numbers: a host
/// that allows fewer does not hold up one that allows more.
type Waiting = BTreeMap<NonZeroU32, BTreeMap<u64, Stand>>;

/// Where one of them stands in this queue.
#[derive(Debug)]
struct Stand {
    turn: Arc<Turn>,
    /// Which of its queues this is.
    nth: u32,
}

/// What those who give places away see of one who waits.
#[derive(Debug)]
struct Turn {
    /// [`WAITS`], [`GONE`], or 1 and the number of the queue in which its turn has come.
    state: AtomicU32,
    /// May be woken by any thread.
    waker: Waker,
}

/// One who waits in the queues of all backends that would do, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    turn: Arc<Turn>,
    queues: Vec<Wanted>,
}

/// A backend, and how many live connections it may have.
pub(crate) type Wanted = (Arc<Backend>, NonZeroU32);

impl Ticket {
    /// A place in the order of all who wait, behind those who have one.
    pub(crate) fn next_number() -> u64 {
        use std::sync::atomic::AtomicU64;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Relaxed)
    }

    /// Waits for the first of these backends that has a place. `waker` is woken when there is one, on
    /// whatever thread it became free.
    pub(crate) fn enter(number: u64, queues: Vec<Wanted>, waker: Waker) -> Ticket {
        let ticket = Ticket {
            number,
            turn: Arc::new(Turn {
                state: AtomicU32::new(WAITS),
                waker,
            }),
            queues,
        };
        for (nth, (backend, max)) in ticket.queues.iter().enumerate() {
            let stand = Stand {
                turn: Arc::clone(&ticket.turn),
                nth: nth as u32,
            };
            backend.queue().enter(backend.vitals(), *max, number, stand);
        }
        ticket
    }

    pub(crate) fn has_place(&self) -> bool {
        self.turn.state.load(Acquire) != WAITS
    }

    /// The backend whose place it has got. It is counted as one of its live connections, and the
    /// caller has to [`Backend::close`] it.
    pub(crate) fn take_place(self) -> Option<Arc<Backend>> {
        self.leave()
    }

    fn leave(&self) -> Option<Arc<Backend>> {
        let state = self.turn.state.swap(GONE, AcqRel);
        for (backend, max) in &self.queues {
            backend.queue().leave(backend.vitals(), *max, self.number);
        }
        match state {
            WAITS | GONE => None,
            nth => Some(Arc::clone(&self.queues[nth as usize - 1].0)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.turn.state.load(Acquire) != GONE
            && let Some(unused) = self.leave()
        {
            unused.close();
        }
    }
}

impl Queue {
    fn enter(&self, vitals: &Vitals, max: NonZeroU32, number: u64, stand: Stand) {
        let mut waiting = self.lock();
        waiting.entry(max).or_default().insert(number, stand);
        vitals.set_waited_for(true);
        // What became free before is given to whom it belongs, which may be this one.
        hand_out(&mut waiting, vitals);
    }

    fn leave(&self, vitals: &Vitals, max: NonZeroU32, number: u64) {
        let mut waiting = self.lock();
        remove(&mut waiting, max, number);
        hand_out(&mut waiting, vitals);
    }

    /// A place may have become free.
    pub(super) fn hand_out(&self, vitals: &Vitals) {
        hand_out(&mut self.lock(), vitals);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives away what is free, and lets everybody in again when nobody waits.
fn hand_out(waiting: &mut Waiting, vitals: &Vitals) {
    while let Some((number, max)) = next(waiting, vitals.live()) {
        if !vitals.open_in_turn(max) {
            continue;
        }
        let stand = remove(waiting, max, number).expect("it was found there");
        let turn = &stand.turn.state;
        match turn.compare_exchange(WAITS, stand.nth + 1, AcqRel, Relaxed) {
            Ok(_) => stand.turn.waker.wake_by_ref(),
            // It has a place elsewhere, or is about to leave.
            Err(_) => vitals.close_in_turn(),
        }
    }
    if waiting.is_empty() {
        vitals.set_waited_for(false);
    }
}

/// The one who has waited longest of those for whom there is room beside so many live connections.
fn next(waiting: &Waiting, live: u32) -> Option<(u64, NonZeroU32)> {
    let more_than_live = NonZeroU32::new(live.saturating_add(1))?;
    let of_each = waiting.range(more_than_live..).filter_map(|(max, alike)| {
        let (number, _) = alike.first_key_value()?;
        Some((*number, *max))
    });
    of_each.min()
}

fn remove(waiting: &mut Waiting, max: NonZeroU32, number: u64) -> Option<Stand> {
    let alike = waiting.get_mut(&max)?;
    let stand = alike.remove(&number);
    if alike.is_empty() {
        waiting.remove(&max);
    }
    stand
}

#[cfg(test)]
mod tests;
