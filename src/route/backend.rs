//! One backend: where it is, how many connections it has, and how healthy it is.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::live_connections::LiveConnections;
use super::member::{Member, MemberAddress};
use super::member_options::Delivery;
use super::queue::{Queue, Waiter};
use super::share::Share;
use crate::health::{HealthCheckState, PassiveHealth};
use crate::protocol::Protocol;

/// Where to connect. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Inet(SocketAddr),
    Unix(Arc<Path>),
}

/// One member, interned process-wide by [`Registry`](super::Registry): the same member in several routes
/// is one backend with one count of connections and one health.
#[derive(Debug)]
pub struct Backend {
    slot: u32,
    /// With the default share; the share belongs to the route.
    member: Member,
    text: Box<str>,
    identity: u64,
    connections: LiveConnections,
    queue: Queue,
    health: PassiveHealth,
    /// The health checks of all routes. For an operator to see, not for a choice.
    health_checks: Mutex<Vec<Weak<HealthCheckState>>>,
    /// How many routes have this backend; counted by the registry.
    routes: AtomicU32,
    /// The last answer of DNS; empty for a member that is no name. The resolver stores, cores load.
    resolved: ArcSwap<Vec<IpAddr>>,
}

impl Backend {
    /// `no_addresses` is shared by all backends that are not resolved.
    pub(super) fn new(slot: u32, member: Member, no_addresses: &Arc<Vec<IpAddr>>) -> Backend {
        debug_assert_eq!(member.share, Share::default(), "the share is the route's");
        let text = member.to_string();
        Backend {
            slot,
            member,
            identity: fnv1a(text.as_bytes()),
            text: text.into(),
            connections: LiveConnections::default(),
            queue: Queue::default(),
            health: PassiveHealth::default(),
            health_checks: Mutex::default(),
            routes: AtomicU32::new(0),
            resolved: ArcSwap::new(Arc::clone(no_addresses)),
        }
    }

    /// A small number for arrays. It is used again only after the last `Arc` of this backend is gone.
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// How the backend learns the address of its client.
    pub(crate) fn delivery(&self) -> Delivery {
        self.member.delivery
    }

    pub(crate) fn connections(&self) -> &LiveConnections {
        &self.connections
    }

    pub(crate) fn health(&self) -> &PassiveHealth {
        &self.health
    }

    /// Counts one connection less and gives its slot to the client that has waited longest, if any.
    pub(crate) fn close(&self) {
        if self.connections.close() {
            self.queue.hand_out(&self.connections);
        }
    }

    pub(super) fn enter_queue(&self, connections_max: NonZeroU32, number: u64, waiter: Waiter) {
        self.queue
            .enter(&self.connections, connections_max, number, waiter);
    }

    pub(super) fn leave_queue(&self, connections_max: NonZeroU32, number: u64) {
        self.queue.leave(&self.connections, connections_max, number);
    }

    /// Whether a route has this backend, so that new connections to it are possible.
    pub(crate) fn has_route(&self) -> bool {
        self.routes.load(Relaxed) > 0
    }

    /// Counts one route more.
    pub(super) fn enter_route(&self) {
        self.routes.fetch_add(1, Relaxed);
    }

    /// Counts one route less.
    pub(super) fn leave_route(&self) {
        self.routes.fetch_sub(1, Relaxed);
    }

    pub(super) fn add_health_check(&self, check: &Arc<HealthCheckState>) {
        let mut checks = self
            .health_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        checks.retain(|check| check.strong_count() > 0);
        checks.push(Arc::downgrade(check));
    }

    /// The health checks of this backend, of all routes.
    pub(crate) fn health_checks(&self) -> Vec<Arc<HealthCheckState>> {
        let checks = self
            .health_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(Weak::upgrade).collect()
    }

    /// A hash of the member. It is the same in every process, so that several proxies, and one proxy
    /// after a restart, send a client to the same backend.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    /// The member as an operator writes it, without its share.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The DNS name of a member that is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.member.address {
            MemberAddress::Name(name, _) => Some(name),
            _ => None,
        }
    }

    /// The address with this index modulo their count. A member without a port gets the protocol's
    /// default port. `None`: the name is not resolved (yet). Never blocks.
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

    /// How many addresses there are.
    pub fn address_count(&self) -> usize {
        match &self.member.address {
            MemberAddress::Name(..) => self.resolved.load().len(),
            _ => 1,
        }
    }

    /// Replaces the addresses; for the resolver only.
    pub(crate) fn resolve_to(&self, addresses: Arc<Vec<IpAddr>>) {
        self.resolved.store(addresses);
    }
}

/// 64-bit FNV-1a. It is the same in every process and version, unlike the standard library's hash.
/// Not for hash tables whose keys others choose.
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
