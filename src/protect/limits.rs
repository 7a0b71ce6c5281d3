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
    /// Most connections of the process.
    pub connections_max: Option<NonZeroU32>,
    /// Most connections of one client.
    pub client_connections_max: Option<NonZeroU32>,
    /// Most new connections of one client per second.
    pub client_rate_max: Option<NonZeroU32>,
    /// Clients without limits of their own.
    pub exempt: Vec<IpNet>,
}

/// The limit that refuses a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverLimit {
    Connections,
    ClientConnections,
    ClientRate,
    HostConnections,
    HostRate,
}

/// The limits of the process and of each client, shared by all cores.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    settings: LimitSettings,
    connections: Arc<AtomicU32>,
    counts: Option<Arc<Counts>>,
    rates: Option<Rates>,
    hasher: RandomState,
}

/// Counts a connection or a request against a limit, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Permit(#[expect(dead_code, reason = "its drop counts")] CountedIn);

/// What a [`Permit`] is counted in.
#[derive(Debug)]
enum CountedIn {
    /// All connections of the process.
    Process(Arc<AtomicU32>),
    /// The connections of one client or of one host.
    Key { counts: Arc<Counts>, slot: u32 },
}

/// What a limit has admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// `None`: nothing is counted.
    pub permit: Option<Permit>,
    /// A table was full, so this was admitted without being counted.
    pub is_untracked: bool,
}

impl Admitted {
    const WITHOUT_LIMIT: Admitted = Admitted {
        permit: None,
        is_untracked: false,
    };
}

impl ClientLimits {
    /// `None` without a limit. `connections_max` is the number of connections that the process has
    /// descriptors for.
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

    /// Whether a client has limits, so that its address has to be known.
    pub(crate) fn has_client_limits(&self) -> bool {
        self.settings.has_client_limits()
    }

    /// Counts one more connection of the process; `None` without a limit.
    ///
    /// # Errors
    /// [`OverLimit::Connections`].
    pub(crate) fn admit(&self) -> Result<Option<Permit>, OverLimit> {
        let Some(max) = self.settings.connections_max else {
            return Ok(None);
        };
        let one_more = |count| (count < max.get()).then_some(count + 1);
        match self.connections.fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => Ok(Some(Permit(CountedIn::Process(Arc::clone(
                &self.connections,
            ))))),
            Err(_) => Err(OverLimit::Connections),
        }
    }

    /// Counts one more connection of this client. A connection that exceeds the limit of connections
    /// does not count against the rate.
    ///
    /// # Errors
    /// [`OverLimit::ClientConnections`], [`OverLimit::ClientRate`].
    pub(crate) fn admit_client(&self, client: IpAddr, now: Instant) -> Result<Admitted, OverLimit> {
        let client = client.to_canonical();
        if self.settings.exempt.iter().any(|net| net.contains(&client)) {
            return Ok(Admitted::WITHOUT_LIMIT);
        }
        let counts = self.counts.as_ref();
        let rates = self.rates.as_ref();
        let limits = KeyLimits {
            counts: counts.zip(self.settings.client_connections_max),
            rates: rates.zip(self.settings.client_rate_max),
            over_connections: OverLimit::ClientConnections,
            over_rate: OverLimit::ClientRate,
        };
        limits.admit(self.hasher.hash_one(client_key(client)), now)
    }
}

impl LimitSettings {
    /// Whether a client has a limit of its own.
    pub(crate) fn has_client_limits(&self) -> bool {
        self.client_connections_max.is_some() || self.client_rate_max.is_some()
    }
}

/// The limits of hosts, which are options of theirs, shared by all cores. The tables are allocated when
/// the first host with a limit is met.
#[derive(Debug)]
pub(crate) struct HostLimits {
    connections_max: usize,
    counts: OnceLock<Arc<Counts>>,
    rates: OnceLock<Rates>,
}

impl HostLimits {
    /// `connections_max` is the number of connections that the process has descriptors for.
    pub(crate) fn new(connections_max: usize) -> HostLimits {
        HostLimits {
            connections_max,
            counts: OnceLock::new(),
            rates: OnceLock::new(),
        }
    }

