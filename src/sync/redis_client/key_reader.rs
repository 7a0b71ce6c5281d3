//! Reads the keys of hosts and files what they hold in the routing state.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};

use super::super::rejected_entries::{MEMBERS_MAX, RejectedEntries};
use super::super::routing_state::RoutingState;
use super::connection_error::ConnectionError;
use super::expiry::Expiry;
use super::key_aliases::{HostKeys, KeyAliases};
use super::key_schema::KeySchema;
use super::rejected_keys::{Extent, RejectedKeys, Rejection};
use super::removals::Removals;
use super::reply::{KeyProblem, KeyReply};
use crate::route::{Key, Seen, as_option};

/// Hosts that are read in one round trip. Their replies are some 50 KB, and a million hosts are read in
/// two thousand round trips.
pub(super) const BATCH_HOSTS: usize = 500;

/// Reads keys, over any number of connections.
pub(super) struct KeyReader {
    state: Rc<RefCell<RoutingState>>,
    schema: KeySchema,
    aliases: KeyAliases,
    expiry: Expiry,
    rejected: RejectedKeys,
    pub(super) removals: Removals,
    /// When Redis last answered with data. The snapshot is used when it does not.
    last_answer: Rc<Cell<Instant>>,
}

/// Hosts, and Redis's replies about their keys: three for each key.
#[derive(Default)]
pub(super) struct AnsweredBatch {
    pub(super) hosts: Vec<HostKeys>,
    pub(super) replies: std::vec::IntoIter<RedisResult<Value>>,
}

impl KeyReader {
    pub(super) fn new(
        state: Rc<RefCell<RoutingState>>,
        schema: KeySchema,
        hold: Duration,
        last_answer: Rc<Cell<Instant>>,
    ) -> KeyReader {
        KeyReader {
            removals: Removals::new(Rc::clone(&state), hold),
            state,
            schema,
            aliases: KeyAliases::default(),
            expiry: Expiry::default(),
            rejected: RejectedKeys::default(),
            last_answer,
        }
    }

    pub(super) fn schema(&self) -> &KeySchema {
        &self.schema
    }

