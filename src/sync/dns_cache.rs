//! The addresses of backends' DNS names, and which name is to be looked up next. Names that were never
//! looked up go first, then names whose answers expire. Names that fail keep their last addresses and have
//! look-ups of their own, so that any number of dead names does not delay the others. Every step costs the
//! same however many names there are. Pure; [`resolver`](super::resolver) does the look-ups.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::due::{DueKey, DueQueue};
use crate::route::{AddressPolicy, Backend, Denied, MemberAddress};

/// The first pause after a failed look-up. Each further pause doubles, up to the longest TTL.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Look-ups in flight of names that are new or were answered. Each has two sockets, for its IPv4 and its
/// IPv6 question.
const LOOKUPS_MAX: usize = 24;

/// Look-ups in flight of names that fail, beside the others. With a dead name server a look-up takes ten
/// seconds.
const FAILING_LOOKUPS_MAX: usize = 8;

/// Answered names that are looked up again within one [`RENEWAL_WINDOW`] at most: a thousand a second. A
/// look-up costs the thread 0.15 ms, so that renewing takes a sixth of it at most, however many names there
/// are and however short their TTLs. 20,000 names with a TTL of 5 s are renewed every 20 s.
const RENEWALS_MAX: usize = 20;
const RENEWAL_WINDOW: Duration = Duration::from_millis(20);

/// What DNS answered for each name, and when to look it up again.
pub(super) struct DnsCache {
    names: HashMap<Arc<str>, Entry>,
    /// The names that wait for their next look-up, by [`Class`].
    waiting: [DueQueue<Arc<str>>; 3],
    /// Look-ups in flight: of names that fail, and of the others.
    failing_in_flight: usize,
    in_flight: usize,
    renewals: Option<Renewals>,
    counts: Counts,
    ttl_min: Duration,
    ttl_max: Duration,
    policy: AddressPolicy,
    /// Signalled when there is a new name.
    pub(super) wake: Rc<Notify>,
}

/// In the order in which names are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    New,
    Answered,
    /// The last look-up failed or timed out. The next one may take long.
    Failing,
}

/// The renewals of the current window.
#[derive(Clone, Copy)]
struct Renewals {
    since: Instant,
    count: usize,
}

struct Entry {
    /// The backends that get the addresses. A name without backends is forgotten.
    backends: Vec<Weak<Backend>>,
    addresses: Arc<Vec<IpAddr>>,
    /// Addresses of the last answer that no backend may have.
    denied: Vec<Denied>,
    class: Class,
    /// The place among those that wait; `None` while a look-up is in flight.
    ticket: Option<DueKey>,
    /// Whether a look-up was answered or failed.
    was_looked_up: bool,
    /// Failed look-ups since the last answer.
    failures: u32,
}

/// Numbers of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Without an address to connect to, whatever the reason.
    pub(super) unresolved: usize,
    /// Whose last look-up failed.
    pub(super) failing: usize,
    /// Whose last answer had addresses that no backend may have.
    pub(super) denied: usize,
    /// Whose first look-up is not finished.
    pub(super) pending: usize,
}

impl Counts {
    fn add(&mut self, entry: &Entry) {
        self.unresolved += usize::from(entry.addresses.is_empty());
        self.failing += usize::from(entry.failures > 0);
        self.denied += usize::from(!entry.denied.is_empty());
        self.pending += usize::from(!entry.was_looked_up);
    }

    fn subtract(&mut self, entry: &Entry) {
        self.unresolved -= usize::from(entry.addresses.is_empty());
        self.failing -= usize::from(entry.failures > 0);
        self.denied -= usize::from(!entry.denied.is_empty());
        self.pending -= usize::from(!entry.was_looked_up);
    }
}

/// A name to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Arc<str>,
    /// Whether the last look-up failed or timed out. Then this one may take as long as it takes; the others
    /// are given up soon.
    pub(super) is_failing: bool,
}

impl DnsCache {
    pub(super) fn new(ttl_min: Duration, ttl_max: Duration, policy: AddressPolicy) -> DnsCache {
        DnsCache {
            names: HashMap::new(),
            waiting: Default::default(),
            failing_in_flight: 0,
            in_flight: 0,
            renewals: None,
            counts: Counts::default(),
            ttl_min,
            ttl_max: ttl_max.max(ttl_min),
            policy,
            wake: Rc::default(),
        }
    }

