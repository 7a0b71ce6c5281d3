//! Gathers what the cores record. The sums since the start and since the last dump live here; the
//! cores hold only what was recorded since they were last asked. Nobody holds anything while waiting,
//! so any number may ask at once, and the end of the process waits for none of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::ask::Cores;
use crate::metrics::{CoreMetrics, Dump};
use crate::worker::Dumped;

/// Sums over all cores. A clone is the same collector; it belongs to one thread.
#[derive(Clone)]
pub(crate) struct Collector(Rc<Inner>);

struct Inner {
    sums: RefCell<Sums>,
    /// Told of every answer.
    answered: Notify,
}

struct Sums {
    cores: watch::Receiver<Arc<dyn Cores>>,
    started: (SystemTime, Instant),
    last_dump: Instant,
    sequence: u64,
    total: CoreMetrics,
    interval: CoreMetrics,
    /// Cleared, to be recorded into again: a core allocates nothing and touches no new page.
    spare: Vec<Box<CoreMetrics>>,
    asked: BTreeMap<usize, Asked>,
    reply: UnboundedSender<Dumped>,
    /// The cores are gone, and with them whoever could answer.
    ended: bool,
}

/// How it stands between the collector and one core. An answer counts whenever it comes, and a core
/// that owes one is not asked again before it.
#[derive(Default)]
struct Asked {
    times: u64,
    answers: u64,
    /// Somebody wants what was recorded after the question that is under way.
    again: bool,
}

/// The answers to wait for: of which core, and the how manieth.
type Wanted = Vec<(usize, u64)>;

/// What one dump has in hand, on whatever thread writes it.
pub(crate) struct OwnedDump {
    sequence: u64,
    started: SystemTime,
    taken: Instant,
    since_start: Duration,
    since_last: Duration,
    total: CoreMetrics,
    interval: CoreMetrics,
    cores: usize,
    missing: Vec<usize>,
}

impl OwnedDump {
    pub(crate) fn as_dump(&self) -> Dump<'_> {
        Dump {
            sequence: self.sequence,
            started: self.started,
            since_start: self.since_start,
            since_last: self.since_last,
            total: &self.total,
            interval: &self.interval,
            cores: self.cores,
            missing: &self.missing,
        }
    }
}

impl Collector {
    /// Nothing collected yet; the spans count from now. To be called where local tasks can be
    /// spawned: one of them takes in the answers.
    pub(crate) fn start(cores: watch::Receiver<Arc<dyn Cores>>) -> Collector {
        let (reply, answers) = unbounded_channel();
        let now = Instant::now();
        let collector = Collector(Rc::new(Inner {
            sums: RefCell::new(Sums {
                cores,
                started: (SystemTime::now(), now),
                last_dump: now,
                sequence: 0,
                total: CoreMetrics::new(),
                interval: CoreMetrics::new(),
                spare: Vec::new(),
                asked: BTreeMap::new(),
                reply,
                ended: false,
            }),
            answered: Notify::new(),
        }));
        spawn_local(collector.clone().take_answers(answers));
        collector
    }

    async fn take_answers(self, mut answers: UnboundedReceiver<Dumped>) {
        while let Some(dumped) = answers.recv().await {
            self.0.sums.borrow_mut().take(dumped);
            self.0.answered.notify_waiters();
        }
    }

    /// Takes over everything that the cores recorded before this call. Returns the cores that did
    /// not answer within `patience`; what they hold is collected the next time.
    pub(crate) async fn collect(&self, patience: Duration) -> Vec<usize> {
        let wanted = self.0.sums.borrow_mut().ask_all();
        self.wait_for(wanted, patience).await
    }

    /// Ends every core and takes over what they recorded to their end. Returns whether all of them
    /// answered within `patience`. Later collections find nothing more.
    pub(crate) async fn cut(&self, patience: Duration) -> bool {
        let wanted = self.0.sums.borrow_mut().cut_all();
        self.wait_for(wanted, patience).await.is_empty()
    }

