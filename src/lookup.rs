//! Which client a connection to a backend was made for: what the page `/client` answers from. There is
//! one table per worker, and only with `--lookup yes`. Pure: addresses and time come in as arguments.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::due::{DueKey, DueQueue};

/// Most connections in a worker's table, open and ended. At some 450 bytes each, the queue of the ended
/// ones included, they stay below 120 MB. A worker that has more keeps the newest.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 18;

/// How long a connection is kept after its end: long enough for whoever reads a backend's log as it is
/// written.
pub(crate) const KEPT_AFTER_END: Duration = Duration::from_secs(60);

/// The addresses of a connection to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UpstreamAddresses {
    /// What the backend sees as its peer.
    pub source: SocketAddr,
    pub backend: SocketAddr,
}

/// The client of a connection, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    pub address: SocketAddr,
    /// The name that the client asked for.
    pub name: Option<Box<str>>,
    /// The ALPN protocols that the client offered, comma-separated, escaped.
    pub alpn: Box<str>,
    pub accepted: SystemTime,
    /// The member of the route, as the operator wrote it.
    pub member: Box<str>,
}

/// A connection that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub addresses: UpstreamAddresses,
    pub client: ClientInfo,
    pub is_open: bool,
}

/// One worker's table.
#[derive(Debug, Default)]
pub(crate) struct LookupTable {
    entries: BTreeMap<UpstreamAddresses, Entry>,
    /// The ended ones, by when they are removed.
    ended: DueQueue<UpstreamAddresses>,
    last_id: u64,
}

/// Tells two connections apart that had the same addresses one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId(u64);

#[derive(Debug)]
struct Entry {
    id: EntryId,
    client: ClientInfo,
    ended: Option<DueKey>,
}

/// What became of a connection that was to be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    Done(EntryId),
    /// Done, and an ended connection was evicted before its time.
    Evicted(EntryId),
    /// Not done: the table is full of connections that are still open.
    Full,
}

impl LookupTable {
    /// Inserts a connection that was made. It replaces an older one with the same addresses.
    pub(crate) fn insert(
        &mut self,
        addresses: UpstreamAddresses,
        client: ClientInfo,
        now: Instant,
    ) -> Insertion {
        self.insert_within(CONNECTIONS_MAX, addresses, client, now)
    }

    fn insert_within(
        &mut self,
        connections_max: usize,
        addresses: UpstreamAddresses,
        client: ClientInfo,
        now: Instant,
    ) -> Insertion {
        self.remove_expired(now);
        let mut evicted = false;
        while self.entries.len() >= connections_max && !self.entries.contains_key(&addresses) {
            let Some(oldest) = self.ended.pop_first() else {
                return Insertion::Full;
            };
            evicted |= self.entries.remove(&oldest).is_some();
        }
        self.last_id += 1;
        let id = EntryId(self.last_id);
        let entry = Entry {
            id,
            client,
            ended: None,
        };
        let replaced = self.entries.insert(addresses, entry);
        if let Some(key) = replaced.and_then(|replaced| replaced.ended) {
            self.ended.remove(key);
        }
        if evicted {
            Insertion::Evicted(id)
        } else {
            Insertion::Done(id)
        }
    }

    /// Notes that a connection has ended; it is kept for [`KEPT_AFTER_END`] longer.
    pub(crate) fn end(&mut self, addresses: &UpstreamAddresses, id: EntryId, now: Instant) {
        self.remove_expired(now);
        let entry = self.entries.get_mut(addresses);
        let is_open = |entry: &&mut Entry| entry.id == id && entry.ended.is_none();
        if let Some(entry) = entry.filter(is_open) {
            entry.ended = Some(self.ended.insert(now + KEPT_AFTER_END, *addresses));
        }
    }

    /// The connections from `source`, at most one for each backend.
    pub(crate) fn find(&self, source: SocketAddr, now: Instant) -> Vec<Found> {
        let first = UpstreamAddresses {
            source,
            backend: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        };
        let from_source = self.entries.range(first..);
        from_source
            .take_while(|(addresses, _)| addresses.source == source)
            .filter(|(_, entry)| entry.ended.is_none_or(|key| key.due() > now))
            .map(|(addresses, entry)| Found {
                addresses: *addresses,
                client: entry.client.clone(),
                is_open: entry.ended.is_none(),
            })
            .collect()
    }

    fn remove_expired(&mut self, now: Instant) {
        while let Some(addresses) = self.ended.pop_due(now) {
            self.entries.remove(&addresses);
        }
    }
}

