//! Keeps the table what Redis has: ask for changes first, read everything, then read what changed.
//! In this order nothing falls between. Every loss ends in reading everything again.

mod compare;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::connection::{Dialer, Link, Loss};
use super::expiry::Expiry;
use super::feed::Feed;
use super::hold::Hold;
use super::keys::Keyspace;
use super::limits::{BACKOFF_MAX, BACKOFF_MIN, BATCH_KEYS, PUBLISH_GAP};
use super::probe::Prober;
use super::rejected::Rejected;
use super::reply::{Answer, Faults, KeyFault, MEMBERS_MAX};
use super::spellings::{Named, Spellings};
use super::standing::{CLUSTER, Source};
use super::status::{Mode, RedisState, Shared};
use super::truth::{Backoff, Truth};
use crate::config::SyncSettings;
use crate::route::{Key, Seen, as_option};

/// Names, and the replies for them.
type Answered = (Vec<Named>, std::vec::IntoIter<RedisResult<Value>>);

#[derive(Default)]
struct Said {
    cluster: bool,
    unknown: bool,
}

/// What is known about Redis beyond one connection.
pub(super) struct Follower {
    truth: Rc<RefCell<Truth>>,
    shared: Arc<Shared>,
    settings: Rc<SyncSettings>,
    dialer: Dialer,
    expiry: Expiry,
    rejected: Rejected,
    spellings: Spellings,
    /// Whether Redis was read whole once. Before that not every spelling of a name may have been met.
    compared: bool,
    /// What of a loss of many hosts is not believed at once.
    hold: Hold,
    /// What the log says once and not with each connection.
    said: Said,
    backoff: Backoff,
    /// When Redis last answered with data; the snapshot is for when it does not.
    last_answer: Rc<Cell<Instant>>,
}