    /// When the next key with a TTL expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.next()
    }

    /// A comparison starts, which reads all keys.
    pub(super) fn start_comparison(&mut self) {
        self.rejected.start_comparison();
    }

    /// The comparison has read all keys and found these hosts.
    pub(super) fn finish_comparison(&mut self, seen: &Seen) {
        self.rejected.finish_comparison();
        self.aliases.remove_unseen(seen);
    }

    /// Redis answered with data just now.
    pub(super) fn note_answer(&self) {
        self.last_answer.set(Instant::now());
    }

    /// The hosts that these keys are of.
    pub(super) fn hosts_of(&mut self, redis_keys: HashSet<Vec<u8>>) -> Vec<Key> {
        let rejected = &mut self.rejected;
        // A bad key that was deleted counts as rejected until the next comparison.
        let reject = |redis_key: &[u8], error| {
            let rejection = Rejection {
                extent: Extent::Key,
                entries: 0,
                reasons: vec![error],
            };
            rejected.set(redis_key, rejection);
        };
        self.aliases.hosts_of(&self.schema, redis_keys, reject)
    }

    /// Takes up to [`BATCH_HOSTS`] of the hosts, with all of their keys.
    pub(super) fn take_batch(&self, hosts: &mut Vec<Key>) -> Vec<HostKeys> {
        let batch = hosts.split_off(hosts.len().saturating_sub(BATCH_HOSTS));
        self.aliases.keys_of(&self.schema, batch)
    }

    /// Adds the commands that read these hosts: for each key its members, TTL and options, in this order.
    pub(super) fn add_commands(&self, pipeline: &mut Pipeline, batch: &[HostKeys]) {
        // An error about one key, as of a key of another type, must not lose the other replies.
        pipeline.ignore_errors();
        for redis_key in batch.iter().flat_map(|host| &host.redis_keys) {
            pipeline.cmd("SMEMBERS").arg(redis_key);
            pipeline.cmd("PTTL").arg(redis_key);
            pipeline
                .cmd("HGETALL")
                .arg(self.schema.options_key(redis_key));
        }
    }

    /// Reads these keys and those that have expired. Gives back the hosts that exist; `None` when there
    /// was nothing to read.
    pub(super) async fn read(
        &mut self,
        connection: &mut MultiplexedConnection,
        mut redis_keys: HashSet<Vec<u8>>,
    ) -> Result<Option<Vec<Key>>, ConnectionError> {
        redis_keys.extend(self.expiry.due(Instant::now()));
        if redis_keys.is_empty() {
            return Ok(None);
        }
        let mut existing = Vec::new();
        let mut hosts = self.hosts_of(redis_keys);
        while !hosts.is_empty() {
            let batch = self.take_batch(&mut hosts);
            let mut pipeline = redis::pipe();
            self.add_commands(&mut pipeline, &batch);
            let replies = query(&pipeline, connection).await?;
            self.note_answer();
            existing.extend(self.file(AnsweredBatch {
                hosts: batch,
                replies: replies.into_iter(),
            })?);
        }
        Ok(Some(existing))
    }

    /// Publishes what was filed, and what is rejected.
    pub(super) fn publish(&mut self) {
        self.rejected.log();
        let (keys, entries) = (self.rejected.key_count(), self.rejected.entry_count());
        let mut state = self.state.borrow_mut();
        state.status.update(|status| {
            status.rejected_keys = keys;
            status.rejected_members = entries;
        });
        state.publish();
    }

    /// Files the replies about some hosts. Gives back the hosts that exist.
    pub(super) fn file(&mut self, answered: AnsweredBatch) -> Result<Vec<Key>, ConnectionError> {
        let AnsweredBatch { hosts, mut replies } = answered;
        let mut existing = Vec::with_capacity(hosts.len());
        for host in hosts {
            if self.file_host(&host, &mut replies)? {
                existing.push(host.key);
            }
        }
        Ok(existing)
    }

    /// Files the replies about one host. Says whether it exists.
    fn file_host(
        &mut self,
        host: &HostKeys,
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
    ) -> Result<bool, ConnectionError> {
        let now = Instant::now();
        let HostReply {
            mut entries,
            exists,
            is_readable,
            problems,
            mut rejected,
        } = self.read_replies(host, replies, now)?;
        let unreadable = rejected.count();
        let Limited {
            used: texts,
            surplus,
        } = within_limit(&mut entries);
        if is_readable && exists {
            self.removals.note_existing(&host.key);
            let mut state = self.state.borrow_mut();
            state.set_redis(&host.key, &texts, &mut rejected);
        } else if is_readable {
            self.removals.remove(&host.key, now);
        }
        let has_no_entry = exists && rejected.count() - unreadable == texts.len();
        if surplus > 0 {
            rejected.add_many(surplus, || {
                format!(
                    "{surplus} members more than the {MEMBERS_MAX} of one host that are used; spread them \
                    over several hosts or put a balancer in front"
                )
            });
        }
        self.note_rejected(host, &problems, rejected, has_no_entry);
        Ok(exists)
    }

    /// What the replies say about all keys of one host together.
    fn read_replies<'h>(
        &mut self,
        host: &'h HostKeys,
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
        now: Instant,
    ) -> Result<HostReply<'h>, ConnectionError> {
        let mut of_host = HostReply {
            entries: Vec::new(),
            exists: false,
            is_readable: true,
            problems: Vec::new(),
            rejected: RejectedEntries::default(),
        };
        for redis_key in &host.redis_keys {
            let reply = KeyReply::read(replies, &mut of_host.rejected)?;
            self.expiry.set(redis_key, now, reply.ttl);
            of_host.entries.extend(reply.entries);
            of_host.exists |= reply.exists;
            if !reply.exists {
                self.aliases.remove(&host.key, redis_key);
            }
            let problem = match reply.problem {
                Some(KeyProblem::Unusable(problem)) => problem,
                Some(KeyProblem::Unreadable(problem)) => {
                    of_host.is_readable = false;
                    problem
                }
                None => continue,
            };
            of_host.problems.push((redis_key, problem));
        }
        Ok(of_host)
    }

    /// Notes what is rejected of each key of a host. Entries cannot be told apart by key, so all of them
    /// are noted with the first.
    fn note_rejected(
        &mut self,
        host: &HostKeys,
        problems: &[(&Vec<u8>, String)],
        entries: RejectedEntries,
        has_no_entry: bool,
    ) {
        let count = entries.count();
        let mut of_entries = (count > 0).then(|| Rejection {
            extent: if has_no_entry {
                Extent::Key
            } else {
                Extent::Entries
            },
            entries: count,
            reasons: entries.into_reasons(),
        });
        for (index, redis_key) in host.redis_keys.iter().enumerate() {
            let problem = problems.iter().find(|(of, _)| *of == redis_key);
            let rejection = match problem {
                Some((_, problem)) => Some(Rejection {
                    extent: Extent::Key,
                    entries: 0,
                    reasons: vec![problem.clone()],
                }),
                None if index == 0 => of_entries.take(),
                None => None,
            };
            match rejection {
                Some(rejection) => self.rejected.set(redis_key, rejection),
                None => self.rejected.remove(redis_key),
            }
        }
    }
}

/// What Redis says about all keys of one host.
struct HostReply<'h> {
    /// Members and options of all keys.
    entries: Vec<String>,
    /// Whether any key exists.
    exists: bool,
    /// Whether Redis said what every key holds. If not, the last known route stays.
    is_readable: bool,
    /// The keys that are rejected as a whole, and why.
    problems: Vec<(&'h Vec<u8>, String)>,
    rejected: RejectedEntries,
}

/// The entries of a host that are used.
struct Limited<'e> {
    used: Vec<&'e str>,
    /// Members beyond [`MEMBERS_MAX`].
    surplus: usize,
}

/// Sorts the entries and leaves out the members beyond [`MEMBERS_MAX`]. Redis sends a set in any order; of
/// too many members the same ones are used each time. Options are not limited.
fn within_limit(entries: &mut [String]) -> Limited<'_> {
    entries.sort_unstable();
    let mut members = 0;
    let used = entries.iter().map(String::as_str).filter(|entry| {
        let is_member = as_option(entry).is_none();
        members += usize::from(is_member);
        !is_member || members <= MEMBERS_MAX
    });
    let used = used.collect();
    Limited {
        used,
        surplus: members.saturating_sub(MEMBERS_MAX),
    }
}

/// Sends the commands and waits for the replies to all of them, errors included.
pub(super) async fn query(
    pipeline: &Pipeline,
    connection: &mut MultiplexedConnection,
) -> Result<Vec<RedisResult<Value>>, RedisError> {
    // The library refuses an empty pipeline.
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    pipeline.query_async(connection).await
}