    /// Counts one more connection or request of the host whose key has this hash.
    ///
    /// # Errors
    /// [`OverLimit::HostConnections`], [`OverLimit::HostRate`].
    pub(crate) fn admit(
        &self,
        hash: u64,
        connections_max: Option<NonZeroU32>,
        rate_max: Option<NonZeroU32>,
        now: Instant,
    ) -> Result<Admitted, OverLimit> {
        let new_counts = || Arc::new(Counts::new(self.connections_max));
        let new_rates = || Rates::new(self.connections_max, now);
        let limits = KeyLimits {
            counts: connections_max.map(|max| (self.counts.get_or_init(new_counts), max)),
            rates: rate_max.map(|max| (self.rates.get_or_init(new_rates), max)),
            over_connections: OverLimit::HostConnections,
            over_rate: OverLimit::HostRate,
        };
        limits.admit(hash, now)
    }
}

/// The limits of one client or of one host.
struct KeyLimits<'a> {
    counts: Option<(&'a Arc<Counts>, NonZeroU32)>,
    rates: Option<(&'a Rates, NonZeroU32)>,
    over_connections: OverLimit,
    over_rate: OverLimit,
}

impl KeyLimits<'_> {
    fn admit(&self, hash: u64, now: Instant) -> Result<Admitted, OverLimit> {
        let mut admitted = Admitted::WITHOUT_LIMIT;
        if let Some((counts, max)) = self.counts {
            match counts.enter(hash, max.get()) {
                Counted::Over => return Err(self.over_connections),
                Counted::LineFull => admitted.is_untracked = true,
                Counted::Yes(slot) => {
                    let counts = Arc::clone(counts);
                    admitted.permit = Some(Permit(CountedIn::Key { counts, slot }));
                }
            }
        }
        if let Some((rates, max)) = self.rates {
            match rates.pay(hash, max.get(), now) {
                Paid::Over => return Err(self.over_rate),
                Paid::LineFull => admitted.is_untracked = true,
                Paid::Yes => {}
            }
        }
        Ok(admitted)
    }
}

impl Drop for CountedIn {
    fn drop(&mut self) {
        match self {
            CountedIn::Process(connections) => {
                connections.fetch_sub(1, Relaxed);
            }
            CountedIn::Key { counts, slot } => counts.leave(*slot),
        }
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
        let admit = |text| limits.admit_client(ip(text), Instant::now());
        let _one = admit("2001:db8:1:2::1").unwrap();
        let _two = admit("2001:db8:1:2:3::2").unwrap();
        let third = admit("2001:db8:1:2:4::3").unwrap_err();
        assert_eq!(third, OverLimit::ClientConnections);
        let _elsewhere = admit("2001:db8:1:3::1").unwrap();
    }

    #[test]
    fn without_a_limit_there_is_nothing() {
        let exempt = LimitSettings {
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            ..LimitSettings::default()
        };
        assert!(ClientLimits::new(&exempt, 100, Instant::now()).is_none());
        let hosts = HostLimits::new(100);
        let admitted = hosts.admit(1, None, None, Instant::now()).unwrap();
        assert!(admitted.permit.is_none());
        assert!(hosts.counts.get().is_none() && hosts.rates.get().is_none());
    }

    #[test]
    fn each_limit_has_its_name_and_what_ends_makes_room() {
        let one = NonZeroU32::new(1);
        let limits = limits(&LimitSettings {
            connections_max: NonZeroU32::new(2),
            client_connections_max: one,
            client_rate_max: NonZeroU32::new(2),
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        });
        let start = Instant::now();
        let admitted = limits.admit_client(ip("192.0.2.1"), start).unwrap();
        let again = || limits.admit_client(ip("192.0.2.1"), start);
        assert_eq!(again().unwrap_err(), OverLimit::ClientConnections);
        drop(admitted);
        // The refused connection did not count against the rate.
        drop(again().unwrap());
        assert_eq!(again().unwrap_err(), OverLimit::ClientRate);
        let later = start + Duration::from_millis(501);
        drop(limits.admit_client(ip("192.0.2.1"), later).unwrap());
        for _ in 0..9 {
            let admitted = limits.admit_client(ip("::ffff:10.0.0.1"), start);
            let admitted = admitted.unwrap();
            assert!(admitted.permit.is_none() && !admitted.is_untracked);
        }
        let all = (limits.admit().unwrap(), limits.admit().unwrap());
        assert_eq!(limits.admit().unwrap_err(), OverLimit::Connections);
        drop(all);
        assert!(limits.admit().unwrap().is_some());
        let hosts = HostLimits::new(100);
        let admitted = hosts.admit(7, one, one, start).unwrap();
        let over = hosts.admit(7, one, one, start).unwrap_err();
        assert_eq!(over, OverLimit::HostConnections);
        drop(admitted);
        let over = hosts.admit(7, one, one, start).unwrap_err();
        assert_eq!(over, OverLimit::HostRate);
        assert!(hosts.admit(8, one, one, start).is_ok());
    }
}