impl Follower {
    pub(super) fn new(
        truth: Rc<RefCell<Truth>>,
        settings: Rc<SyncSettings>,
        dialer: Dialer,
        last_answer: Rc<Cell<Instant>>,
    ) -> Follower {
        let shared = Arc::clone(&truth.borrow().shared);
        Follower {
            truth,
            shared,
            dialer,
            expiry: Expiry::default(),
            rejected: Rejected::default(),
            spellings: Spellings::default(),
            compared: false,
            hold: Hold::new(settings.hold),
            said: Said::default(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            settings,
            last_answer,
        }
    }

    /// Follows Redis for ever, over any number of connections.
    pub(super) async fn run(mut self) -> Infallible {
        self.shared
            .update(|status| status.redis = RedisState::Connecting);
        loop {
            let Err(loss) = self.follow_once().await;
            self.shared.update(|status| status.redis = RedisState::Lost);
            let retry_in = self.backoff.next();
            let serving = match self.truth.borrow().has_first_table() {
                true => "the last known table",
                false => "nothing yet",
            };
            tracing::warn!(
                redis = self.dialer.address(),
                cause = loss.to_string(),
                remedy = loss.remedy(),
                retry_in_ms = retry_in.as_millis() as u64,
                serving,
                "Redis lost"
            );
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, until it is lost.
    async fn follow_once(&mut self) -> Result<Infallible, Loss> {
        let feed = Arc::new(Feed::default());
        let link = self.dialer.open(&feed).await?;
        self.judge(&link)?;
        let mode = link.mode;
        self.shared.update(|status| {
            status.redis = RedisState::Loading;
            status.mode = Some(mode);
        });
        tracing::info!(
            redis = self.dialer.address(),
            mode = mode.name(),
            "connected to Redis, reading the table"
        );
        let live = Rc::new(Cell::new(false));
        let prober = Prober {
            connection: link.connection.clone(),
            ping: self.settings.ping,
            timeout: self.settings.ping_timeout,
            asks_source: link.source != Source::Unknown,
            last_answer: Rc::clone(&self.last_answer),
            confirms: (mode == Mode::Tracking)
                .then(|| (Rc::clone(&live), Arc::clone(&self.shared))),
        };
        tokio::select! {
            lost = self.keep_true(&link, &feed, &live) => lost,
            silent = prober.run() => silent,
            () = feed.wait_lost() => Err(Loss::Closed),
        }
    }

    /// Says what is unusual about the server, and whether its data are to be believed.
    fn judge(&mut self, link: &Link) -> Result<(), Loss> {
        if link.is_cluster && !std::mem::replace(&mut self.said.cluster, true) {
            let redis = self.dialer.address();
            tracing::warn!(redis, "{CLUSTER}");
        }
        match &link.source {
            Source::Sound => {}
            Source::Cut(state) => return Err(Loss::NoPrimary(state.clone())),
            Source::Unknown if std::mem::replace(&mut self.said.unknown, true) => {}
            Source::Unknown => tracing::info!(
                "the Redis user may give neither ROLE nor INFO, so a replica without link to its primary is believed; grant +role"
            ),
        }
        Ok(())
    }

    async fn keep_true(
        &mut self,
        link: &Link,
        feed: &Feed,
        live: &Cell<bool>,
    ) -> Result<Infallible, Loss> {
        let mut connection = link.connection.clone();
        let mut compare_at = Instant::now();
        let mut is_proved = false;
        loop {
            let now = Instant::now();
            if now >= compare_at {
                self.compare(&mut connection, feed, link).await?;
                compare_at = self.next_comparison(now.elapsed());
                if !live.replace(true) {
                    self.backoff.reset();
                    self.shared.update(|status| status.redis = RedisState::Live);
                    let hosts = self.truth.borrow().master.redis_names();
                    tracing::info!(hosts, "table read from Redis, following its changes");
                    self.truth.borrow_mut().set_first_table();
                }
            }
            let published = Instant::now();
            let next = self
                .expiry
                .next()
                .map_or(compare_at, |end| end.min(compare_at));
            tokio::select! {
                () = feed.wait() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            tokio::time::sleep_until((published + PUBLISH_GAP).into()).await;
            if feed.has_proof() && !std::mem::replace(&mut is_proved, true) {
                tracing::info!("keyspace events come, changes are noticed by them");
                self.shared
                    .update(|status| status.mode = Some(Mode::Keyspace));
            }
            let pending = feed.take();
            if pending.all {
                compare_at = Instant::now();
                continue;
            }
            self.read_changed(&mut connection, pending.keys, None)
                .await?;
            compare_at = self
                .hold
                .until()
                .map_or(compare_at, |end| end.min(compare_at));
        }
    }

    /// Reads the keys that changed or whose end has come, and publishes them.
    async fn read_changed(
        &mut self,
        connection: &mut MultiplexedConnection,
        mut keys: HashSet<Vec<u8>>,
        seen: Option<&mut Seen>,
    ) -> Result<(), Loss> {
        keys.extend(self.expiry.due(Instant::now()));
        if keys.is_empty() {
            return Ok(());
        }
        let is_whole = self.compared || seen.is_none();
        self.read(connection, keys, seen).await?;
        // The first table comes in one piece, and so does what replaces a snapshot.
        if is_whole {
            self.publish();
        }
        Ok(())
    }

    fn publish(&mut self) {
        self.rejected.log();
        let (keys, members) = (self.rejected.keys(), self.rejected.members());
        self.shared.update(|status| {
            status.rejected_keys = keys;
            status.rejected_members = members;
        });
        self.truth.borrow_mut().publish();
    }

    /// Reads these keys and files what they hold. `seen` collects the names that exist.
    async fn read(
        &mut self,
        connection: &mut MultiplexedConnection,
        raws: HashSet<Vec<u8>>,
        mut seen: Option<&mut Seen>,
    ) -> Result<(), Loss> {
        let mut names = self.names(raws);
        while !names.is_empty() {
            let batch = self
                .spellings
                .of(self.dialer.keyspace(), take_batch(&mut names));
            let mut pipeline = redis::pipe();
            ask(&mut pipeline, self.dialer.keyspace(), &batch);
            let replies = query(&pipeline, connection).await?;
            self.last_answer.set(Instant::now());
            self.file_all((batch, replies.into_iter()), seen.as_deref_mut())?;
        }
        Ok(())
    }

    /// The names that these keys are of.
    fn names(&mut self, raws: HashSet<Vec<u8>>) -> Vec<Key> {
        let rejected = &mut self.rejected;
        // One that is gone again would be counted until the next comparison; so be it.
        let reject = |raw: &[u8], error| rejected.set(raw, 0, true, vec![error]);
        self.spellings.names(self.dialer.keyspace(), raws, reject)
    }

    fn file_all(
        &mut self,
        (batch, mut replies): Answered,
        mut seen: Option<&mut Seen>,
    ) -> Result<(), Loss> {
        for named in &batch {
            if self.file(named, &mut replies)?
                && let Some(seen) = &mut seen
            {
                seen.insert(&named.0);
            }
        }
        Ok(())
    }

    /// Files the replies for one name, three per spelling. Says whether the name exists.
    fn file(
        &mut self,
        (key, spellings): &Named,
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
    ) -> Result<bool, Loss> {
        let now = Instant::now();
        let mut entries: Vec<String> = Vec::new();
        let mut faults = Faults::default();
        let (mut exists, mut is_known) = (false, true);
        let mut bad_keys = Vec::new();
        for raw in spellings {
            let answer = Answer::read(replies, &mut faults)?;
            self.expiry.set(raw, now, answer.ttl);
            entries.extend(answer.entries);
            exists |= answer.exists;
            if !answer.exists {
                self.spellings.remove(key, raw);
            }
            match answer.fault {
                Some(KeyFault::Unusable(fault)) => bad_keys.push((raw, fault)),
                Some(KeyFault::Unreadable(fault)) => {
                    bad_keys.push((raw, fault));
                    is_known = false;
                }
                None => {}
            }
        }
        let garbled = faults.count();
        let (texts, beyond) = within_limit(&mut entries);
        if is_known && exists {
            self.hold.note_there(key);
            let mut truth = self.truth.borrow_mut();
            truth.set_redis(key, Some(&texts), &mut faults);
        } else if is_known {
            self.remove(key, now);
        }
        let nothing_left = exists && faults.count() - garbled == texts.len();
        if beyond > 0 {
            faults.note_many(beyond, || {
                format!(
                    "{beyond} members more than the {MEMBERS_MAX} of one host that are used; spread them over several hosts or put a balancer in front"
                )
            });
        }
        let (count, reasons) = (faults.count(), faults.into_reasons());
        for raw in spellings {
            let fault = bad_keys.iter().find(|(of, _)| *of == raw);
            match fault {
                Some((_, fault)) => self.rejected.set(raw, 0, true, vec![fault.clone()]),
                None if spellings.first() == Some(raw) => {
                    let is_whole = nothing_left && count > 0;
                    self.rejected.set(raw, count, is_whole, reasons.clone());
                }
                None => self.rejected.set(raw, 0, false, Vec::new()),
            }
        }
        Ok(exists)
    }
}

/// The entries in an order that does not depend on that of the replies, so that of too many members
/// the same ones are used each time; and how many are beyond the limit. Options have none.
fn within_limit(entries: &mut [String]) -> (Vec<&str>, usize) {
    entries.sort_unstable();
    let mut members = 0;
    let texts = entries.iter().map(String::as_str).filter(|entry| {
        let is_member = as_option(entry).is_none();
        members += usize::from(is_member);
        !is_member || members <= MEMBERS_MAX
    });
    let texts = texts.collect();
    (texts, members.saturating_sub(MEMBERS_MAX))
}

/// Takes up to [`BATCH_KEYS`] of the names, which are in no order.
fn take_batch(names: &mut Vec<Key>) -> Vec<Key> {
    names.split_off(names.len().saturating_sub(BATCH_KEYS))
}

/// Asks for members, TTL and options of every spelling, in order.
fn ask(pipeline: &mut redis::Pipeline, keyspace: &Keyspace, batch: &[Named]) {
    // A key of another type is no reason to lose the others.
    pipeline.ignore_errors();
    for raw in batch.iter().flat_map(|(_, spellings)| spellings) {
        pipeline.cmd("SMEMBERS").arg(raw).cmd("PTTL").arg(raw);
        pipeline.cmd("HGETALL").arg(keyspace.options_beside(raw));
    }
}

/// The replies to all commands of a pipeline, failed ones included.
async fn query(
    pipeline: &redis::Pipeline,
    connection: &mut MultiplexedConnection,
) -> Result<Vec<RedisResult<Value>>, RedisError> {
    // Which the library refuses.
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    pipeline.query_async(connection).await
}

fn next_reply<T: FromRedisValue>(
    replies: &mut impl Iterator<Item = RedisResult<Value>>,
) -> RedisResult<T> {
    let missing = || RedisError::from((redis::ErrorKind::Client, "a reply is missing"));
    let value = replies.next().ok_or_else(missing)??;
    Ok(redis::from_redis_value(value)?)
}
