//! The comparison of the whole table with Redis: finds all keys with SCAN and reads each of them.

use std::collections::HashSet;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, Value};

use super::connection_error::ConnectionError;
use super::invalidations::Invalidations;
use super::key_aliases::HostKeys;
use super::key_reader::{AnsweredBatch, BATCH_HOSTS, KeyReader, query};
use crate::route::{Key, Seen};

/// Keys that one SCAN asks for. Two batches make a page, so that Redis has one batch to answer while the
/// next page is parsed.
const PAGE_KEYS: usize = 2 * BATCH_HOSTS;

/// One comparison under way.
pub(super) struct Comparison<'r> {
    reader: &'r mut KeyReader,
    connection: MultiplexedConnection,
    invalidations: &'r Invalidations,
    /// Whether changes that are found meanwhile are published at once.
    publishes_changes: bool,
    /// Where SCAN goes on; `None` while its reply is awaited and at its end.
    cursor: Option<u64>,
    /// The last reply of SCAN, not parsed yet.
    page: Option<HashSet<Vec<u8>>>,
    /// Hosts that are not asked for yet.
    hosts: Vec<Key>,
    /// The last batch that was answered, not filed yet.
    answered: AnsweredBatch,
    /// The hosts that exist.
    seen: Seen,
}

impl<'r> Comparison<'r> {
    /// `publishes_changes` is false when nothing was compared before: the first table is published as a
    /// whole, and so is what replaces a snapshot.
    pub(super) fn new(
        reader: &'r mut KeyReader,
        connection: MultiplexedConnection,
        invalidations: &'r Invalidations,
        publishes_changes: bool,
    ) -> Comparison<'r> {
        Comparison {
            reader,
            connection,
            invalidations,
            publishes_changes,
            cursor: Some(0),
            page: None,
            hosts: Vec::new(),
            answered: AnsweredBatch::default(),
            seen: Seen::default(),
        }
    }

    /// Reads every key and files what it holds. Gives back the hosts that exist; the others are still to
    /// be removed.
    pub(super) async fn run(mut self) -> Result<Seen, ConnectionError> {
        self.reader.start_comparison();
        while let Some(request) = self.next_request() {
            self.exchange(request).await?;
            if self.page.is_some() {
                self.read_changes().await?;
            }
        }
        self.file_answered()?;
        self.reader.finish_comparison(&self.seen);
        Ok(self.seen)
    }

    /// What to ask next; `None` when everything was asked.
    fn next_request(&mut self) -> Option<Request> {
        let batch = self.reader.take_batch(&mut self.hosts);
        // The next page is asked for while there is a batch left to ask for meanwhile.
        let has_place = self.page.is_none() && self.hosts.len() <= BATCH_HOSTS;
        let cursor = self.cursor.take_if(|_| has_place);
        if batch.is_empty() && cursor.is_none() && self.page.is_none() {
            return None;
        }
        Some(Request { cursor, batch })
    }

    /// Sends a request. While Redis answers it, the answers to the one before are filed.
    async fn exchange(&mut self, request: Request) -> Result<(), ConnectionError> {
        let Request { cursor, batch } = request;
        let mut pipeline = redis::pipe();
        if let Some(cursor) = cursor {
            let command = pipeline.cmd("SCAN").arg(cursor);
            let pattern = self.reader.schema().pattern();
            command.arg(&["MATCH", &pattern, "COUNT"]).arg(PAGE_KEYS);
        }
        self.reader.add_commands(&mut pipeline, &batch);
        let mut connection = self.connection.clone();
        let (replies, filed) = tokio::join!(query(&pipeline, &mut connection), async {
            tokio::task::yield_now().await;
            self.file_answered()?;
            let page = self.page.take().unwrap_or_default();
            self.hosts.extend(self.reader.hosts_of(page));
            Ok::<(), ConnectionError>(())
        });
        filed?;
        let mut replies = replies?.into_iter();
        self.reader.note_answer();
        if cursor.is_some() {
            let ScanReply { next, keys } = scan_reply(&mut replies)?;
            self.cursor = Some(next).filter(|next| *next != 0);
            self.page = Some(keys);
        }
        self.answered = AnsweredBatch {
            hosts: batch,
            replies,
        };
        Ok(())
    }

    /// Reads what changed since the comparison started. SCAN may have missed such a key, and a change does
    /// not have to wait for the end of the comparison.
    async fn read_changes(&mut self) -> Result<(), ConnectionError> {
        let pending = self.invalidations.take();
        if pending.all {
            self.invalidations.add_all();
        }
        let expired = |expiry: Instant| expiry <= Instant::now();
        if pending.keys.is_empty() && !self.reader.next_expiry().is_some_and(expired) {
            return Ok(());
        }
        // An older answer about the same key must not be filed over the newer one.
        self.file_answered()?;
        let read = self.reader.read(&mut self.connection, pending.keys);
        if let Some(existing) = read.await? {
            self.note_seen(&existing);
            if self.publishes_changes {
                self.reader.publish();
            }
        }
        Ok(())
    }

    fn file_answered(&mut self) -> Result<(), ConnectionError> {
        let existing = self.reader.file(std::mem::take(&mut self.answered))?;
        self.note_seen(&existing);
        Ok(())
    }

    fn note_seen(&mut self, existing: &[Key]) {
        for key in existing {
            self.seen.insert(key);
        }
    }
}

/// What one round trip asks for.
struct Request {
    /// For the next page of SCAN, if it is asked for.
    cursor: Option<u64>,
    batch: Vec<HostKeys>,
}

struct ScanReply {
    /// 0 at the end.
    next: u64,
    keys: HashSet<Vec<u8>>,
}

fn scan_reply(replies: &mut impl Iterator<Item = RedisResult<Value>>) -> RedisResult<ScanReply> {
    let missing = || RedisError::from((ErrorKind::Client, "a reply is missing"));
    let value = replies.next().ok_or_else(missing)??;
    let (next, keys) = redis::from_redis_value(value)?;
    Ok(ScanReply { next, keys })
}
