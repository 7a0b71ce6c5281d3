//! A queue of what is due when. An entry can be removed before its time, so that the queue never holds
//! entries for what was renewed or has ended. Pure: time comes in as an argument.

use std::collections::BTreeMap;
use std::time::Instant;

/// Entries in the order in which they are due; with the same time, in the order of their insertion.
#[derive(Debug)]
pub(crate) struct DueQueue<T> {
    entries: BTreeMap<DueKey, T>,
    last_serial: u64,
}

/// The key of an entry, by which it can be removed. No two entries of a queue ever have the same key, so
/// that one that is kept for too long finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DueKey {
    due: Instant,
    serial: u64,
}

impl DueKey {
    pub(crate) fn due(self) -> Instant {
        self.due
    }
}

impl<T> Default for DueQueue<T> {
    fn default() -> DueQueue<T> {
        DueQueue {
            entries: BTreeMap::new(),
            last_serial: 0,
        }
    }
}

impl<T> DueQueue<T> {
    pub(crate) fn insert(&mut self, due: Instant, value: T) -> DueKey {
        self.last_serial += 1;
        let serial = self.last_serial;
        let key = DueKey { due, serial };
        self.entries.insert(key, value);
        key
    }

    /// Removes an entry before its time; `None` when it is not there any more.
    pub(crate) fn remove(&mut self, key: DueKey) -> Option<T> {
        self.entries.remove(&key)
    }

    /// When the first entry is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.entries.keys().next().map(|key| key.due)
    }

    /// Removes the first entry if its time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let first = self.entries.first_entry()?;
        (first.key().due <= now).then(|| first.remove())
    }

    /// Removes the first entry, due or not.
    pub(crate) fn pop_first(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, value)| value)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_removed_or_was_taken_never_comes_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut queue = DueQueue::default();
        let late = queue.insert(at(20), "late");
        let early = queue.insert(at(10), "early");
        let same = queue.insert(at(10), "same time, came later");
        assert_eq!((queue.len(), queue.next_due()), (3, Some(at(10))));
        assert_eq!(queue.pop_due(at(9)), None);
        assert_eq!(queue.pop_due(at(10)), Some("early"));
        assert_eq!(queue.remove(early), None, "it was taken");
        assert_eq!(queue.remove(late), Some("late"));
        assert_eq!(queue.pop_due(at(99)), Some("same time, came later"));
        // The same time and value again is another entry.
        queue.insert(at(10), "early");
        assert_eq!((queue.remove(early), queue.remove(same)), (None, None));
        assert_eq!(queue.pop_first(), Some("early"));
        assert!(queue.is_empty() && queue.next_due().is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        /// The ticket at this place of those ever given, whether or not it is still good.
        Remove(usize),
        Pop(u64),
        PopFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20u64).prop_map(Step::Insert),
            3 => any::<usize>().prop_map(Step::Remove),
            2 => (0..20u64).prop_map(Step::Pop),
            1 => Just(Step::PopFirst),
        ]
    }

    proptest! {
        /// As a plain list that is looked through from its start each time.
        #[test]
        fn it_does_what_a_plain_list_does(steps in prop::collection::vec(step(), 0..200)) {
            let start = Instant::now();
            let mut queue = DueQueue::default();
            let mut list: Vec<(u64, usize)> = Vec::new();
            let mut tickets = Vec::new();
            let first = |list: &Vec<(u64, usize)>| {
                (0..list.len()).min_by_key(|&place| list[place])
            };
            for step in steps {
                match step {
                    Step::Insert(due) => {
                        list.push((due, tickets.len()));
                        let due = start + Duration::from_secs(due);
                        tickets.push(queue.insert(due, tickets.len()));
                    }
                    Step::Remove(at) if !tickets.is_empty() => {
                        let number = at % tickets.len();
                        let place = list.iter().position(|(_, other)| *other == number);
                        let removed = place.map(|place| list.remove(place).1);
                        prop_assert_eq!(queue.remove(tickets[number]), removed);
                    }
                    Step::Remove(_) => {}
                    Step::Pop(now) => {
                        let place = first(&list).filter(|&place| list[place].0 <= now);
                        let popped = place.map(|place| list.remove(place).1);
                        prop_assert_eq!(queue.pop_due(start + Duration::from_secs(now)), popped);
                    }
                    Step::PopFirst => {
                        let popped = first(&list).map(|place| list.remove(place).1);
                        prop_assert_eq!(queue.pop_first(), popped);
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                let next = first(&list).map(|place| start + Duration::from_secs(list[place].0));
                prop_assert_eq!(queue.next_due(), next);
            }
        }
    }
}
