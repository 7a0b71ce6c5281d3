//! Operations under way: the slab that owns what the kernel may still use.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Waker};

use io_uring::types::Timespec;
use slab::Slab;

use super::completed::NOBODY;
use super::events::Interest;
use crate::sys::SocketAddress;

/// What the kernel may use until the operation's last completion. Owned, never read.
#[allow(dead_code)]
pub(super) enum Held {
    Descriptor(Rc<OwnedFd>),
    /// Of a poll for one event.
    Polled(Rc<OwnedFd>, Interest),
    /// Of a wait that has moved to the epoll for half-closed sockets; the ring holds no operation for it.
    HalfClosed(Rc<OwnedFd>, Interest),
    Address(Rc<OwnedFd>, Box<SocketAddress>),
    Time(Box<Timespec>),
    /// Of an operation that the kernel does not know: a turn in the bulk run queue.
    Nothing,
}

/// Who waits for the operation, and what for.
pub(super) enum Waits {
    /// A future, for the one result.
    ForOne(Option<Waker>),
    /// The result is there; the future has not looked yet.
    Done(i32),
    /// A stream of accepted descriptors.
    ForAccepts(Box<Accepting>),
    /// A stream of events, gathered until its owner looks.
    ForEvents {
        waker: Option<Waker>,
        events: u32,
        ended: bool,
    },
    /// The ring itself, for its timer.
    Timer,
    /// The ring itself, for the epoll of half-closed sockets.
    HalfClosed,
    /// Nobody any more. `accepts`: results are descriptors, to be closed.
    Nobody { accepts: bool },
}

/// Results of an accept that may yield many.
#[derive(Default)]
pub(super) struct Accepting {
    pub ready: VecDeque<io::Result<OwnedFd>>,
    pub waker: Option<Waker>,
    pub ended: bool,
}

struct Entry {
    held: Held,
    waits: Waits,
    /// Tells a new operation from an earlier one under the same key.
    generation: u32,
}

/// Every operation of one ring.
pub(super) struct Operations {
    entries: Slab<Entry>,
    generation: u32,
}

impl Operations {
    pub(super) fn with_capacity(operations: usize) -> Operations {
        Operations {
            entries: Slab::with_capacity(operations),
            generation: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, held: Held, waits: Waits) -> (u32, u64) {
        self.generation = self.generation.wrapping_add(1);
        let key = self.entries.insert(Entry {
            held,
            waits,
            generation: self.generation,
        });
        let key = u32::try_from(key).expect("fewer than 2^32 operations");
        (key, self.user_data(key))
    }

    /// The number by which the kernel knows the operation.
    pub(super) fn user_data(&self, key: u32) -> u64 {
        let generation = self.entries[key as usize].generation;
        // The top bit is kept clear so that no operation is taken for NOBODY.
        (u64::from(generation & 0x7fff_ffff) << 32) | u64::from(key)
    }

    pub(super) fn waits(&mut self, key: u32) -> &mut Waits {
        &mut self.entries[key as usize].waits
    }

    pub(super) fn held(&self, key: u32) -> &Held {
        &self.entries[key as usize].held
    }

    /// Whether it waits for a turn in the bulk run queue, and not for the kernel.
    pub(super) fn is_in_bulk_queue(&self, key: u32) -> bool {
        matches!(self.entries[key as usize].held, Held::Nothing)
    }

    pub(super) fn remove(&mut self, key: u32) {
        let entry = self.entries.remove(key as usize);
        drop(entry.held);
    }

    /// Handles one completion, and says what the ring itself has to do for it.
    pub(super) fn complete(&mut self, user_data: u64, result: i32, more: bool) -> Completion {
        if user_data == NOBODY {
            return Completion::Delivered;
        }
        let key = user_data as u32;
        debug_assert_eq!(
            self.user_data(key),
            user_data,
            "a completion of an earlier operation"
        );
        let entry = &mut self.entries[key as usize];
        match &mut entry.waits {
            Waits::ForOne(_) if let Some(unasked) = entry.held.move_to_epoll(result) => {
                return Completion::Unasked(unasked);
            }
            Waits::ForOne(waker) => {
                let waker = waker.take();
                *self.waits(key) = Waits::Done(result);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Waits::ForAccepts(accepting) => {
                accepting.ready.push_back(descriptor(result));
                accepting.ended |= !more;
                if let Some(waker) = accepting.waker.take() {
                    waker.wake();
                }
            }
            Waits::ForEvents {
                waker,
                events,
                ended,
            } => {
                *events |= u32::try_from(result).unwrap_or(0);
                *ended |= !more;
                // The waker is kept for the next event: the same task waits for it.
                if let Some(waker) = waker {
                    waker.wake_by_ref();
                }
            }
            Waits::Timer => {
                self.remove(key);
                return Completion::Timer(key);
            }
            Waits::HalfClosed => {
                self.remove(key);
                return Completion::HalfClosed;
            }
            Waits::Nobody { accepts } => {
                if *accepts {
                    drop(descriptor(result));
                }
                if !more {
                    self.remove(key);
                }
            }
            Waits::Done(_) => unreachable!("an operation with one result completed twice"),
        }
        Completion::Delivered
    }
}

/// What a completion was about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// Whoever waits has the result.
    Delivered,
    /// A poll has completed without an event that was asked for: the wait moves to the epoll.
    Unasked(Unasked),
    /// The ring's timer, by its key.
    Timer(u32),
    HalfClosed,
}

/// A wait that moves to the epoll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unasked {
    pub descriptor: RawFd,
    pub interest: Interest,
}