    async fn wait_for(&self, wanted: Wanted, patience: Duration) -> Vec<usize> {
        let all = async {
            loop {
                let answer = self.0.answered.notified();
                if self.0.sums.borrow().missing(&wanted).is_empty() {
                    return;
                }
                answer.await;
            }
        };
        // Answered or not in time: the sums say it either way.
        let _ = timeout(patience, all).await;
        self.0.sums.borrow().missing(&wanted)
    }

    /// Everything since the start, as of the last collection.
    pub(crate) fn with_total<T>(&self, read: impl FnOnce(&CoreMetrics) -> T) -> T {
        read(&self.0.sums.borrow().total)
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.0.sums.borrow().started.1.elapsed()
    }

    /// Collects and gives out what a dump has. A new interval begins; [`Collector::dump_failed`]
    /// takes that back.
    pub(crate) async fn begin_dump(&self, patience: Duration) -> OwnedDump {
        let missing = self.collect(patience).await;
        self.0.sums.borrow_mut().begin_dump(missing)
    }

    /// The dump was not written: what it had is in the next one, so that a full disk loses nothing.
    pub(crate) fn dump_failed(&self, dump: &OwnedDump) {
        let mut sums = self.0.sums.borrow_mut();
        sums.interval.add(&dump.interval);
        sums.sequence = dump.sequence - 1;
        sums.last_dump = dump.taken - dump.since_last;
    }
}

impl Sums {
    fn ask_all(&mut self) -> Wanted {
        if self.ended {
            return Wanted::new();
        }
        let numbers = self.cores.borrow().numbers();
        let ask = |core: usize| {
            let asked = self.asked.entry(core).or_default();
            if asked.times > asked.answers {
                // The answer under way is to an earlier call and has nothing of what came after that.
                asked.again = true;
                return (core, asked.times + 1);
            }
            (core, self.ask(core))
        };
        numbers.into_iter().map(ask).collect()
    }

    /// Returns which answer of the core that will be.
    fn ask(&mut self, core: usize) -> u64 {
        let fresh = self.spare.pop().unwrap_or_default();
        self.cores.borrow().dump(core, fresh, self.reply.clone());
        let asked = self.asked.entry(core).or_default();
        asked.times += 1;
        asked.times
    }

    fn cut_all(&mut self) -> Wanted {
        self.ended = true;
        let cores = self.cores.borrow();
        let cut = |core: usize| {
            cores.cut(core, self.reply.clone());
            // A core that owes an answer gives that one first.
            let asked = self.asked.entry(core).or_default();
            asked.times += 1;
            asked.again = false;
            (core, asked.times)
        };
        cores.numbers().into_iter().map(cut).collect()
    }

    fn take(&mut self, dumped: Dumped) {
        let Dumped { core, mut metrics } = dumped;
        self.total.add(&metrics);
        self.interval.add(&metrics);
        metrics.clear();
        self.spare.push(metrics);
        let asked = self.asked.entry(core).or_default();
        asked.answers += 1;
        if std::mem::take(&mut asked.again) {
            self.ask(core);
        }
    }

    fn missing(&self, wanted: &Wanted) -> Vec<usize> {
        let is_missing = |(core, count): &&(usize, u64)| {
            let asked = self.asked.get(core);
            asked.is_none_or(|asked| asked.answers < *count)
        };
        wanted.iter().filter(is_missing).map(|one| one.0).collect()
    }

