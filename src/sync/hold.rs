//! Whether so many hosts may go at once. More than half of them within a short time is more often an
//! accident (FLUSHALL, a restart without data, a script that deletes) than a wish, in whatever way
//! they go: missing in a comparison, missing beside the snapshot of before, deleted one by one. Pure:
//! time comes in as an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::due::{DueQueue, Ticket};
use crate::route::{Key, Route};

/// From this many hosts on, the loss of more than half of them is suspicious.
const HOSTS_MIN: usize = 10;

/// What went lately, and whether nothing may go at the moment.
pub(super) struct Hold {
    /// How long a loss is held back; also the time within which several count as one. Zero: any loss
    /// is believed.
    span: Duration,
    since: Option<Instant>,
    /// Hosts that went within the last span and have not come back, with what they had.
    gone: HashMap<Key, (Ticket, Arc<Route>)>,
    ends: DueQueue<Key>,
}

impl Hold {
    pub(super) fn new(span: Duration) -> Hold {
        Hold {
            span,
            since: None,
            gone: HashMap::new(),
            ends: DueQueue::default(),
        }
    }

    /// Whether the loss of `going` of `present` hosts, with those that went lately, is one of more
    /// than half.
    pub(super) fn is_suspicious(&mut self, going: usize, present: usize, now: Instant) -> bool {
        while let Some(key) = self.ends.pop_due(now) {
            self.gone.remove(&key);
        }
        let before = present + self.gone.len();
        let most = before >= HOSTS_MIN && (going + self.gone.len()) * 2 > before;
        most && !self.span.is_zero()
    }

    /// A host went. The defaults are no hosts.
    pub(super) fn note_gone(&mut self, key: Key, route: Arc<Route>, now: Instant) {
        if self.span.is_zero() || matches!(key, Key::Default(_)) {
            return;
        }
        self.note_there(&key);
        let ticket = self.ends.insert(now + self.span, key.clone());
        self.gone.insert(key, (ticket, route));
    }

    /// A host is there, or there again.
    pub(super) fn note_there(&mut self, key: &Key) {
        if let Some((ticket, _)) = self.gone.remove(key) {
            self.ends.remove(ticket);
        }
    }

    /// Nothing may go from now on. Gives back what went lately, which is part of the same loss.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<(Key, Arc<Route>)> {
        self.since = Some(now);
        self.ends = DueQueue::default();
        let gone = self.gone.drain();
        gone.map(|(key, (_, route))| (key, route)).collect()
    }

    pub(super) fn is_held(&self) -> bool {
        self.since.is_some()
    }

    /// When a comparison decides.
    pub(super) fn until(&self) -> Option<Instant> {
        self.since.map(|since| since + self.span)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now >= until)
    }

    /// The hosts are back, or the loss is believed; what it took counts no longer.
    pub(super) fn end(&mut self) {
        self.since = None;
        self.gone.clear();
        self.ends = DueQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Registry;

    const SPAN: Duration = Duration::from_secs(10);

    struct Rig {
        hold: Hold,
        present: usize,
        start: Instant,
        route: Arc<Route>,
    }

    impl Rig {
        fn new(present: usize, span: Duration) -> Rig {
            let mut registry = Registry::new();
            let backend = registry.intern("10.0.0.1").unwrap();
            Rig {
                hold: Hold::new(span),
                present,
                start: Instant::now(),
                route: registry.route([backend]),
            }
        }

        /// Deletes one host; false when that is suspicious.
        fn delete(&mut self, name: usize, second: u64) -> bool {
            let now = self.start + Duration::from_secs(second);
            if self.hold.is_suspicious(1, self.present, now) {
                return false;
            }
            self.present -= 1;
            let key = Key::parse(&format!("h{name}.test")).unwrap();
            self.hold.note_gone(key, Arc::clone(&self.route), now);
            true
        }
    }

    #[test]
    fn one_by_one_is_the_same_as_all_at_once() {
        let mut rig = Rig::new(20, SPAN);
        assert!((0..10).all(|name| rig.delete(name, 1)));
        assert!(!rig.delete(10, 2), "more than half");
        let now = rig.start + Duration::from_secs(2);
        assert_eq!(rig.hold.begin(now).len(), 10);
        assert!(rig.hold.is_held() && !rig.hold.is_over(now));
        assert!(rig.hold.is_over(now + SPAN));
        rig.hold.end();
        assert!(!rig.hold.is_held());
        assert!(Rig::new(20, SPAN).hold.is_suspicious(11, 20, now));
    }

    #[test]
    fn slowly_few_or_back_again_is_no_accident() {
        let mut slowly = Rig::new(20, SPAN);
        assert!((0..10).all(|name| slowly.delete(name, 3 * name as u64)));
        let mut few = Rig::new(9, SPAN);
        assert!((0..9).all(|name| few.delete(name, 0)));
        let mut back = Rig::new(20, SPAN);
        for name in 0..200 {
            assert!(back.delete(name, 0), "{name}");
            back.present += 1;
            back.hold
                .note_there(&Key::parse(&format!("h{name}.test")).unwrap());
        }
        assert_eq!((back.hold.gone.len(), back.hold.ends.next_due()), (0, None));
        let mut believed = Rig::new(20, Duration::ZERO);
        assert!((0..20).all(|name| believed.delete(name, 0)));
        assert!(believed.hold.gone.is_empty());
    }
}