    /// Keeps the addresses of a backend up to date from now on. Does nothing for a backend without a name.
    pub(super) fn add_backend(&mut self, backend: &Arc<Backend>, now: Instant) {
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
                    ticket: Some(ticket),
                    was_looked_up: false,
                    failures: 0,
                };
                self.counts.add(&entry);
                self.wake.notify_one();
                self.names.entry(name).or_insert(entry)
            }
        };
        let is_known = |one: &Weak<Backend>| std::ptr::eq(one.as_ptr(), Arc::as_ptr(backend));
        if !entry.backends.iter().any(is_known) {
            backend.resolve_to(usable_addresses(&self.policy, backend, &entry.addresses));
            entry.backends.push(Arc::downgrade(backend));
        }
    }

    /// The next name to look up now; `None` when none is due or too many look-ups are in flight. A name
    /// that is due and has no backends any more is forgotten.
    pub(super) fn next_question(&mut self, now: Instant) -> Option<Question> {
        loop {
            let open = self.open_classes().filter(|class| match class {
                Class::Answered => self.renewals_resume().is_none_or(|resume| resume <= now),
                Class::New | Class::Failing => true,
            });
            let open: Vec<Class> = open.collect();
            let name = open
                .into_iter()
                .find_map(|class| self.waiting[class as usize].pop_due(now))?;
            let entry = self.names.get_mut(&name)?;
            entry.ticket = None;
            entry.backends.retain(|one| one.strong_count() > 0);
            if entry.backends.is_empty() {
                self.counts.subtract(entry);
                self.names.remove(&name);
                continue;
            }
            let class = entry.class;
            if class == Class::Answered {
                self.count_renewal(now);
            }
            let is_failing = class == Class::Failing;
            *self.in_flight_mut(is_failing) += 1;
            return Some(Question { name, is_failing });
        }
    }

    /// When the next name is due that may be looked up.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |class| {
            let due = self.waiting[class as usize].next_due()?;
            Some(match class {
                Class::Answered => self.renewals_resume().map_or(due, |resume| resume.max(due)),
                Class::New | Class::Failing => due,
            })
        };
        self.open_classes().filter_map(due).min()
    }

    fn count_renewal(&mut self, now: Instant) {
        let current = self
            .renewals
            .filter(|renewals| now < renewals.since + RENEWAL_WINDOW);
        let Renewals { since, count } = current.unwrap_or(Renewals {
            since: now,
            count: 0,
        });
        self.renewals = Some(Renewals {
            since,
            count: count + 1,
        });
    }

    /// When answered names may be looked up again, if the last window has had its share of them.
    fn renewals_resume(&self) -> Option<Instant> {
        let renewals = self.renewals.filter(|one| one.count >= RENEWALS_MAX)?;
        Some(renewals.since + RENEWAL_WINDOW)
    }

    /// The classes that may have one more look-up in flight.
    fn open_classes(&self) -> impl Iterator<Item = Class> + use<> {
        let others = (self.in_flight < LOOKUPS_MAX).then_some([Class::New, Class::Answered]);
        let has_place = self.failing_in_flight < FAILING_LOOKUPS_MAX;
        let failing = has_place.then_some(Class::Failing);
        others.into_iter().flatten().chain(failing)
    }

    fn in_flight_mut(&mut self, is_failing: bool) -> &mut usize {
        if is_failing {
            &mut self.failing_in_flight
        } else {
            &mut self.in_flight
        }
    }

    /// Files an answer that is valid for `ttl`. Addresses that no backend may have are left out. True when
    /// the other addresses have changed.
    pub(super) fn set_answer(
        &mut self,
        question: &Question,
        mut addresses: Vec<IpAddr>,
        ttl: Duration,
        now: Instant,
    ) -> bool {
        // IPv4 first, and in the same order each time, although name servers rotate their answers.
        addresses.sort_unstable();
        addresses.dedup();
        let mut denied = Vec::new();
        addresses.retain(|address| match self.policy.validate_address(*address) {
            Ok(()) => true,
            Err(one) => {
                denied.push(one);
                false
            }
        });
        let next = now + ttl.clamp(self.ttl_min, self.ttl_max);
        *self.in_flight_mut(question.is_failing) -= 1;
        let Some(entry) = self.names.get_mut(&question.name) else {
            return false;
        };
        self.counts.subtract(entry);
        entry.was_looked_up = true;
        entry.failures = 0;
        entry.class = Class::Answered;
        let waiting = &mut self.waiting[Class::Answered as usize];
        entry.ticket = Some(waiting.insert(next, Arc::clone(&question.name)));
        let is_new = *entry.addresses != addresses;
        if is_new {
            entry.addresses = Arc::new(addresses);
        }
        if entry.denied != denied {
            entry.denied = denied;
            log_denied(&question.name, &entry.denied);
        }
        self.counts.add(entry);
        if is_new {
            entry.backends.retain(|backend| {
                let Some(backend) = backend.upgrade() else {
                    return false;
                };
                backend.resolve_to(usable_addresses(&self.policy, &backend, &entry.addresses));
                true
            });
        }
        is_new
    }

    /// A look-up was given up because no answer came soon. The name is looked up again at once, among those
    /// that fail.
    pub(super) fn set_timed_out(&mut self, question: &Question, now: Instant) {
        *self.in_flight_mut(question.is_failing) -= 1;
        if let Some(entry) = self.names.get_mut(&question.name) {
            entry.class = Class::Failing;
            let waiting = &mut self.waiting[Class::Failing as usize];
            entry.ticket = Some(waiting.insert(now, Arc::clone(&question.name)));
        }
    }

    /// Files a failed look-up. The last good addresses stay in use. Gives back how many look-ups have failed
    /// in a row.
    pub(super) fn set_failure(&mut self, question: &Question, now: Instant) -> u32 {
        *self.in_flight_mut(question.is_failing) -= 1;
        let Some(entry) = self.names.get_mut(&question.name) else {
            return 0;
        };
        self.counts.subtract(entry);
        entry.was_looked_up = true;
        entry.failures += 1;
        self.counts.add(entry);
        let pause = RETRY_MIN * 2u32.pow((entry.failures - 1).min(16));
        entry.class = Class::Failing;
        let waiting = &mut self.waiting[Class::Failing as usize];
        let next = now + pause.min(self.ttl_max);
        entry.ticket = Some(waiting.insert(next, Arc::clone(&question.name)));
        entry.failures
    }

    /// Makes every name due now, because the name servers may have changed. Names without addresses go
    /// first, and earlier failures do not count.
    pub(super) fn expire_all(&mut self, now: Instant) {
        for (name, entry) in &mut self.names {
            let Some(ticket) = entry.ticket else {
                continue;
            };
            self.waiting[entry.class as usize].remove(ticket);
            entry.class = if entry.addresses.is_empty() {
                Class::New
            } else {
                Class::Answered
            };
            entry.ticket = Some(self.waiting[entry.class as usize].insert(now, Arc::clone(name)));
        }
        self.wake.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

fn log_denied(name: &str, denied: &[Denied]) {
    if let Some(first) = denied.first() {
        let (addresses, reason) = (denied.len(), first.to_string());
        tracing::warn!(
            dns.question.name = name,
            addresses,
            reason,
            "addresses of a backend name are skipped"
        );
    }
}

/// The addresses without those where the proxy itself listens on the backend's port.
fn usable_addresses(
    policy: &AddressPolicy,
    backend: &Backend,
    addresses: &Arc<Vec<IpAddr>>,
) -> Arc<Vec<IpAddr>> {
    let port = match &backend.member().address {
        MemberAddress::Name(_, port) => *port,
        MemberAddress::Ip(..) | MemberAddress::Unix(_) => return Arc::clone(addresses),
    };
    let own = |address: &&IpAddr| policy.validate_not_own(**address, port).err();
    let Some(denied) = addresses.iter().find_map(|address| own(&address)) else {
        return Arc::clone(addresses);
    };
    let (backend, reason) = (backend.text(), denied.to_string());
    tracing::warn!(backend, reason, "addresses of a backend name are skipped");
    let usable = addresses.iter().filter(|address| own(address).is_none());
    Arc::new(usable.copied().collect())
}

#[cfg(test)]
mod tests;
