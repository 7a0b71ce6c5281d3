//! One backend and the addresses it can be reached at right now.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::check_state::CheckState;
use super::member::{Member, MemberAddress};
use super::member_options::Delivery;
use super::queue::Queue;
use super::share::Share;
use super::vitals::Vitals;
use crate::protocol::Protocol;

/// Where to connect. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Inet(SocketAddr),
    Unix(Arc<Path>),
}

/// One member, interned process-wide by [`Registry`](super::Registry): the same member in many
/// routes is one backend, so that its live count is one count.
#[derive(Debug)]
pub struct Backend {
    slot: u32,
    /// Without a share, which is the route's.
    member: Member,
    text: Box<str>,
    /// The same in every process that has the same member; see [`Backend::identity`].
    identity: u64,
    vitals: Vitals,
    queue: Queue,
    /// How many routes have it; counted by the registry.
    routes: AtomicU32,
    /// What DNS last said; stays empty for the other kinds. The resolver stores, cores load.
    resolved: ArcSwap<Vec<IpAddr>>,
    /// What it is asked; for an operator to see, not for a choice.
    checks: Mutex<Vec<Weak<CheckState>>>,
}

impl Backend {
    pub(super) fn new(slot: u32, member: Member, empty: &Arc<Vec<IpAddr>>) -> Backend {
        debug_assert_eq!(member.share, Share::default(), "the share is the route's");
        let text = member.to_string();
        Backend {
            slot,
            member,
            identity: fnv1a(text.as_bytes()),
            text: text.into(),
            vitals: Vitals::default(),
            queue: Queue::default(),
            routes: AtomicU32::new(0),
            resolved: ArcSwap::new(Arc::clone(empty)),
            checks: Mutex::default(),
        }
    }

    /// Dense index for arrays kept per core; used again only after the last `Arc` is gone.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// How it is told who its client is.
    pub fn delivery(&self) -> Delivery {
        self.member.delivery
    }

    /// How it is doing.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Those who wait for a place.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// One connection less; its place goes to the one who has waited longest, if anybody waits.
    pub fn close(&self) {
        if self.vitals.close() {
            self.queue.hand_out(&self.vitals);
        }
    }

    /// Whether some route still has it, so that there may be new connections to it.
    pub fn has_route(&self) -> bool {
        self.routes.load(Relaxed) > 0
    }

    /// One route more has it.
    pub(super) fn enter_route(&self) {
        self.routes.fetch_add(1, Relaxed);
    }

    /// One route less.
    pub(super) fn leave_route(&self) {
        self.routes.fetch_sub(1, Relaxed);
    }

    /// It is under one check more.
    pub(super) fn enter_check(&self, check: &Arc<CheckState>) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.retain(|check| check.strong_count() > 0);
        checks.push(Arc::downgrade(check));
    }

    /// The active checks that it is under, of all routes.
    pub fn checks(&self) -> Vec<Arc<CheckState>> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(Weak::upgrade).collect()
    }

    /// A number that is the same wherever the same member is written, so that several proxies, and
    /// one before and after a restart, send a client to the same backend.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// As an operator writes it, without the options that are the route's.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The DNS name to resolve, for members that are one.
    pub fn name(&self) -> Option<&str> {
        match &self.member.address {
            MemberAddress::Name(name, _) => Some(name),
            _ => None,
        }
    }

    /// The `n`th usable address, `n` taken modulo their count, with the protocol's default port
    /// where the member has none; `None` when there is none (yet). Never blocks.
    pub fn address(&self, protocol: Protocol, n: usize) -> Option<Address> {
        let (ip, port) = match &self.member.address {
            MemberAddress::Ip(ip, port) => (*ip, port),
            MemberAddress::Name(_, port) => {
                let resolved = self.resolved.load();
                let n = n.checked_rem(resolved.len())?;
                (resolved[n], port)
            }
            MemberAddress::Unix(path) => return Some(Address::Unix(Arc::clone(path))),
        };
        let port = port.unwrap_or(protocol.default_port());
        Some(Address::Inet(SocketAddr::new(ip, port)))
    }

    /// How many addresses [`Backend::address`] goes round.
    pub fn address_count(&self) -> usize {
        match &self.member.address {
            MemberAddress::Name(..) => self.resolved.load().len(),
            _ => 1,
        }
    }

    /// Replaces what DNS said; for the resolver only.
    pub fn resolve_to(&self, addresses: Arc<Vec<IpAddr>>) {
        self.resolved.store(addresses);
    }
}

/// 64-bit FNV-1a: the same in every process and version, which the standard library's hashes do not
/// promise. Not for tables that others could fill.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(text: &str) -> Backend {
        Backend::new(0, Member::parse(text).unwrap(), &Arc::default())
    }

    fn inet(text: &str) -> Option<Address> {
        Some(Address::Inet(text.parse().unwrap()))
    }

    #[test]
    fn the_default_port_is_the_protocols() {
        let plain = backend("10.0.0.7");
        assert_eq!(plain.address(Protocol::Tls, 5), inet("10.0.0.7:443"));
        assert_eq!(plain.address(Protocol::Http, 0), inet("10.0.0.7:80"));
        assert_eq!(
            backend("[::1]:9").address(Protocol::Tls, 0),
            inet("[::1]:9")
        );
        let unix = backend("unix:/run/a").address(Protocol::Tls, 3);
        assert_eq!(unix, Some(Address::Unix(Path::new("/run/a").into())));
    }

    #[test]
    fn a_name_has_the_addresses_that_the_resolver_stored() {
        let name = backend("app.test:8080");
        assert_eq!(
            (name.address_count(), name.address(Protocol::Tls, 7)),
            (0, None)
        );
        name.resolve_to(Arc::new(vec![
            "10.0.0.1".parse().unwrap(),
            "::2".parse().unwrap(),
        ]));
        assert_eq!(name.address_count(), 2);
        assert_eq!(name.address(Protocol::Tls, 2), inet("10.0.0.1:8080"));
        assert_eq!(name.address(Protocol::Tls, 3), inet("[::2]:8080"));
    }
}