/// The one connection that was meant, of those that all workers found for one source: the open one,
/// else the ended one. One source address and port may be in use for several backends at once; then
/// all of them are given back, because to name the wrong client is worse than to name none.
pub(crate) fn only_match(mut found: Vec<Found>) -> Result<Found, Vec<Found>> {
    if found.iter().any(|found| found.is_open) {
        found.retain(|found| found.is_open);
    }
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        last => {
            found.extend(last);
            Err(found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, backend: &str) -> UpstreamAddresses {
        UpstreamAddresses {
            source: source.parse().unwrap(),
            backend: backend.parse().unwrap(),
        }
    }

    fn of(client: &str) -> ClientInfo {
        ClientInfo {
            address: client.parse().unwrap(),
            name: Some("a.test".into()),
            alpn: "h2".into(),
            accepted: SystemTime::UNIX_EPOCH,
            member: "10.0.0.7:443".into(),
        }
    }

    fn id(insertion: Insertion) -> EntryId {
        match insertion {
            Insertion::Done(id) | Insertion::Evicted(id) => id,
            Insertion::Full => panic!("the table is full"),
        }
    }

    fn clients(table: &LookupTable, source: &str, now: Instant) -> Vec<(String, bool)> {
        let found = table.find(source.parse().unwrap(), now);
        let client = |found: &Found| (found.client.address.to_string(), found.is_open);
        found.iter().map(client).collect()
    }

    #[test]
    fn one_is_known_while_it_is_open_and_a_minute_longer() {
        let mut table = LookupTable::default();
        let start = Instant::now();
        let addresses = addresses("10.0.0.5:41234", "10.0.0.7:443");
        let id = id(table.insert(addresses, of("192.0.2.1:1"), start));
        let open = [("192.0.2.1:1".to_owned(), true)];
        let hour = start + Duration::from_secs(3600);
        assert_eq!(clients(&table, "10.0.0.5:41234", hour), open);
        assert_eq!(clients(&table, "10.0.0.5:41233", hour), []);
        assert_eq!(clients(&table, "10.0.0.5:41235", hour), []);
        table.end(&addresses, id, hour);
        let ended = [("192.0.2.1:1".to_owned(), false)];
        let almost = hour + KEPT_AFTER_END - Duration::from_millis(1);
        assert_eq!(clients(&table, "10.0.0.5:41234", almost), ended);
        assert_eq!(clients(&table, "10.0.0.5:41234", hour + KEPT_AFTER_END), []);
        // Forgotten for good when something moves again.
        table.insert(
            self::addresses("[::1]:1", "[::1]:2"),
            of("[::1]:3"),
            hour + KEPT_AFTER_END,
        );
        assert_eq!((table.entries.len(), table.ended.len()), (1, 0));
    }

    #[test]
    fn the_same_ends_again_are_the_new_connections() {
        let mut table = LookupTable::default();
        let now = Instant::now();
        let addresses = addresses("10.0.0.5:1", "10.0.0.7:443");
        let old = id(table.insert(addresses, of("192.0.2.1:1"), now));
        table.end(&addresses, old, now);
        table.insert(addresses, of("192.0.2.2:2"), now);
        // Neither a late end of the old one nor its time touches the new one.
        table.end(&addresses, old, now);
        let later = now + 2 * KEPT_AFTER_END;
        table.insert(
            self::addresses("10.0.0.6:1", "10.0.0.7:1"),
            of("192.0.2.3:3"),
            later,
        );
        let open = [("192.0.2.2:2".to_owned(), true)];
        assert_eq!(clients(&table, "10.0.0.5:1", later), open);
    }

    #[test]
    fn a_connection_that_serves_again_and_again_is_one_entry() {
        let mut table = LookupTable::default();
        let now = Instant::now();
        let addresses = addresses("10.0.0.5:1", "10.0.0.7:443");
        for _ in 0..1000 {
            let id = id(table.insert(addresses, of("192.0.2.1:1"), now));
            table.end(&addresses, id, now);
        }
        assert_eq!((table.entries.len(), table.ended.len()), (1, 1));
        table.insert(addresses, of("192.0.2.1:1"), now);
        assert_eq!((table.entries.len(), table.ended.len()), (1, 0));
    }

    #[test]
    fn a_full_table_forgets_the_ended_and_never_the_open() {
        let mut table = LookupTable::default();
        let now = Instant::now();
        let numbered = |n: u16| UpstreamAddresses {
            source: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), n),
            backend: "10.0.0.7:443".parse().unwrap(),
        };
        let insert = |table: &mut LookupTable, n| {
            table.insert_within(3, numbered(n), of("192.0.2.1:1"), now)
        };
        let ids: Vec<EntryId> = (1..=3).map(|n| id(insert(&mut table, n))).collect();
        assert_eq!(insert(&mut table, 4), Insertion::Full);
        table.end(&numbered(2), ids[1], now);
        table.end(&numbered(1), ids[0], now);
        assert!(matches!(insert(&mut table, 5), Insertion::Evicted(_)));
        let known: Vec<u16> = table
            .entries
            .keys()
            .map(|addresses| addresses.source.port())
            .collect();
        assert_eq!(known, [1, 3, 5]);
    }

    #[test]
    fn several_backends_behind_one_port_are_not_guessed_at() {
        let found = |backend: &str, is_open| Found {
            addresses: addresses("10.0.0.5:1", backend),
            client: of("192.0.2.1:1"),
            is_open,
        };
        let (open, ended) = (found("10.0.0.7:1", true), found("10.0.0.8:1", false));
        assert_eq!(only_match(vec![]), Err(vec![]));
        assert_eq!(only_match(vec![ended.clone()]), Ok(ended.clone()));
        assert_eq!(
            only_match(vec![open.clone(), ended.clone()]),
            Ok(open.clone())
        );
        assert_eq!(
            only_match(vec![ended.clone(), open.clone()]),
            Ok(open.clone())
        );
        let other = found("10.0.0.9:1", true);
        let both = vec![open, other];
        assert_eq!(only_match(both.clone()), Err(both));
        let both = vec![ended.clone(), found("10.0.0.9:1", false)];
        assert_eq!(only_match(both.clone()), Err(both));
    }
}
