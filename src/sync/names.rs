//! What DNS said about the names of backends, and which name is to be asked for next. Names that
//! were never asked for go first, then those whose answers end; names that fail keep their last good
//! answer and have a share of the look-ups of their own, so that any number of dead names takes
//! nothing from the living. Every step costs the same however many names there are. Pure; it is
//! asked by [`resolve`](super::resolve).

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::{FAILING_LOOKUPS_MAX, LOOKUPS_MAX, RENEWALS_MAX, RENEWALS_TURN};
use crate::due::{DueQueue, Ticket};
use crate::protect::{BackendPolicy, Denied};
use crate::route::{Backend, MemberAddress};

/// First pause after a failed question; each further one doubles, up to the longest TTL.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// What DNS said about each name, and when to ask again.
pub(super) struct Book {
    names: HashMap<Arc<str>, Entry>,
    /// Those that wait, by [`Class`].
    waiting: [DueQueue<Arc<str>>; 3],
    /// Look-ups under way, of those expected to be answered and of those that fail.
    asking: usize,
    asking_failing: usize,
    /// Since when answered names are counted that are asked for again, and how many.
    turn: Option<(Instant, usize)>,
    counts: Counts,
    ttl_min: Duration,
    ttl_max: Duration,
    policy: BackendPolicy,
    /// Signalled when a name is new.
    pub(super) wake: Rc<Notify>,
}

/// In the order in which they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    New,
    Answered,
    /// Their look-ups may take long and are few.
    Failing,
}

struct Entry {
    /// Those that get the answer; a name without any is forgotten.
    backends: Vec<Weak<Backend>>,
    addresses: Arc<Vec<IpAddr>>,
    /// Of the last answer, left out.
    denied: Vec<Denied>,
    class: Class,
    /// `None` while it is asked for.
    waits: Option<Ticket>,
    /// Whether there was an answer or a failure.
    settled: bool,
    failures: u32,
}

/// How many names are how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Without an address to connect to, whatever the reason.
    pub(super) unresolved: usize,
    /// Whose last question failed.
    pub(super) failing: usize,
    /// Whose last answer had addresses where no backend may be.
    pub(super) denied: usize,
    /// Neither answered nor refused so far.
    pub(super) unsettled: usize,
}

impl Counts {
    fn enter(&mut self, entry: &Entry) {
        self.unresolved += usize::from(entry.addresses.is_empty());
        self.failing += usize::from(entry.failures > 0);
        self.denied += usize::from(!entry.denied.is_empty());
        self.unsettled += usize::from(!entry.settled);
    }

    fn leave(&mut self, entry: &Entry) {
        self.unresolved -= usize::from(entry.addresses.is_empty());
        self.failing -= usize::from(entry.failures > 0);
        self.denied -= usize::from(!entry.denied.is_empty());
        self.unsettled -= usize::from(!entry.settled);
    }
}

/// A name to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Arc<str>,
    /// Whether it may take as long as it takes. The others are expected to be answered, and give
    /// their place up when they are not.
    pub(super) is_patient: bool,
}

impl Book {
    pub(super) fn new(ttl_min: Duration, ttl_max: Duration, policy: BackendPolicy) -> Book {
        Book {
            names: HashMap::new(),
            waiting: Default::default(),
            asking: 0,
            asking_failing: 0,
            turn: None,
            counts: Counts::default(),
            ttl_min,
            ttl_max: ttl_max.max(ttl_min),
            policy,
            wake: Rc::default(),
        }
    }

    /// Takes care of a backend from now on; one that is no DNS name needs none.
    pub(super) fn adopt(&mut self, backend: &Arc<Backend>, now: Instant) {
        let Some(name) = backend.name() else {
            return;
        };
        let entry = match self.names.get_mut(name) {
            Some(entry) => entry,
            None => {
                let name: Arc<str> = name.into();
                let ticket = self.waiting[Class::New as usize].insert(now, Arc::clone(&name));
                let entry = Entry {
                    backends: Vec::new(),
                    addresses: Arc::default(),
                    denied: Vec::new(),
                    class: Class::New,
                    waits: Some(ticket),
                    settled: false,
                    failures: 0,
                };
                self.counts.enter(&entry);
                self.wake.notify_one();
                self.names.entry(name).or_insert(entry)
            }
        };
        let known = |one: &Weak<Backend>| std::ptr::eq(one.as_ptr(), Arc::as_ptr(backend));
        if !entry.backends.iter().any(known) {
            backend.resolve_to(others(&self.policy, backend, &entry.addresses));
            entry.backends.push(Arc::downgrade(backend));
        }
    }

