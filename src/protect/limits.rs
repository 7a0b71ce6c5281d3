//! The limits of clients, of the process and of hosts.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;

use super::counts::{Counted, Counts};
use super::rates::{Paid, Rates};
use crate::primitives::AtomicU32;
use crate::route::client_key;

/// The limits of the process and of each client, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LimitSettings {
    /// Connections of the process.
    pub connections_max: Option<NonZeroU32>,
    /// Connections of one client.
    pub client_connections_max: Option<NonZeroU32>,
    /// New connections of one client in a second.
    pub client_rate_max: Option<NonZeroU32>,
    /// Clients that have no limits of their own.
    pub exempt: Vec<IpNet>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverLimit {
    Connections,
    ClientConnections,
    ClientRate,
    HostConnections,
    HostRate,
}

/// What holds for all clients together and for each of them, for all cores.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    settings: LimitSettings,
    connections: Arc<AtomicU32>,
    counts: Option<Arc<Counts>>,
    rates: Option<Rates>,
    hasher: RandomState,
}

/// A place among those that are counted, for as long as this lives.
#[derive(Debug)]
pub(crate) enum Held {
    Connection(Arc<AtomicU32>),
    Key(#[expect(dead_code, reason = "it counts for as long as it lives")] HeldKey),
}

/// A place among those of one key.
#[derive(Debug)]
pub(crate) struct HeldKey {
    counts: Arc<Counts>,
    place: u32,
}

/// One that is let in: its place, if it has one, and whether no room was left to track it in.
pub(crate) type LetIn = (Option<Held>, bool);

impl ClientLimits {
    /// `None` without a limit. `connections_max` is how many the descriptors are enough for.
    pub(crate) fn new(
        settings: &LimitSettings,
        connections_max: usize,
        now: Instant,
    ) -> Option<ClientLimits> {
        let is_any = settings.connections_max.is_some() || settings.has_client_limits();
        is_any.then(|| ClientLimits {
            connections: Arc::default(),
            counts: settings
                .client_connections_max
                .map(|_| Arc::new(Counts::new(connections_max))),
            rates: settings
                .client_rate_max
                .map(|_| Rates::new(connections_max, now)),
            hasher: RandomState::new(),
            settings: settings.clone(),
        })
    }

    /// Whether the client's address matters.
    pub(crate) fn has_client_limits(&self) -> bool {
        self.settings.has_client_limits()
    }

    /// One more connection of the process.
    ///
    /// # Errors
    /// [`OverLimit::Connections`].
    pub(crate) fn enter(&self) -> Result<Option<Held>, OverLimit> {
        let Some(max) = self.settings.connections_max else {
            return Ok(None);
        };
        let one_more = |count| (count < max.get()).then_some(count + 1);
        match self.connections.fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => Ok(Some(Held::Connection(Arc::clone(&self.connections)))),
            Err(_) => Err(OverLimit::Connections),
        }
    }

    /// One more connection of this client. Those that are over the limit of connections do not
    /// count for the rate.
    ///
    /// # Errors
    /// [`OverLimit::ClientConnections`], [`OverLimit::ClientRate`].
    pub(crate) fn enter_client(&self, client: IpAddr, now: Instant) -> Result<LetIn, OverLimit> {
        let client = client.to_canonical();
        if self.settings.exempt.iter().any(|net| net.contains(&client)) {
            return Ok((None, false));
        }
        let hash = self.hasher.hash_one(client_key(client));
        let counts = self
            .counts
            .as_ref()
            .zip(self.settings.client_connections_max);
        let rates = self.rates.as_ref().zip(self.settings.client_rate_max);
        enter(
            hash,
            counts,
            rates,
            now,
            OverLimit::ClientConnections,
            OverLimit::ClientRate,
        )
    }
}

impl LimitSettings {
    /// Whether a client has a limit of its own.
    pub(crate) fn has_client_limits(&self) -> bool {
        self.client_connections_max.is_some() || self.client_rate_max.is_some()
    }
}

/// The limits that hosts have by their options, for all cores. There is no memory for them before the
/// first of them is met.
#[derive(Debug)]
pub(crate) struct HostLimits {
    connections_max: usize,
    counts: OnceLock<Arc<Counts>>,
    rates: OnceLock<Rates>,
}

impl HostLimits {
    /// `connections_max` is how many the descriptors are enough for.
    pub(crate) fn new(connections_max: usize) -> HostLimits {
        HostLimits {
            connections_max,
            counts: OnceLock::new(),
            rates: OnceLock::new(),
        }
    }

