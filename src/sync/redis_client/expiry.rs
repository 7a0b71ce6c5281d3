//! When keys with a TTL expire. Redis reports an expired key only when it deletes it, which may be long
//! after. Reading the key at the moment of its expiry shows at once that it is gone.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::due::{DueKey, DueQueue};

/// Two readings of one TTL differ by the round trip. Below this difference they mean the same moment.
const SAME_EXPIRY: Duration = Duration::from_millis(20);

/// Keys by the moment of their expiry.
#[derive(Default)]
pub(super) struct Expiry {
    tickets: HashMap<Rc<[u8]>, DueKey>,
    queue: DueQueue<Rc<[u8]>>,
}

impl Expiry {
    /// The key expires `ttl` after `now`; without a TTL it does not expire.
    pub(super) fn set(&mut self, redis_key: &[u8], now: Instant, ttl: Option<Duration>) {
        let Some(expires) = ttl.map(|ttl| now + ttl + Duration::from_millis(1)) else {
            if let Some(ticket) = self.tickets.remove(redis_key) {
                self.queue.remove(ticket);
            }
            return;
        };
        let Some(ticket) = self.tickets.get_mut(redis_key) else {
            let redis_key: Rc<[u8]> = redis_key.into();
            let ticket = self.queue.insert(expires, Rc::clone(&redis_key));
            self.tickets.insert(redis_key, ticket);
            return;
        };
        let known = ticket.due();
        let is_same = known > now
            && expires.saturating_duration_since(known) < SAME_EXPIRY
            && known.saturating_duration_since(expires) < SAME_EXPIRY;
        if !is_same && let Some(redis_key) = self.queue.remove(*ticket) {
            *ticket = self.queue.insert(expires, redis_key);
        }
    }

    /// When the next key expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// Takes the keys that have expired; each is given once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut due = Vec::new();
        while let Some(redis_key) = self.queue.pop_due(now) {
            self.tickets.remove(&redis_key);
            due.push(redis_key.to_vec());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ttl_counts_and_each_key_is_given_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ttl = |ms| Some(Duration::from_millis(ms));
        let mut expiry = Expiry::default();
        expiry.set(b"a", start, ttl(100));
        expiry.set(b"b", start, ttl(200));
        expiry.set(b"c", start, ttl(50));
        expiry.set(b"a", at(10), ttl(500));
        expiry.set(b"c", at(10), None);
        assert_eq!(expiry.due(at(49)), Vec::<Vec<u8>>::new());
        assert_eq!(expiry.due(at(250)), [b"b"]);
        assert_eq!(expiry.due(at(1000)), [b"a"]);
        assert_eq!((expiry.due(at(2000)).len(), expiry.next()), (0, None));
    }

    #[test]
    fn reading_the_same_key_again_adds_nothing() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            let jitter = Duration::from_millis(second % 10);
            expiry.set(b"a", now, Some(Duration::from_secs(2000 - second) - jitter));
        }
        assert_eq!((expiry.queue.len(), expiry.tickets.len()), (1, 1));
        // A new TTL replaces the old one, and no TTL removes it.
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            expiry.set(b"a", now, Some(Duration::from_secs(3600)));
        }
        assert_eq!((expiry.queue.len(), expiry.tickets.len()), (1, 1));
        expiry.set(b"a", start, None);
        assert_eq!((expiry.queue.len(), expiry.tickets.len()), (0, 0));
        assert_eq!(expiry.next(), None);
    }
}
