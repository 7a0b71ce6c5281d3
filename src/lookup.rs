//! Who is behind a connection that a backend sees: the addresses of the proxy's connection, and
//! the client that it was made for. One table per core, only with `--lookup yes`. Pure: addresses
//! and time come in as arguments.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::due::{DueQueue, Ticket};

/// Connections that a core keeps, open and ended. At some 450 bytes each, the place in the queue of
/// the ended ones among them, they stay below 120 MB; a core that has more is asked about the newest.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 18;

/// How long one is known after its end: long enough for whoever reads a backend's log as it is
/// written.
pub(crate) const KEPT_AFTER_END: Duration = Duration::from_secs(60);

/// The proxy's end and the backend's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    /// What the backend sees as its peer.
    pub source: SocketAddr,
    pub backend: SocketAddr,
}

/// What is told about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub client: SocketAddr,
    /// The name that the client asked for.
    pub name: Option<Box<str>>,
    /// The protocols that the client offered, comma-separated, escaped.
    pub alpn: Box<str>,
    pub accepted: SystemTime,
    /// The member, as the operator wrote it.
    pub member: Box<str>,
}

/// A connection that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub ends: Ends,
    pub connection: Connection,
    pub is_open: bool,
}

/// One core's table.
#[derive(Debug, Default)]
pub(crate) struct LookupTable {
    connections: BTreeMap<Ends, Entry>,
    /// By when they are forgotten.
    ended: DueQueue<Ends>,
    last_serial: u64,
}

/// Tells two connections apart that had the same ends one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serial(u64);

#[derive(Debug)]
struct Entry {
    serial: Serial,
    connection: Connection,
    ended: Option<Ticket>,
}

/// What became of a connection that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes(Serial),
    /// The one that ended first was forgotten before its time.
    InPlaceOfAnother(Serial),
    /// Every one that is kept is still open.
    No,
}

impl LookupTable {
    /// A connection was made; the same ends from before are replaced.
    pub(crate) fn begin(&mut self, ends: Ends, connection: Connection, now: Instant) -> Kept {
        self.begin_within(CONNECTIONS_MAX, ends, connection, now)
    }

    fn begin_within(
        &mut self,
        connections_max: usize,
        ends: Ends,
        connection: Connection,
        now: Instant,
    ) -> Kept {
        self.forget_old(now);
        let mut replaced = false;
        while self.connections.len() >= connections_max && !self.connections.contains_key(&ends) {
            let Some(oldest) = self.ended.pop_first() else {
                return Kept::No;
            };
            replaced |= self.connections.remove(&oldest).is_some();
        }
        self.last_serial += 1;
        let serial = Serial(self.last_serial);
        let entry = Entry {
            serial,
            connection,
            ended: None,
        };
        let before = self.connections.insert(ends, entry);
        if let Some(ticket) = before.and_then(|before| before.ended) {
            self.ended.remove(ticket);
        }
        if replaced {
            Kept::InPlaceOfAnother(serial)
        } else {
            Kept::Yes(serial)
        }
    }

    /// The connection ended; it is known for [`KEPT_AFTER_END`] longer.
    pub(crate) fn end(&mut self, ends: &Ends, serial: Serial, now: Instant) {
        self.forget_old(now);
        let entry = self.connections.get_mut(ends);
        let is_open = |entry: &&mut Entry| entry.serial == serial && entry.ended.is_none();
        if let Some(entry) = entry.filter(is_open) {
            entry.ended = Some(self.ended.insert(now + KEPT_AFTER_END, *ends));
        }
    }

    /// The connections from `source`, at most one for each backend.
    pub(crate) fn find(&self, source: SocketAddr, now: Instant) -> Vec<Found> {
        let lowest = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let first = Ends {
            source,
            backend: lowest,
        };
        let from_source = self.connections.range(first..);
        from_source
            .take_while(|(ends, _)| ends.source == source)
            .filter(|(_, entry)| entry.ended.is_none_or(|ticket| ticket.due() > now))
            .map(|(ends, entry)| Found {
                ends: *ends,
                connection: entry.connection.clone(),
                is_open: entry.ended.is_none(),
            })
            .collect()
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some(ends) = self.ended.pop_due(now) {
            self.connections.remove(&ends);
        }
    }
}