    /// One more connection or request of the host whose key has this hash.
    ///
    /// # Errors
    /// [`OverLimit::HostConnections`], [`OverLimit::HostRate`].
    pub(crate) fn enter(
        &self,
        hash: u64,
        connections_max: Option<NonZeroU32>,
        rate_max: Option<NonZeroU32>,
        now: Instant,
    ) -> Result<LetIn, OverLimit> {
        let counts = connections_max.map(|max| {
            let new = || Arc::new(Counts::new(self.connections_max));
            (self.counts.get_or_init(new), max)
        });
        let rates = rate_max.map(|max| {
            let new = || Rates::new(self.connections_max, now);
            (self.rates.get_or_init(new), max)
        });
        enter(
            hash,
            counts,
            rates,
            now,
            OverLimit::HostConnections,
            OverLimit::HostRate,
        )
    }
}

fn enter(
    hash: u64,
    counts: Option<(&Arc<Counts>, NonZeroU32)>,
    rates: Option<(&Rates, NonZeroU32)>,
    now: Instant,
    over_connections: OverLimit,
    over_rate: OverLimit,
) -> Result<LetIn, OverLimit> {
    let mut untracked = false;
    let mut held = None;
    if let Some((counts, max)) = counts {
        match counts.enter(hash, max.get()) {
            Counted::Over => return Err(over_connections),
            Counted::NoPlace => untracked = true,
            Counted::Yes(place) => {
                let counts = Arc::clone(counts);
                held = Some(Held::Key(HeldKey { counts, place }));
            }
        }
    }
    if let Some((rates, max)) = rates {
        match rates.pay(hash, max.get(), now) {
            Paid::Over => return Err(over_rate),
            Paid::NoPlace => untracked = true,
            Paid::Yes => {}
        }
    }
    Ok((held, untracked))
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Connection(connections) = self {
            connections.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        self.counts.leave(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(settings: &LimitSettings) -> ClientLimits {
        ClientLimits::new(settings, 100, Instant::now()).expect("there is a limit")
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_the_64_bits_of_an_ipv6_network() {
        for (one, other, are_same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("0.0.0.1", "::1", false),
        ] {
            let same = client_key(ip(one)) == client_key(ip(other));
            assert_eq!(same, are_same, "{one} {other}");
        }
        let limits = limits(&LimitSettings {
            client_connections_max: NonZeroU32::new(2),
            ..LimitSettings::default()
        });
        let enter = |text| limits.enter_client(ip(text), Instant::now());
        let _one = enter("2001:db8:1:2::1").unwrap();
        let _two = enter("2001:db8:1:2:3::2").unwrap();
        let third = enter("2001:db8:1:2:4::3").unwrap_err();
        assert_eq!(third, OverLimit::ClientConnections);
        let _elsewhere = enter("2001:db8:1:3::1").unwrap();
    }

    #[test]
    fn without_a_limit_there_is_nothing() {
        let exempt = LimitSettings {
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            ..LimitSettings::default()
        };
        assert!(ClientLimits::new(&exempt, 100, Instant::now()).is_none());
        let hosts = HostLimits::new(100);
        assert!(
            hosts
                .enter(1, None, None, Instant::now())
                .unwrap()
                .0
                .is_none()
        );
        assert!(hosts.counts.get().is_none() && hosts.rates.get().is_none());
    }

    #[test]
    fn each_limit_has_its_name_and_what_leaves_makes_room() {
        let one = NonZeroU32::new(1);
        let limits = limits(&LimitSettings {
            connections_max: NonZeroU32::new(2),
            client_connections_max: one,
            client_rate_max: NonZeroU32::new(2),
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        });
        let start = Instant::now();
        let held = limits.enter_client(ip("192.0.2.1"), start).unwrap();
        let again = || limits.enter_client(ip("192.0.2.1"), start);
        assert_eq!(again().unwrap_err(), OverLimit::ClientConnections);
        drop(held);
        // What was refused has cost nothing of the rate.
        drop(again().unwrap());
        assert_eq!(again().unwrap_err(), OverLimit::ClientRate);
        let later = start + Duration::from_millis(501);
        drop(limits.enter_client(ip("192.0.2.1"), later).unwrap());
        for _ in 0..9 {
            let (held, untracked) = limits.enter_client(ip("::ffff:10.0.0.1"), start).unwrap();
            assert!(held.is_none() && !untracked);
        }
        let all = (limits.enter().unwrap(), limits.enter().unwrap());
        assert_eq!(limits.enter().unwrap_err(), OverLimit::Connections);
        drop(all);
        assert!(limits.enter().unwrap().is_some());
        let hosts = HostLimits::new(100);
        let held = hosts.enter(7, one, one, start).unwrap();
        let over = hosts.enter(7, one, one, start).unwrap_err();
        assert_eq!(over, OverLimit::HostConnections);
        drop(held);
        let over = hosts.enter(7, one, one, start).unwrap_err();
        assert_eq!(over, OverLimit::HostRate);
        assert!(hosts.enter(8, one, one, start).is_ok());
    }
}
