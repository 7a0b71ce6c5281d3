//! Limits of the sync thread that are not worth an option.

use std::time::Duration;

/// Time for connecting to Redis and logging in, each attempt.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// First and last pause between attempts; each pause doubles, with jitter so that many proxies do
/// not come back in step.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Without a table for this long at start, the snapshot or the static routes have to do.
pub(super) const FIRST_TABLE_WAIT: Duration = Duration::from_secs(2);

/// At most five hundred updates a second go to the cores, each a wake-up of some microseconds there; a
/// storm of writes is folded into them. It is also how long a change may wait behind another.
pub(super) const PUBLISH_GAP: Duration = Duration::from_millis(2);

/// Keys that one SCAN asks for.
pub(super) const PAGE_KEYS: usize = 2 * BATCH_KEYS;

/// Keys asked for in one round trip: some 50 KB of replies, and a million hosts are read in two
/// thousand round trips. Two make a page, so that Redis has one to answer while the next page is
/// taken apart.
pub(super) const BATCH_KEYS: usize = 500;

/// The pause after a comparison is at least this many times what it took, so that comparing takes
/// at most a tenth of the thread and of Redis however many hosts there are.
pub(super) const COMPARISON_PAUSE: u32 = 9;

/// Changed keys remembered by name. Beyond that everything is compared, which costs less.
pub(super) const PENDING_KEYS_MAX: usize = 100_000;

/// Rejected keys and members that are logged one by one, per batch; the rest is a count.
pub(super) const REJECTIONS_LOGGED_MAX: usize = 10;

/// Rejected keys remembered, so that each is logged once and not at every comparison.
pub(super) const REJECTIONS_KEPT_MAX: usize = 10_000;

/// Between two snapshots: a storm of changes is not a storm of writes to the disk.
pub(super) const SNAPSHOT_GAP: Duration = Duration::from_secs(5);

/// DNS look-ups under way at once of names that are expected to be answered. Each holds two sockets, for
/// its IPv4 and its IPv6 question.
pub(super) const LOOKUPS_MAX: usize = 24;

/// The same of names that fail, beside the others: a dead server keeps a look-up for ten seconds.
pub(super) const FAILING_LOOKUPS_MAX: usize = 8;

/// Names that were answered before are asked for again at most this often in a turn, a thousand times a
/// second: a look-up costs the thread 0.15 ms, so that however many names there are and however short
/// their TTLs, renewing them takes a sixth of it. 20,000 names with a TTL of 5 s are renewed every 20 s.
pub(super) const RENEWALS_MAX: usize = 20;
pub(super) const RENEWALS_TURN: Duration = Duration::from_millis(20);

/// So long an answer is expected. Longer than servers take that know it or are near who does; a
/// hundred dead names that are asked for first delay the others by this four times.
pub(super) const LOOKUP_PATIENCE: Duration = Duration::from_secs(1);
