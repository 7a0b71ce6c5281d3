//! Keeps the table what Redis has: ask for changes first, read everything, then read what changed.
//! In this order nothing falls between. Every loss ends in reading everything again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Value};

use super::config::{
    BACKOFF_MAX, BACKOFF_MIN, BATCH_KEYS, COMPARISON_PAUSE, HOLD_HOSTS_MIN, PAGE_KEYS, PUBLISH_GAP,
    SyncConfig,
};
use super::connection::{Dialer, Link, Loss};
use super::expiry::Expiry;
use super::feed::Feed;
use super::keys::Keyspace;
use super::probe::Prober;
use super::rejected::Rejected;
use super::status::{Mode, RedisState, Shared};
use super::truth::{Backoff, Truth};
use crate::route::{Key, Seen, option_entry};

/// Rejected members of one key that are named in the log.
const REASONS_MAX: usize = 5;

/// A name, and the spellings of its key.
type Named = (Key, BTreeSet<Vec<u8>>);
/// Names, and the replies for them.
type Answered = (Vec<Named>, std::vec::IntoIter<RedisResult<Value>>);

/// What is known about Redis beyond one connection.
pub(super) struct Follower {
    truth: Rc<RefCell<Truth>>,
    shared: Arc<Shared>,
    config: Rc<SyncConfig>,
    dialer: Dialer,
    expiry: Expiry,
    rejected: Rejected,
    /// Spellings that are not canonical and were there when last read. The members of all spellings
    /// of a name add up.
    spellings: HashMap<Key, BTreeSet<Vec<u8>>>,
    /// Since when the removal of many hosts is held back.
    held_since: Option<Instant>,
    backoff: Backoff,
    /// When Redis last answered with data; the snapshot is for when it does not.
    last_answer: Rc<Cell<Instant>>,
}

