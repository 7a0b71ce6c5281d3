//! Keeps the table what Redis has: ask for changes first, read everything, then read what changed.
//! In this order nothing falls between. Every loss ends in reading everything again.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

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
use super::reply::{Answer, Faults, KeyFault, MEMBERS_MAX};
use super::spellings::{Named, Spellings};
use super::status::{Mode, RedisState, Shared};
use super::truth::{Backoff, Truth};
use crate::route::{Key, Seen, as_option};

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
    spellings: Spellings,
    /// Whether Redis was read whole once. Before that not every spelling of a name may have been met.
    compared: bool,
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
            spellings: Spellings::default(),
            compared: false,
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
        let is_whole = self.compared || seen.is_none();
        self.read(connection, keys, seen).await?;
        // The first table comes in one piece, and so does what replaces a snapshot.
        if is_whole {
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
        let pattern = self.dialer.keyspace().pattern();
        let mut cursor = Some(0u64);
        let mut page = None;
        let mut names = Vec::new();
        let mut answered = Answered::default();
        loop {
            let batch = self
                .spellings
                .of(self.dialer.keyspace(), take_batch(&mut names));
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
        self.spellings.remove_unseen(&seen);
        if self.may_remove(hosts_before, &seen) {
            self.truth.borrow_mut().remove_unseen(&seen);
        }
        self.compared = true;
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
        if is_known {
            let found = exists.then_some(&*texts);
            let mut truth = self.truth.borrow_mut();
            truth.set_redis(key, found, &mut faults);
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