impl Held {
    /// Turns a poll that `result` does not end into a wait for a half-closed socket.
    fn move_to_epoll(&mut self, result: i32) -> Option<Unasked> {
        let Held::Polled(descriptor, interest) = self else {
            return None;
        };
        let interest = *interest;
        // A negative result is an error, which ends the wait.
        if result < 0 || result as u32 & interest.ends_with != 0 {
            return None;
        }
        let descriptor = descriptor.clone();
        let unasked = Unasked {
            descriptor: descriptor.as_raw_fd(),
            interest,
        };
        *self = Held::HalfClosed(descriptor, interest);
        Some(unasked)
    }
}

fn descriptor(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: a non-negative result of an accept is a descriptor that the kernel has just made for
    // this process; this is the only place that takes it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Stores the waker of the polling task, unless it is stored already.
pub(super) fn register(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn descriptor_of_a_file() -> Rc<OwnedFd> {
        Rc::new(File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn a_later_operation_under_the_same_key_has_another_number() {
        let mut operations = Operations::with_capacity(1);
        operations.generation = u32::MAX - 1;
        let mut numbers = Vec::new();
        for _ in 0..4 {
            let (key, user_data) = operations.insert(Held::Nothing, Waits::ForOne(None));
            assert_eq!((key, user_data as u32), (0, 0));
            numbers.push(user_data);
            operations.remove(key);
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 4);
        assert!(!numbers.contains(&NOBODY));
        assert_eq!(operations.complete(NOBODY, 0, false), Completion::Delivered);
    }

    #[test]
    fn a_poll_goes_over_when_it_reports_what_it_was_not_asked_for() {
        let descriptor = descriptor_of_a_file();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut operations = Operations::with_capacity(1);
        let held = Held::Polled(Rc::clone(&descriptor), Interest::FAILED);
        let (key, user_data) = operations.insert(held, Waits::ForOne(Some(waker)));
        let unasked = Completion::Unasked(Unasked {
            descriptor: descriptor.as_raw_fd(),
            interest: Interest::FAILED,
        });
        let hang_up = libc::POLLHUP.into();
        assert_eq!(operations.complete(user_data, hang_up, false), unasked);
        assert!(matches!(operations.held(key), Held::HalfClosed(..)));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        let error = libc::POLLERR.into();
        operations.complete(user_data, error, false);
        assert!(matches!(operations.waits(key), Waits::Done(result) if *result == error));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_accepted_for_nobody_is_closed() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut operations = Operations::with_capacity(1);
        let nobody = Waits::Nobody { accepts: true };
        let (_, user_data) = operations.insert(Held::Nothing, nobody);
        operations.complete(user_data, writer.into_raw_fd(), true);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the only writer is gone");
        operations.complete(user_data, -libc::ECANCELED, false);
        assert_eq!(operations.len(), 0);
    }

    /// What becomes of one operation.
    #[derive(Clone, Copy, PartialEq)]
    enum Stage {
        Waits,
        Done,
        /// Its future was dropped before its completion came.
        Dropped,
    }

    proptest! {
        #[test]
        fn a_descriptor_is_held_from_the_start_to_the_last_completion(
            steps in prop::collection::vec((0u8..3, any::<prop::sample::Index>()), 1..60)
        ) {
            let descriptor = descriptor_of_a_file();
            let mut operations = Operations::with_capacity(2);
            let mut known: Vec<(u32, u64, Stage)> = Vec::new();
            for (action, which) in steps {
                if action == 0 || known.is_empty() {
                    let held = Held::Descriptor(Rc::clone(&descriptor));
                    let (key, user_data) = operations.insert(held, Waits::ForOne(None));
                    known.push((key, user_data, Stage::Waits));
                    continue;
                }
                let at = which.index(known.len());
                let (key, user_data, stage) = known[at];
                match (action, stage) {
                    (1, Stage::Waits) => {
                        operations.complete(user_data, 7, false);
                        known[at].2 = Stage::Done;
                    }
                    (1, Stage::Dropped) => {
                        operations.complete(user_data, 7, false);
                        known.swap_remove(at);
                    }
                    (2, Stage::Waits) => {
                        *operations.waits(key) = Waits::Nobody { accepts: false };
                        known[at].2 = Stage::Dropped;
                    }
                    (2, Stage::Done) => {
                        operations.remove(key);
                        known.swap_remove(at);
                    }
                    _ => {}
                }
                prop_assert_eq!(operations.len(), known.len());
                prop_assert_eq!(Rc::strong_count(&descriptor), 1 + known.len());
            }
        }
    }
}