impl Follower {
    pub(super) fn new(
        truth: Rc<RefCell<Truth>>,
        config: Rc<SyncConfig>,
        dialer: Dialer,
        last_answer: Rc<Cell<Instant>>,
    ) -> Follower {
        let shared = Arc::clone(&truth.borrow().shared);
        Follower {
            truth,
            shared,
            config,
            dialer,
            expiry: Expiry::default(),
            rejected: Rejected::default(),
            spellings: HashMap::new(),
            held_since: None,
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
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
            tracing::warn!(
                redis = self.dialer.address(),
                cause = loss.to_string(),
                remedy = loss.remedy(),
                ?retry_in,
                "Redis lost, the last known table serves"
            );
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, until it is lost.
    async fn follow_once(&mut self) -> Result<Infallible, Loss> {
        let feed = Arc::new(Feed::default());
        let link = self.dialer.open(&feed).await?;
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
            ping: self.config.ping,
            timeout: self.config.ping_timeout,
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

    async fn keep_true(
        &mut self,
        link: &Link,
        feed: &Feed,
        live: &Cell<bool>,
    ) -> Result<Infallible, Loss> {
        let mut connection = link.connection.clone();
        let mut compare_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= compare_at {
                self.compare(&mut connection, feed).await?;
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
            let pending = feed.take();
            if pending.all {
                compare_at = Instant::now();
                continue;
            }
            self.read_changed(&mut connection, pending.keys, None)
                .await?;
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
        self.read(connection, keys, seen).await?;
        // Before that there is nothing to serve with, and the first table comes in one piece.
        if self.truth.borrow().has_first_table() {
            self.publish();
        }
        Ok(())
    }

    fn next_comparison(&self, took: Duration) -> Instant {
        let pause = self.config.full_comparison.max(took * COMPARISON_PAUSE);
        let regular = Instant::now() + pause;
        let held = self.held_since.map(|since| since + self.config.hold);
        held.map_or(regular, |held| held.min(regular))
    }

    /// Makes the table equal to all that Redis has.
    async fn compare(
        &mut self,
        connection: &mut MultiplexedConnection,
        feed: &Feed,
    ) -> Result<(), Loss> {
        let hosts_before = self.truth.borrow().master.redis_names();
        let mut seen = Seen::default();
        self.rejected.start_over();
        self.spellings.clear();
        let pattern = self.dialer.keyspace().pattern();
        let mut cursor = Some(0u64);
        let mut page = None;
        let mut names = Vec::new();
        let mut answered = Answered::default();
        loop {
            let batch = take_batch(&mut names);
            // The next page is asked for while there is a batch left to ask for meanwhile.
            let scan = cursor.take_if(|_| page.is_none() && names.len() <= BATCH_KEYS);
            if batch.is_empty() && scan.is_none() && page.is_none() {
                break;
            }
            let mut pipeline = redis::pipe();
            if let Some(cursor) = scan {
                let command = pipeline.cmd("SCAN").arg(cursor);
                command.arg(&["MATCH", &pattern, "COUNT"]).arg(PAGE_KEYS);
            }
            ask(&mut pipeline, self.dialer.keyspace(), &batch);
            // Redis answers one batch while another is filed.
            let (replies, filed) = tokio::join!(query(&pipeline, connection), async {
                tokio::task::yield_now().await;
                self.file_all(std::mem::take(&mut answered), Some(&mut seen))?;
                names.extend(self.names(page.take().unwrap_or_default()));
                Ok::<(), Loss>(())
            });
            filed?;
            let mut replies = replies?.into_iter();
            self.last_answer.set(Instant::now());
            if scan.is_some() {
                let (next, keys): (u64, HashSet<Vec<u8>>) = next_reply(&mut replies)?;
                cursor = Some(next).filter(|next| *next != 0);
                page = Some(keys);
            }
            answered = (batch, replies);
            if page.is_none() {
                continue;
            }
            // What changed meanwhile may have been passed over by the scan, and need not wait for
            // its end; but what was answered before must not be filed over it.
            let pending = feed.take();
            if pending.all {
                feed.all_changed();
            }
            if !pending.keys.is_empty()
                || self.expiry.next().is_some_and(|end| end <= Instant::now())
            {
                self.file_all(std::mem::take(&mut answered), Some(&mut seen))?;
                self.read_changed(connection, pending.keys, Some(&mut seen))
                    .await?;
            }
        }
        self.file_all(answered, Some(&mut seen))?;
        self.rejected.finish();
        if self.may_remove(hosts_before, &seen) {
            self.truth.borrow_mut().remove_unseen(&seen);
        }
        self.shared.confirm();
        self.truth.borrow_mut().set_whole();
        self.publish();
        Ok(())
    }

    /// Whether what a comparison did not come by may go. More than half of the hosts at once is
    /// more often an accident (FLUSHALL, a restart without data) than a wish.
    fn may_remove(&mut self, hosts_before: usize, seen: &Seen) -> bool {
        let removed = self.truth.borrow().master.unseen_count(seen);
        let many = hosts_before >= HOLD_HOSTS_MIN && removed * 2 > hosts_before;
        let now = Instant::now();
        let (held_since, may) = match self.held_since {
            _ if !many || self.config.hold.is_zero() => (None, true),
            Some(since) if now >= since + self.config.hold => (None, true),
            held => (Some(held.unwrap_or(now)), false),
        };
        if self.held_since.is_none() && !may {
            let hold = self.config.hold;
            tracing::warn!(
                removed,
                hosts_before,
                ?hold,
                "most hosts are gone from Redis at once; keeping them until it still says so after the hold"
            );
        } else if self.held_since.is_some() && may {
            tracing::warn!(removed, "the hold is over, the table follows Redis");
        }
        self.held_since = held_since;
        self.shared.update(|status| status.holding = !may);
        may
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
            let batch = take_batch(&mut names);
            let mut pipeline = redis::pipe();
            ask(&mut pipeline, self.dialer.keyspace(), &batch);
            let replies = query(&pipeline, connection).await?;
            self.last_answer.set(Instant::now());
            self.file_all((batch, replies.into_iter()), seen.as_deref_mut())?;
        }
        Ok(())
    }

    /// The names that these keys are of, with all spellings that are known of each.
    fn names(&mut self, raws: HashSet<Vec<u8>>) -> Vec<Named> {
        let mut names: HashMap<Key, BTreeSet<Vec<u8>>> = HashMap::new();
        for raw in raws {
            if !self.dialer.keyspace().covers(&raw) {
                continue;
            }
            let raw = self.dialer.keyspace().beside_options(raw);
            let key = match self.dialer.keyspace().key(&raw) {
                Ok(key) => key,
                // One that is gone again would be counted until the next comparison; so be it.
                Err(error) => {
                    self.rejected.set(&raw, 0, true, vec![error.to_string()]);
                    continue;
                }
            };
            let canonical = self.dialer.keyspace().raw(&key);
            if raw != canonical {
                self.spellings
                    .entry(key.clone())
                    .or_default()
                    .insert(raw.clone());
            }
            let spellings = names
                .entry(key.clone())
                .or_insert_with(|| [canonical].into());
            spellings.insert(raw);
            if let Some(known) = self.spellings.get(&key) {
                spellings.extend(known.iter().cloned());
            }
        }
        names.into_iter().collect()
    }

    fn file_all(
        &mut self,
        (batch, mut replies): Answered,
        mut seen: Option<&mut Seen>,
    ) -> Result<(), Loss> {
        for (key, spellings) in &batch {
            if self.file(key, spellings, &mut replies)?
                && let Some(seen) = &mut seen
            {
                seen.insert(key);
            }
        }
        Ok(())
    }

    /// Files the replies for one name, three per spelling. Says whether the name exists.
    fn file(
        &mut self,
        key: &Key,
        spellings: &BTreeSet<Vec<u8>>,
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
    ) -> Result<bool, Loss> {
        let now = Instant::now();
        let mut members: Vec<Vec<u8>> = Vec::new();
        let mut exists = false;
        let mut faults = Vec::new();
        for raw in spellings {
            let set: RedisResult<Vec<Vec<u8>>> = next_reply(replies);
            let ttl: i64 = next_reply(replies)?;
            let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
            self.expiry.set(raw, now, ttl);
            let there = match set {
                Ok(set) => {
                    let there = !set.is_empty();
                    members.extend(set);
                    there
                }
                Err(error) if error.code() == Some("WRONGTYPE") => {
                    faults.push((
                        raw,
                        String::from("the key is no set; delete it and use SADD"),
                    ));
                    true
                }
                Err(error) => return Err(error.into()),
            };
            let options: RedisResult<HashMap<String, String>> = next_reply(replies);
            let there = match options {
                Ok(options) => {
                    let entries = options
                        .iter()
                        .map(|(field, value)| option_entry(field, value));
                    let before = members.len();
                    members.extend(entries.map(String::into_bytes));
                    there || members.len() > before
                }
                Err(error) if error.code() == Some("WRONGTYPE") => {
                    let fault = "the key of the options is no hash; delete it and use HSET";
                    faults.push((raw, String::from(fault)));
                    there
                }
                // A user who may not read options has none.
                Err(error) if error.code() == Some("NOPERM") => there,
                Err(error) => return Err(error.into()),
            };
            exists |= there;
            if !there && let Some(known) = self.spellings.get_mut(key) {
                known.remove(raw);
                if known.is_empty() {
                    self.spellings.remove(key);
                }
            }
        }
        members.sort_unstable();
        let texts: Vec<&str> = members
            .iter()
            .filter_map(|member| std::str::from_utf8(member).ok())
            .collect();
        let not_text = members.len() - texts.len();
        let mut errors = self
            .truth
            .borrow_mut()
            .set_redis(key, exists.then_some(&texts));
        if not_text > 0 {
            errors.push(format!("{not_text} members are no UTF-8 text; remove them"));
        }
        let rejected = errors.len().max(not_text);
        let nothing_left = exists && errors.len() - usize::from(not_text > 0) == texts.len();
        errors.truncate(REASONS_MAX);
        for raw in spellings {
            let fault = faults.iter().find(|(of, _)| *of == raw);
            match fault {
                Some((_, fault)) => self.rejected.set(raw, 0, true, vec![fault.clone()]),
                None if spellings.first() == Some(raw) => {
                    self.rejected
                        .set(raw, rejected, nothing_left && rejected > 0, errors.clone());
                }
                None => self.rejected.set(raw, 0, false, Vec::new()),
            }
        }
        Ok(exists)
    }
}

/// Takes up to [`BATCH_KEYS`] of the names, which are in no order.
fn take_batch(names: &mut Vec<Named>) -> Vec<Named> {
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

fn next_reply<T: redis::FromRedisValue>(
    replies: &mut impl Iterator<Item = RedisResult<Value>>,
) -> RedisResult<T> {
    let missing = || RedisError::from((redis::ErrorKind::Client, "a reply is missing"));
    let value = replies.next().ok_or_else(missing)??;
    Ok(redis::from_redis_value(value)?)
}