    /// The next name to ask for now, if there is one and its share has room. Names that no backend
    /// has any more are forgotten when it would be their turn.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Question> {
        loop {
            let open = self.open_classes().filter(|class| match class {
                Class::Answered => self.next_turn().is_none_or(|next| next <= now),
                Class::New | Class::Failing => true,
            });
            let open: Vec<Class> = open.collect();
            let name = open
                .into_iter()
                .find_map(|class| self.waiting[class as usize].pop_due(now))?;
            let entry = self.names.get_mut(&name)?;
            entry.waits = None;
            entry.backends.retain(|one| one.strong_count() > 0);
            if entry.backends.is_empty() {
                self.counts.leave(entry);
                self.names.remove(&name);
                continue;
            }
            let is_patient = entry.class == Class::Failing;
            if entry.class == Class::Answered {
                self.turn = match self.turn {
                    Some((since, count)) if now < since + RENEWALS_TURN => Some((since, count + 1)),
                    _ => Some((now, 1)),
                };
            }
            *self.share(is_patient) += 1;
            return Some(Question { name, is_patient });
        }
    }

    /// When the next name is due whose share has room.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = |class| {
            let due = self.waiting[class as usize].next_due()?;
            Some(match class {
                Class::Answered => self.next_turn().map_or(due, |turn| turn.max(due)),
                Class::New | Class::Failing => due,
            })
        };
        self.open_classes().filter_map(due).min()
    }

    /// Before when no answered name is asked for again, if this turn has had its share of them.
    fn next_turn(&self) -> Option<Instant> {
        let (since, _) = self.turn.filter(|(_, count)| *count >= RENEWALS_MAX)?;
        Some(since + RENEWALS_TURN)
    }

    fn open_classes(&self) -> impl Iterator<Item = Class> + use<> {
        let expected = (self.asking < LOOKUPS_MAX).then_some([Class::New, Class::Answered]);
        let failing = (self.asking_failing < FAILING_LOOKUPS_MAX).then_some(Class::Failing);
        expected.into_iter().flatten().chain(failing)
    }

    fn share(&mut self, is_patient: bool) -> &mut usize {
        if is_patient {
            &mut self.asking_failing
        } else {
            &mut self.asking
        }
    }

    /// Files an answer that holds for `ttl`, without the addresses where no backend may be. True when
    /// the others are new.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        mut addresses: Vec<IpAddr>,
        ttl: Duration,
        now: Instant,
    ) -> bool {
        // IPv4 first, and in the same order each time, whatever the rotation of the server.
        addresses.sort_unstable();
        addresses.dedup();
        let mut denied = Vec::new();
        addresses.retain(|address| match self.policy.check(*address) {
            Ok(()) => true,
            Err(one) => {
                denied.push(one);
                false
            }
        });
        let next = now + ttl.clamp(self.ttl_min, self.ttl_max);
        *self.share(question.is_patient) -= 1;
        let Some(entry) = self.names.get_mut(&question.name) else {
            return false;
        };
        self.counts.leave(entry);
        entry.settled = true;
        entry.failures = 0;
        entry.class = Class::Answered;
        let place = &mut self.waiting[Class::Answered as usize];
        entry.waits = Some(place.insert(next, Arc::clone(&question.name)));
        let is_new = *entry.addresses != addresses;
        if is_new {
            entry.addresses = Arc::new(addresses);
        }
        if entry.denied != denied {
            entry.denied = denied;
            tell_denied(&question.name, &entry.denied);
        }
        self.counts.enter(entry);
        if is_new {
            entry.backends.retain(|backend| {
                let alive = backend.upgrade();
                alive
                    .inspect(|backend| {
                        backend.resolve_to(others(&self.policy, backend, &entry.addresses));
                    })
                    .is_some()
            });
        }
        is_new
    }

    /// Nothing came while an answer was expected: the question is asked again at once, with patience,
    /// among those that fail.
    pub(super) fn set_slow(&mut self, question: &Question, now: Instant) {
        *self.share(question.is_patient) -= 1;
        if let Some(entry) = self.names.get_mut(&question.name) {
            entry.class = Class::Failing;
            let place = &mut self.waiting[Class::Failing as usize];
            entry.waits = Some(place.insert(now, Arc::clone(&question.name)));
        }
    }

    /// Files a failure: the last good addresses stay. Gives back how many in a row there were.
    pub(super) fn fail(&mut self, question: &Question, now: Instant) -> u32 {
        *self.share(question.is_patient) -= 1;
        let Some(entry) = self.names.get_mut(&question.name) else {
            return 0;
        };
        self.counts.leave(entry);
        entry.settled = true;
        entry.failures += 1;
        self.counts.enter(entry);
        let pause = RETRY_MIN * 2u32.pow((entry.failures - 1).min(16));
        entry.class = Class::Failing;
        let place = &mut self.waiting[Class::Failing as usize];
        let next = now + pause.min(self.ttl_max);
        entry.waits = Some(place.insert(next, Arc::clone(&question.name)));
        entry.failures
    }

    /// Every name is asked for again, those first that have no address: who is asked may be another,
    /// so that what failed with the last one counts for nothing.
    pub(super) fn expire_all(&mut self, now: Instant) {
        for (name, entry) in &mut self.names {
            let Some(ticket) = entry.waits else {
                continue;
            };
            self.waiting[entry.class as usize].remove(ticket);
            entry.class = if entry.addresses.is_empty() {
                Class::New
            } else {
                Class::Answered
            };
            entry.waits = Some(self.waiting[entry.class as usize].insert(now, Arc::clone(name)));
        }
        self.wake.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

fn tell_denied(name: &str, denied: &[Denied]) {
    if let Some(first) = denied.first() {
        let (count, reason) = (denied.len(), first.to_string());
        tracing::warn!(
            name,
            count,
            reason,
            "addresses of a backend name are skipped"
        );
    }
}

/// The addresses without those where the proxy itself listens, as the backend's port has it.
fn others(
    policy: &BackendPolicy,
    backend: &Backend,
    addresses: &Arc<Vec<IpAddr>>,
) -> Arc<Vec<IpAddr>> {
    let port = match &backend.member().address {
        MemberAddress::Name(_, port) => *port,
        MemberAddress::Ip(..) | MemberAddress::Unix(_) => return Arc::clone(addresses),
    };
    let own = |address: &&IpAddr| policy.check_own(**address, port).err();
    let Some(denied) = addresses.iter().find_map(|address| own(&address)) else {
        return Arc::clone(addresses);
    };
    let (member, reason) = (backend.text(), denied.to_string());
    tracing::warn!(member, reason, "addresses of a backend name are skipped");
    let others = addresses.iter().filter(|address| own(address).is_none());
    Arc::new(others.copied().collect())
}

#[cfg(test)]
mod tests;
