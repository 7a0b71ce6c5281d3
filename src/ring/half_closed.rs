//! Waits on half-closed sockets. io_uring's poll reports POLLRDHUP unasked, so on a socket whose peer has
//! finished sending, a wait for room or for a failure would complete at once, again and again. Such a wait
//! moves to one epoll of the worker. That reports only what it was asked for, and only changes (EPOLLET),
//! so that POLLHUP, which it adds unasked once both directions have ended, comes once.
//!
//! The ring polls the epoll while a wait is in it. A wait moves here only after its plain poll has
//! completed without an event that it asked for; most connections never have such a wait.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use hashbrown::HashMap;

use super::events::Interest;
use crate::sys::Epoll;

/// One wait: the number of its operation, and what ends it.
struct Waiting {
    user_data: u64,
    interest: Interest,
}

/// The waits of a worker, by descriptor, because an epoll takes each descriptor once.
pub(super) struct HalfClosed {
    epoll: Epoll,
    by_descriptor: HashMap<RawFd, Vec<Waiting>>,
    /// The ring polls the epoll.
    is_polled: bool,
    /// Empty between calls; kept for its memory.
    taken: Vec<(RawFd, u32)>,
}

impl HalfClosed {
    pub(super) fn new() -> io::Result<HalfClosed> {
        Ok(HalfClosed {
            epoll: Epoll::new()?,
            by_descriptor: HashMap::new(),
            is_polled: false,
            taken: Vec::new(),
        })
    }

    /// Adds a wait. If the kernel has no memory for it (ENOMEM, ENOSPC) it never completes, and the deadline
    /// that every wait has ends it.
    pub(super) fn add(&mut self, descriptor: RawFd, user_data: u64, interest: Interest) {
        let waiting = self.by_descriptor.entry(descriptor).or_default();
        let is_known = !waiting.is_empty();
        waiting.push(Waiting {
            user_data,
            interest,
        });
        let asked = asked(waiting);
        if is_known {
            let _ = self.epoll.modify(descriptor, asked);
        } else if self.epoll.add(descriptor, asked).is_err() {
            self.by_descriptor.remove(&descriptor);
        }
    }

    /// Removes a wait whose future was dropped.
    pub(super) fn remove(&mut self, descriptor: RawFd, user_data: u64) {
        if let Some(waiting) = self.by_descriptor.get_mut(&descriptor) {
            waiting.retain(|waiting| waiting.user_data != user_data);
            self.forget_if_done(descriptor);
        }
    }

    /// Calls `ends` with the operation and the events of each wait that is over.
    pub(super) fn take(&mut self, mut ends: impl FnMut(u64, u32)) {
        let mut taken = std::mem::take(&mut self.taken);
        while self.epoll.take(&mut taken) {}
        for (descriptor, events) in taken.drain(..) {
            let Some(waiting) = self.by_descriptor.get_mut(&descriptor) else {
                continue;
            };
            waiting.retain(|waiting| {
                let is_over = events & waiting.interest.ends_with != 0;
                if is_over {
                    ends(waiting.user_data, events);
                }
                !is_over
            });
            self.forget_if_done(descriptor);
        }
        self.taken = taken;
    }

    /// The epoll, if the ring has to begin to poll it; the caller then does.
    pub(super) fn begin_poll(&mut self) -> Option<Rc<OwnedFd>> {
        if self.is_polled || self.by_descriptor.is_empty() {
            return None;
        }
        self.is_polled = true;
        Some(self.epoll.descriptor().clone())
    }

    pub(super) fn poll_ended(&mut self) {
        self.is_polled = false;
    }

    pub(super) fn is_polled(&self) -> bool {
        self.is_polled
    }

    fn forget_if_done(&mut self, descriptor: RawFd) {
        if self.by_descriptor[&descriptor].is_empty() {
            self.by_descriptor.remove(&descriptor);
            self.epoll.remove(descriptor);
        }
    }
}

fn asked(waiting: &[Waiting]) -> u32 {
    waiting
        .iter()
        .fold(0, |asked, waiting| asked | waiting.interest.asked)
}
