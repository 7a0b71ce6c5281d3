//! DNS names of backends: asked for again when their answers end, the last good answer kept when
//! asking fails. The book is pure; the task at the foot asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::config::{LOOKUPS_MAX, SyncConfig};
use super::truth::Truth;
use crate::protect::{BackendPolicy, Denied};
use crate::route::{Backend, MemberAddress};

/// First pause after a failed question; each further one doubles, up to the longest TTL.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// What DNS said about each name, and when to ask again.
pub(super) struct Book {
    names: HashMap<Box<str>, Entry>,
    ttl_min: Duration,
    ttl_max: Duration,
    policy: BackendPolicy,
    /// Signalled when a name is new.
    pub(super) wake: Rc<Notify>,
}

struct Entry {
    /// Those that get the answer; a name without any is forgotten.
    backends: Vec<Weak<Backend>>,
    addresses: Arc<Vec<IpAddr>>,
    /// Of the last answer, left out.
    denied: Vec<Denied>,
    next: Instant,
    asking: bool,
    answered: bool,
    failures: u32,
}

impl Book {
    pub(super) fn new(ttl_min: Duration, ttl_max: Duration, policy: BackendPolicy) -> Book {
        Book {
            names: HashMap::new(),
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
        let entry = self.names.entry(name.into()).or_insert_with(|| {
            self.wake.notify_one();
            Entry {
                backends: Vec::new(),
                addresses: Arc::default(),
                denied: Vec::new(),
                next: now,
                asking: false,
                answered: false,
                failures: 0,
            }
        });
        let known = |one: &Weak<Backend>| std::ptr::eq(one.as_ptr(), Arc::as_ptr(backend));
        if !entry.backends.iter().any(known) {
            backend.resolve_to(others(&self.policy, backend, &entry.addresses));
            entry.backends.push(Arc::downgrade(backend));
        }
    }

    /// At most `count` names to ask for now. Names that no backend has any more are dropped.
    fn due(&mut self, now: Instant, count: usize) -> Vec<Box<str>> {
        self.names.retain(|_, entry| {
            entry.next > now || entry.asking || {
                entry.backends.retain(|backend| backend.strong_count() > 0);
                !entry.backends.is_empty()
            }
        });
        let waiting = self.names.iter_mut();
        let due = waiting.filter(|(_, entry)| entry.next <= now && !entry.asking);
        due.take(count)
            .map(|(name, entry)| {
                entry.asking = true;
                name.clone()
            })
            .collect()
    }

    /// When the next name is due.
    fn next(&self) -> Option<Instant> {
        let waiting = self.names.values().filter(|entry| !entry.asking);
        waiting.map(|entry| entry.next).min()
    }

    /// Files an answer that holds for `ttl`, without the addresses where no backend may be. True when
    /// the others are new.
    fn answer(
        &mut self,
        name: &str,
        mut addresses: Vec<IpAddr>,
        ttl: Duration,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.names.get_mut(name) else {
            return false;
        };
        entry.asking = false;
        entry.answered = true;
        entry.failures = 0;
        entry.next = now + ttl.clamp(self.ttl_min, self.ttl_max);
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
        if entry.denied != denied {
            entry.denied = denied;
            if let Some(first) = entry.denied.first() {
                let (count, reason) = (entry.denied.len(), first.to_string());
                tracing::warn!(
                    name,
                    count,
                    reason,
                    "addresses of a backend name are skipped"
                );
            }
        }
        if *entry.addresses == addresses {
            return false;
        }
        entry.addresses = Arc::new(addresses);
        entry.backends.retain(|backend| {
            let alive = backend.upgrade();
            alive
                .inspect(|backend| {
                    backend.resolve_to(others(&self.policy, backend, &entry.addresses));
                })
                .is_some()
        });
        true
    }

    /// Files a failure: the last good addresses stay. Gives back how many in a row there were.
    fn fail(&mut self, name: &str, now: Instant) -> u32 {
        let Some(entry) = self.names.get_mut(name) else {
            return 0;
        };
        entry.asking = false;
        entry.answered = true;
        entry.failures += 1;
        let pause = RETRY_MIN * 2u32.pow((entry.failures - 1).min(16));
        entry.next = now + pause.min(self.ttl_max);
        entry.failures
    }

    /// Every name is asked for again.
    pub(super) fn expire_all(&mut self, now: Instant) {
        self.names.values_mut().for_each(|entry| entry.next = now);
        self.wake.notify_one();
    }

    /// Names that were never answered nor refused.
    pub(super) fn unanswered(&self) -> usize {
        self.names.values().filter(|entry| !entry.answered).count()
    }

    /// Names whose last answer had addresses where no backend may be.
    pub(super) fn denied(&self) -> usize {
        let denied = |entry: &&Entry| !entry.denied.is_empty();
        self.names.values().filter(denied).count()
    }

    pub(super) fn failing(&self) -> usize {
        self.names
            .values()
            .filter(|entry| entry.failures > 0)
            .count()
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

/// Asks for names as they come due, for ever. `reload` says that resolv.conf or hosts may be new.
pub(super) async fn keep_asking(
    truth: Rc<RefCell<Truth>>,
    config: Rc<SyncConfig>,
    reload: Rc<Notify>,
) -> Infallible {
    let wake = Rc::clone(&truth.borrow().book.wake);
    let mut resolver = resolver(&config.dns_servers);
    let mut asking = JoinSet::new();
    loop {
        let (due, next) = {
            let book = &mut truth.borrow_mut().book;
            let due = book.due(Instant::now(), LOOKUPS_MAX - asking.len());
            (due, book.next())
        };
        for name in due {
            let resolver = resolver.clone();
            asking.spawn(async move {
                let answer = resolver.lookup_ip(&*name).await;
                (name, answer)
            });
        }
        let full = asking.len() >= LOOKUPS_MAX;
        let pause = async {
            match next {
                Some(next) if !full => tokio::time::sleep_until(next.into()).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Ok((name, answer))) = asking.join_next() => {
                let now = Instant::now();
                let answer = answer.map(|found| {
                    let ttl = found.valid_until().saturating_duration_since(now);
                    (found.iter().collect(), ttl)
                });
                file(&mut truth.borrow_mut(), &name, answer, now);
            }
            () = pause => {}
            () = wake.notified() => {}
            () = reload.notified() => {
                resolver = self::resolver(&config.dns_servers);
                truth.borrow_mut().book.expire_all(Instant::now());
            }
        }
    }
}

type Answer = Result<(Vec<IpAddr>, Duration), NetError>;

fn file(truth: &mut Truth, name: &str, answer: Answer, now: Instant) {
    match answer {
        Ok((addresses, ttl)) => {
            let count = addresses.len();
            if truth.book.answer(name, addresses, ttl, now) {
                tracing::debug!(name, count, "backend name resolved");
            }
        }
        Err(error) => {
            if truth.book.fail(name, now) == 1 {
                let error = error.to_string();
                tracing::warn!(
                    name,
                    error,
                    "backend name does not resolve, keeping its last addresses; check the name and the DNS servers"
                );
            }
        }
    }
    let (failing, denied) = (truth.book.failing(), truth.book.denied());
    truth.shared.update(|status| {
        status.names_failing = failing;
        status.names_denied = denied;
    });
    truth.check_ready();
}

fn resolver(servers: &[SocketAddr]) -> TokioResolver {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder(provider).unwrap_or_else(|error| {
            let error = error.to_string();
            tracing::warn!(error, "resolv.conf cannot be used, only /etc/hosts is");
            let config = ResolverConfig::from_name_servers(Vec::new());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        })
    } else {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut one| {
                one.port = address.port();
                one
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, provider)
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // The book is the cache; a second one would stretch its TTLs.
    options.cache_size = 0;
    builder
        .build()
        .expect("a plain resolver needs nothing that can be missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::route::Registry;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_reaches_every_backend_and_lasts_its_ttl_within_bounds() {
        let start = Instant::now();
        let mut registry = Registry::new();
        let mut book = Book::new(5 * SECOND, 300 * SECOND, BackendPolicy::default());
        let one = registry.intern("app.test:1").unwrap();
        book.adopt(&one, start);
        book.adopt(&one, start);
        assert_eq!((book.due(start, 9).len(), book.due(start, 9).len()), (1, 0));
        assert!(book.answer("app.test", vec![ip("::1"), ip("10.0.0.1")], SECOND, start));
        assert_eq!(one.address_count(), 2);
        assert_eq!(book.next(), Some(start + 5 * SECOND), "the lower bound");
        let two = registry.intern("app.test:2").unwrap();
        book.adopt(&two, start);
        assert_eq!(two.address_count(), 2, "known addresses at once");
        assert!(two.address(Protocol::Tls, 0).is_some());
        let later = start + 5 * SECOND;
        assert_eq!(book.due(later, 9).len(), 1);
        assert!(!book.answer(
            "app.test",
            vec![ip("10.0.0.1"), ip("::1")],
            900 * SECOND,
            later
        ));
        assert_eq!(book.next(), Some(later + 300 * SECOND), "the upper bound");
    }

    #[test]
    fn addresses_where_no_backend_may_be_are_left_out() {
        let now = Instant::now();
        let mut registry = Registry::new();
        let mut book = Book::new(SECOND, SECOND, BackendPolicy::default());
        let backend = registry.intern("app.test:1").unwrap();
        book.adopt(&backend, now);
        let inside = [ip("169.254.169.254"), ip("10.0.0.1"), ip("fe80::1")];
        assert!(book.answer("app.test", inside.to_vec(), SECOND, now));
        assert_eq!((backend.address_count(), book.denied()), (1, 1));
        assert!(book.answer("app.test", vec![ip("169.254.169.254")], SECOND, now));
        assert_eq!((backend.address_count(), book.denied()), (0, 1));
        assert!(book.answer("app.test", vec![ip("10.0.0.1")], SECOND, now));
        assert_eq!((backend.address_count(), book.denied()), (1, 0));
    }

    #[test]
    fn failures_keep_the_last_addresses_and_back_off() {
        let mut now = Instant::now();
        let mut registry = Registry::new();
        let mut book = Book::new(5 * SECOND, 60 * SECOND, BackendPolicy::default());
        let backend = registry.intern("app.test").unwrap();
        book.adopt(&backend, now);
        assert_eq!(book.unanswered(), 1);
        book.due(now, 1);
        book.answer("app.test", vec![ip("10.0.0.1")], SECOND, now);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            now = book.next().unwrap();
            assert_eq!(book.due(now, 1).len(), 1);
            book.fail("app.test", now);
            assert_eq!(book.next(), Some(now + pause * SECOND));
        }
        assert_eq!(
            (backend.address_count(), book.failing(), book.unanswered()),
            (1, 1, 0)
        );
        drop((backend, registry));
        assert!(book.due(book.next().unwrap(), 1).is_empty());
        assert_eq!(book.next(), None, "a name without backends is forgotten");
    }
}