    fn begin_dump(&mut self, missing: Vec<usize>) -> OwnedDump {
        let now = Instant::now();
        self.sequence += 1;
        let dump = OwnedDump {
            sequence: self.sequence,
            started: self.started.0,
            taken: now,
            since_start: now - self.started.1,
            since_last: now - self.last_dump,
            total: self.total.clone(),
            interval: std::mem::take(&mut self.interval),
            cores: self.cores.borrow().numbers().len(),
            missing,
        };
        self.last_dump = now;
        dump
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::cores::double::CoreThreads;
    use crate::metrics::{Counter, Stage};
    use crate::protocol::Protocol;

    const SOON: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(20);

    fn accepted(metrics: &CoreMetrics) -> u64 {
        metrics.counter(Counter::Accepted)
    }

    /// Runs `test` with a collector of these cores.
    fn with_cores<F: Future<Output = ()>>(
        numbers: &[usize],
        test: impl FnOnce(Arc<CoreThreads>, Collector) -> F,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let cores = CoreThreads::start(numbers);
        LocalSet::new().block_on(&runtime, async {
            let (_keep, receiver) = watch::channel(cores.clone() as Arc<dyn Cores>);
            test(cores, Collector::start(receiver)).await;
        });
    }

    #[test]
    fn a_dump_has_what_came_since_the_start_and_since_the_last_one() {
        with_cores(&[0, 3], async |cores, collector| {
            let mut seen = Vec::new();
            let mut dump = async || {
                let owned = collector.begin_dump(SOON).await;
                let dump = owned.as_dump();
                assert!(dump.missing.is_empty());
                seen.push((
                    dump.sequence,
                    accepted(dump.total),
                    accepted(dump.interval),
                    dump.total.histogram(Protocol::Tls, Stage::Connect).len(),
                ));
            };
            cores.accept(0, 2);
            cores.accept(3, 3);
            dump().await;
            cores.accept(3, 10);
            // What the admin endpoint collects in between still belongs to the next dump.
            assert_eq!(collector.collect(SOON).await, [0usize; 0]);
            cores.accept(0, 1);
            dump().await;
            dump().await;
            assert_eq!(seen, [(1, 5, 5, 5), (2, 16, 11, 16), (3, 16, 0, 16)]);
        });
    }

    #[test]
    fn a_core_that_answers_late_loses_nothing() {
        with_cores(&[0, 1], async |cores, collector| {
            cores.accept(0, 1);
            cores.accept(1, 1);
            cores.stall(1, true);
            assert_eq!(collector.collect(SHORT).await, [1]);
            assert_eq!(collector.collect(SHORT).await, [1]);
            assert_eq!(collector.with_total(accepted), 1);
            cores.accept(1, 1);
            cores.stall(1, false);
            assert_eq!(collector.collect(SOON).await, [0usize; 0]);
            assert_eq!(collector.with_total(accepted), 3);
        });
    }

    #[test]
    fn those_who_ask_at_once_do_not_wait_for_each_other() {
        with_cores(&[0, 1], async |cores, collector| {
            cores.stall(1, true);
            let begin = Instant::now();
            let patience = Duration::from_millis(200);
            let asking: Vec<_> = (0..32)
                .map(|_| {
                    let collector = collector.clone();
                    spawn_local(async move { collector.collect(patience).await })
                })
                .collect();
            for asked in asking {
                assert_eq!(asked.await.unwrap(), [1]);
            }
            assert!(begin.elapsed() < 8 * patience, "{:?}", begin.elapsed());
            cores.accept(1, 3);
            cores.stall(1, false);
            assert_eq!(collector.collect(SOON).await, [0usize; 0]);
            assert_eq!(collector.with_total(accepted), 3);
        });
    }

    #[test]
    fn the_end_of_the_cores_loses_nothing() {
        with_cores(&[0, 1], async |cores, collector| {
            cores.stall(1, true);
            cores.accept(1, 1);
            assert_eq!(collector.collect(SHORT).await, [1]);
            cores.accept(0, 1);
            cores.accept(1, 1);
            cores.stall(1, false);
            assert!(collector.cut(SOON).await);
            assert_eq!(collector.with_total(accepted), 3);
            assert_eq!(collector.collect(SOON).await, [0usize; 0]);
        });
    }

    #[test]
    fn a_dump_that_could_not_be_written_begins_no_new_interval() {
        with_cores(&[0], async |cores, collector| {
            cores.accept(0, 4);
            let failed = collector.begin_dump(SOON).await;
            cores.accept(0, 1);
            collector.dump_failed(&failed);
            let next = collector.begin_dump(SOON).await;
            let dump = next.as_dump();
            assert_eq!((dump.sequence, accepted(dump.interval)), (1, 5));
            assert!(dump.since_last >= failed.as_dump().since_last);
        });
    }
}
