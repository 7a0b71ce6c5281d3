//! Gathers what the cores record. The sums since the start and since the last dump live here; the
//! cores hold only what was recorded since they were last asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::cores::Cores;
use crate::core::Dumped;
use crate::metrics::{CoreMetrics, Dump};

/// Sums over all cores.
pub struct Collector {
    cores: Arc<dyn Cores>,
    started: (SystemTime, Instant),
    last_dump: Instant,
    sequence: u64,
    total: CoreMetrics,
    interval: CoreMetrics,
    /// Cleared, to be recorded into again: a core allocates nothing and touches no new page.
    spare: Vec<Box<CoreMetrics>>,
    /// Cores that were asked and have not answered. Their answer counts whenever it comes, and they
    /// are not asked again before it.
    owing: BTreeSet<usize>,
    reply: Sender<Dumped>,
    answers: Receiver<Dumped>,
    /// The cores are gone, and with them whoever could answer.
    ended: bool,
}

impl Collector {
    /// Nothing collected yet; the spans count from now.
    pub fn new(cores: Arc<dyn Cores>) -> Collector {
        let (reply, answers) = unbounded();
        let now = Instant::now();
        Collector {
            cores,
            started: (SystemTime::now(), now),
            last_dump: now,
            sequence: 0,
            total: CoreMetrics::new(),
            interval: CoreMetrics::new(),
            spare: Vec::new(),
            owing: BTreeSet::new(),
            reply,
            answers,
            ended: false,
        }
    }

    /// Takes over everything that the cores recorded before this call. Returns the cores that did
    /// not answer within `timeout`; what they hold is collected the next time.
    pub fn collect(&mut self, timeout: Duration) -> Vec<usize> {
        let deadline = Instant::now() + timeout;
        let mut late = self.owing.clone();
        for core in self.cores.numbers() {
            self.ask(core);
        }
        while !self.owing.is_empty() {
            let Ok(dumped) = self.answers.recv_deadline(deadline) else {
                break;
            };
            self.owing.remove(&dumped.core);
            self.take(dumped.metrics);
            // This answer was to an earlier call and has nothing of what came after that.
            if late.remove(&dumped.core) {
                self.ask(dumped.core);
            }
        }
        self.owing.iter().copied().collect()
    }

    /// Ends every core and takes over what they recorded to their end. Returns whether all of them
    /// answered within `timeout`. Later collections find nothing more.
    pub fn cut(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let numbers = self.cores.numbers();
        for core in &numbers {
            self.cores.cut(*core, self.reply.clone());
        }
        self.ended = true;
        // A core that owes an answer gives that one first.
        let mut expected = numbers.len() + std::mem::take(&mut self.owing).len();
        while expected > 0 {
            let Ok(dumped) = self.answers.recv_deadline(deadline) else {
                return false;
            };
            self.take(dumped.metrics);
            expected -= 1;
        }
        true
    }

    fn take(&mut self, mut metrics: Box<CoreMetrics>) {
        self.total.add(&metrics);
        self.interval.add(&metrics);
        metrics.clear();
        self.spare.push(metrics);
    }

    fn ask(&mut self, core: usize) {
        if !self.ended && self.owing.insert(core) {
            let fresh = self.spare.pop().unwrap_or_default();
            self.cores.dump(core, fresh, self.reply.clone());
        }
    }

    /// Everything since the start, as of the last collection.
    pub fn total(&self) -> &CoreMetrics {
        &self.total
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.1.elapsed()
    }

    /// Collects and has the dump written by `write`. Only when that succeeds does a new interval
    /// begin, so that a full disk loses nothing.
    pub fn dump<E>(
        &mut self,
        timeout: Duration,
        write: impl FnOnce(&Dump<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let missing = self.collect(timeout);
        let now = Instant::now();
        write(&Dump {
            sequence: self.sequence + 1,
            started: self.started.0,
            since_start: now - self.started.1,
            since_last: now - self.last_dump,
            total: &self.total,
            interval: &self.interval,
            cores: self.cores.numbers().len(),
            missing: &missing,
        })?;
        self.sequence += 1;
        self.last_dump = now;
        self.interval.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::double::CoreThreads;
    use crate::metrics::{Counter, Stage};
    use crate::protocol::Protocol;

    const SOON: Duration = Duration::from_secs(5);

    fn accepted(metrics: &CoreMetrics) -> u64 {
        metrics.counter(Counter::Accepted)
    }

    #[test]
    fn a_dump_has_what_came_since_the_start_and_since_the_last_one() {
        let cores = CoreThreads::start(&[0, 3]);
        let mut collector = Collector::new(cores.clone());
        let mut seen = Vec::new();
        let mut dump = |collector: &mut Collector| {
            let keep = |dump: &Dump<'_>| {
                assert!(dump.missing.is_empty());
                seen.push((
                    dump.sequence,
                    accepted(dump.total),
                    accepted(dump.interval),
                    dump.total.histogram(Protocol::Tls, Stage::Connect).len(),
                ));
                Ok::<(), ()>(())
            };
            collector.dump(SOON, keep).unwrap();
        };
        cores.accept(0, 2);
        cores.accept(3, 3);
        dump(&mut collector);
        cores.accept(3, 10);
        // What the admin endpoint collects in between still belongs to the next dump.
        assert_eq!(collector.collect(SOON), [0usize; 0]);
        cores.accept(0, 1);
        dump(&mut collector);
        dump(&mut collector);
        assert_eq!(seen, [(1, 5, 5, 5), (2, 16, 11, 16), (3, 16, 0, 16)]);
    }

    #[test]
    fn a_core_that_answers_late_loses_nothing() {
        let cores = CoreThreads::start(&[0, 1]);
        let mut collector = Collector::new(cores.clone());
        cores.accept(0, 1);
        cores.accept(1, 1);
        cores.stall(1, true);
        assert_eq!(collector.collect(Duration::from_millis(20)), [1]);
        assert_eq!(collector.collect(Duration::from_millis(20)), [1]);
        assert_eq!(accepted(collector.total()), 1);
        cores.accept(1, 1);
        cores.stall(1, false);
        assert_eq!(collector.collect(SOON), [0usize; 0]);
        assert_eq!(accepted(collector.total()), 3);
    }

    #[test]
    fn the_end_of_the_cores_loses_nothing() {
        let cores = CoreThreads::start(&[0, 1]);
        let mut collector = Collector::new(cores.clone());
        cores.stall(1, true);
        cores.accept(1, 1);
        assert_eq!(collector.collect(Duration::from_millis(20)), [1]);
        cores.accept(0, 1);
        cores.accept(1, 1);
        cores.stall(1, false);
        assert!(collector.cut(SOON));
        assert_eq!(accepted(collector.total()), 3);
        assert_eq!(collector.collect(SOON), [0usize; 0]);
    }

    #[test]
    fn a_dump_that_could_not_be_written_begins_no_new_interval() {
        let cores = CoreThreads::start(&[0]);
        let mut collector = Collector::new(cores.clone());
        cores.accept(0, 4);
        collector.dump(SOON, |_| Err("disk full")).unwrap_err();
        let check = |dump: &Dump<'_>| {
            assert_eq!((dump.sequence, accepted(dump.interval)), (1, 4));
            Ok::<(), ()>(())
        };
        collector.dump(SOON, check).unwrap();
    }
}