/// Of what all cores found for one source: the open connection, or else the ended one. An address
/// and port may stand for connections to several backends at once; then all of them are given, for
/// naming the wrong client is worse than naming none.
pub(crate) fn select(mut found: Vec<Found>) -> Result<Found, Vec<Found>> {
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

    fn ends(source: &str, backend: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            backend: backend.parse().unwrap(),
        }
    }

    fn of(client: &str) -> Connection {
        Connection {
            client: client.parse().unwrap(),
            name: Some("a.test".into()),
            alpn: "h2".into(),
            accepted: SystemTime::UNIX_EPOCH,
            member: "10.0.0.7:443".into(),
        }
    }

    fn serial(kept: Kept) -> Serial {
        match kept {
            Kept::Yes(serial) | Kept::InPlaceOfAnother(serial) => serial,
            Kept::No => panic!("it was not kept"),
        }
    }

    fn clients(table: &LookupTable, source: &str, now: Instant) -> Vec<(String, bool)> {
        let found = table.find(source.parse().unwrap(), now);
        let client = |found: &Found| (found.connection.client.to_string(), found.is_open);
        found.iter().map(client).collect()
    }

    #[test]
    fn one_is_known_while_it_is_open_and_a_minute_longer() {
        let mut table = LookupTable::default();
        let start = Instant::now();
        let ends = ends("10.0.0.5:41234", "10.0.0.7:443");
        let serial = serial(table.begin(ends, of("192.0.2.1:1"), start));
        let open = [("192.0.2.1:1".to_owned(), true)];
        let hour = start + Duration::from_secs(3600);
        assert_eq!(clients(&table, "10.0.0.5:41234", hour), open);
        assert_eq!(clients(&table, "10.0.0.5:41233", hour), []);
        assert_eq!(clients(&table, "10.0.0.5:41235", hour), []);
        table.end(&ends, serial, hour);
        let ended = [("192.0.2.1:1".to_owned(), false)];
        let almost = hour + KEPT_AFTER_END - Duration::from_millis(1);
        assert_eq!(clients(&table, "10.0.0.5:41234", almost), ended);
        assert_eq!(clients(&table, "10.0.0.5:41234", hour + KEPT_AFTER_END), []);
        // Forgotten for good when something moves again.
        table.begin(
            self::ends("[::1]:1", "[::1]:2"),
            of("[::1]:3"),
            hour + KEPT_AFTER_END,
        );
        assert_eq!((table.connections.len(), table.ended.len()), (1, 0));
    }

    #[test]
    fn the_same_ends_again_are_the_new_connections() {
        let mut table = LookupTable::default();
        let now = Instant::now();
        let ends = ends("10.0.0.5:1", "10.0.0.7:443");
        let old = serial(table.begin(ends, of("192.0.2.1:1"), now));
        table.end(&ends, old, now);
        table.begin(ends, of("192.0.2.2:2"), now);
        // Neither a late end of the old one nor its time touches the new one.
        table.end(&ends, old, now);
        let later = now + 2 * KEPT_AFTER_END;
        table.begin(
            self::ends("10.0.0.6:1", "10.0.0.7:1"),
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
        let ends = ends("10.0.0.5:1", "10.0.0.7:443");
        for _ in 0..1000 {
            let serial = serial(table.begin(ends, of("192.0.2.1:1"), now));
            table.end(&ends, serial, now);
        }
        assert_eq!((table.connections.len(), table.ended.len()), (1, 1));
        table.begin(ends, of("192.0.2.1:1"), now);
        assert_eq!((table.connections.len(), table.ended.len()), (1, 0));
    }

    #[test]
    fn a_full_table_forgets_the_ended_and_never_the_open() {
        let mut table = LookupTable::default();
        let now = Instant::now();
        let numbered = |n: u16| Ends {
            source: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), n),
            backend: "10.0.0.7:443".parse().unwrap(),
        };
        let begin =
            |table: &mut LookupTable, n| table.begin_within(3, numbered(n), of("192.0.2.1:1"), now);
        let serials: Vec<Serial> = (1..=3).map(|n| serial(begin(&mut table, n))).collect();
        assert_eq!(begin(&mut table, 4), Kept::No);
        table.end(&numbered(2), serials[1], now);
        table.end(&numbered(1), serials[0], now);
        assert!(matches!(begin(&mut table, 5), Kept::InPlaceOfAnother(_)));
        let known: Vec<u16> = table
            .connections
            .keys()
            .map(|ends| ends.source.port())
            .collect();
        assert_eq!(known, [1, 3, 5]);
    }

    #[test]
    fn several_backends_behind_one_port_are_not_guessed_at() {
        let found = |backend: &str, is_open| Found {
            ends: ends("10.0.0.5:1", backend),
            connection: of("192.0.2.1:1"),
            is_open,
        };
        let (open, ended) = (found("10.0.0.7:1", true), found("10.0.0.8:1", false));
        assert_eq!(select(vec![]), Err(vec![]));
        assert_eq!(select(vec![ended.clone()]), Ok(ended.clone()));
        assert_eq!(select(vec![open.clone(), ended.clone()]), Ok(open.clone()));
        assert_eq!(select(vec![ended.clone(), open.clone()]), Ok(open.clone()));
        let other = found("10.0.0.9:1", true);
        let both = vec![open, other];
        assert_eq!(select(both.clone()), Err(both));
        let both = vec![ended.clone(), found("10.0.0.9:1", false)];
        assert_eq!(select(both.clone()), Err(both));
    }
}
