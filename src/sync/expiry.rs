//! When keys with a TTL end. Redis tells of an expired key only when it happens to come by it;
//! reading the key at its end makes it tell at once.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::due::{DueQueue, Ticket};

/// Two readings of one TTL differ by the round trip; below this they mean the same end.
const SAME_END: Duration = Duration::from_millis(20);

/// Keys by their end.
#[derive(Default)]
pub(super) struct Expiry {
    ends: HashMap<Rc<[u8]>, Ticket>,
    queue: DueQueue<Rc<[u8]>>,
}

impl Expiry {
    /// The key ends `ttl` after `now`, or not at all.
    pub(super) fn set(&mut self, raw: &[u8], now: Instant, ttl: Option<Duration>) {
        let Some(end) = ttl.map(|ttl| now + ttl + Duration::from_millis(1)) else {
            if let Some(ticket) = self.ends.remove(raw) {
                self.queue.remove(ticket);
            }
            return;
        };
        let Some(ticket) = self.ends.get_mut(raw) else {
            let raw: Rc<[u8]> = raw.into();
            let ticket = self.queue.insert(end, Rc::clone(&raw));
            self.ends.insert(raw, ticket);
            return;
        };
        let known = ticket.due();
        let is_same = known > now
            && end.saturating_duration_since(known) < SAME_END
            && known.saturating_duration_since(end) < SAME_END;
        if !is_same && let Some(raw) = self.queue.remove(*ticket) {
            *ticket = self.queue.insert(end, raw);
        }
    }

    /// When the next key ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// The keys whose end has come; each is given once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut due = Vec::new();
        while let Some(raw) = self.queue.pop_due(now) {
            self.ends.remove(&raw);
            due.push(raw.to_vec());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_counts_and_each_key_is_given_once() {
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
    fn neither_comparing_nor_renewing_piles_up() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            let jitter = Duration::from_millis(second % 10);
            expiry.set(b"a", now, Some(Duration::from_secs(2000 - second) - jitter));
        }
        assert_eq!((expiry.queue.len(), expiry.ends.len()), (1, 1));
        // An end that moves takes the old one along, and none takes it away.
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            expiry.set(b"a", now, Some(Duration::from_secs(3600)));
        }
        assert_eq!((expiry.queue.len(), expiry.ends.len()), (1, 1));
        expiry.set(b"a", start, None);
        assert_eq!((expiry.queue.len(), expiry.ends.len()), (0, 0));
        assert_eq!(expiry.next(), None);
    }
}
