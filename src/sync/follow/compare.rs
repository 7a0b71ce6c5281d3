//! The comparison of the whole table with Redis, and what of a loss is believed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::task::{JoinError, JoinHandle};

use super::super::connection::{Link, Loss};
use super::super::feed::Feed;
use super::super::limits::{BATCH_KEYS, COMPARISON_PAUSE, PAGE_KEYS};
use super::super::reply::Faults;
use super::super::snapshot::{self, Snapshot};
use super::super::standing::{self, Source};
use super::super::watch::whole_seconds;
use super::{Answered, Follower, ask, next_reply, query, take_batch};
use crate::route::{Key, Layer, Seen};

impl Follower {
    pub(super) fn next_comparison(&self, took: Duration) -> Instant {
        let pause = self.settings.full_comparison.max(took * COMPARISON_PAUSE);
        let regular = Instant::now() + pause;
        let held = self.hold.until();
        held.map_or(regular, |held| held.min(regular))
    }

    /// Makes the table equal to all that Redis has.
    pub(super) async fn compare(
        &mut self,
        connection: &mut MultiplexedConnection,
        feed: &Feed,
        link: &Link,
    ) -> Result<(), Loss> {
        let mut hosts_before = self.truth.borrow().master.redis_names();
        let snapshot = self.read_snapshot();
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
        // A replica may have begun to fetch everything anew meanwhile.
        if link.source != Source::Unknown
            && let Source::Cut(state) = standing::source(connection).await?
        {
            return Err(Loss::NoPrimary(state));
        }
        if let Some(snapshot) = snapshot {
            self.doubt_at_start(snapshot.await, &seen);
            let hosts = self.truth.borrow().master.redis_names();
            hosts_before = hosts_before.max(hosts);
        }
        self.remove_unseen(hosts_before, &seen);
        self.compared = true;
        self.shared.confirm();
        self.truth.borrow_mut().set_whole();
        self.publish();
        Ok(())
    }

    /// Reads the snapshot beside the first comparison, for what was there before this start.
    fn read_snapshot(&self) -> Option<JoinHandle<Result<Snapshot, String>>> {
        let path = self.settings.snapshot.as_ref()?;
        let is_of_use = !self.compared && !self.settings.hold.is_zero() && path.exists();
        let path = path.clone();
        is_of_use.then(|| tokio::task::spawn_blocking(move || snapshot::read(&path)))
    }

    /// Files the snapshot when most of its hosts are gone from Redis, so that their loss is held back
    /// as if it had happened now.
    fn doubt_at_start(&mut self, read: Result<Result<Snapshot, String>, JoinError>, seen: &Seen) {
        let snapshot = match read {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(error)) => return tracing::error!(error, "snapshot ignored"),
            // The panic was reported by its hook.
            Err(_) => return,
        };
        let hosts = snapshot.routes.len();
        let gone = snapshot
            .routes
            .iter()
            .filter(|(key, _)| !seen.contains(key));
        let gone = gone.count();
        if self.hold.is_suspicious(gone, hosts, Instant::now()) {
            let age = whole_seconds(snapshot.age());
            let age = humantime::format_duration(age).to_string();
            tracing::warn!(
                hosts,
                gone,
                age,
                "most hosts of the snapshot are not in Redis"
            );
            self.truth.borrow_mut().set_snapshot(snapshot);
        }
    }

    /// Removes what a comparison did not come by, unless that is to be held back.
    fn remove_unseen(&mut self, hosts_before: usize, seen: &Seen) {
        let now = Instant::now();
        let removed = self.truth.borrow().master.unseen_count(seen);
        let is_over = self.hold.is_over(now);
        let is_suspicious = self.hold.is_suspicious(removed, hosts_before, now);
        if is_suspicious && !is_over {
            if !self.hold.is_held() {
                self.begin_hold(removed, hosts_before, now);
            }
            return;
        }
        let unseen = self.truth.borrow_mut().remove_unseen(seen);
        if self.hold.is_held() {
            tracing::warn!(removed, "the hold is over, the table follows Redis");
            self.hold.end();
            self.shared.update(|status| status.holding = false);
        } else {
            for (key, route) in unseen {
                self.hold.note_gone(key, route, now);
            }
        }
    }

    /// Removes one host, unless that is to be held back.
    pub(super) fn remove(&mut self, key: &Key, now: Instant) {
        let known = self.truth.borrow().master.get(key, Layer::Redis).cloned();
        let Some(route) = known.filter(|_| !self.hold.is_held()) else {
            return;
        };
        let hosts = self.truth.borrow().master.redis_names();
        let is_host = !matches!(key, Key::Default(_));
        if is_host && self.hold.is_suspicious(1, hosts, now) {
            return self.begin_hold(1, hosts, now);
        }
        let mut truth = self.truth.borrow_mut();
        truth.set_redis(key, None, &mut Faults::default());
        self.hold.note_gone(key.clone(), route, now);
    }

    /// From now on nothing is removed, and what went lately is back.
    fn begin_hold(&mut self, removed: usize, hosts: usize, now: Instant) {
        let back = self.hold.begin(now);
        let hold = self.settings.hold;
        tracing::warn!(
            removed = removed + back.len(),
            hosts_before = hosts + back.len(),
            hold_s = hold.as_secs_f64(),
            "most hosts are gone from Redis at once; keeping them until it still says so after the hold"
        );
        self.truth.borrow_mut().put_back(back);
        self.shared.update(|status| status.holding = true);
    }
}
