//! Sums up what the cores record. A core keeps only what it has recorded since it was last asked; the sums
//! since the start and since the last dump are here. Any number of tasks may collect at the same time:
//! none of them holds a lock while it waits, so the end of the process waits for none of them.

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

/// The sums over all cores. Clones share them, within one thread.
#[derive(Clone)]
pub(crate) struct Collector(Rc<Inner>);

struct Inner {
    sums: RefCell<Sums>,
    /// Notified of every answer of a core.
    answered: Notify,
}

struct Sums {
    cores: watch::Receiver<Arc<dyn Cores>>,
    started: Started,
    last_dump: Instant,
    /// The number of the last dump, from 1.
    sequence: u64,
    total: CoreMetrics,
    interval: CoreMetrics,
    /// Empty metrics that were in use before. A core that gets one of them to record into allocates
    /// nothing and touches no new page.
    spare: Vec<Box<CoreMetrics>>,
    requests: BTreeMap<usize, Requests>,
    reply: UnboundedSender<Dumped>,
    /// Whether the cores were told to end. No core answers any more.
    has_ended: bool,
}

#[derive(Clone, Copy)]
struct Started {
    time: SystemTime,
    instant: Instant,
}

/// The requests to one core. A core that has not answered yet is not asked again; its answer counts
/// even when it comes late.
#[derive(Default)]
struct Requests {
    sent: u64,
    answered: u64,
    /// Whether to ask again after the next answer, for a task that wants what was recorded since the
    /// last request.
    ask_again: bool,
}

/// An answer to wait for: the `count`th of this core.
#[derive(Clone, Copy)]
struct Awaited {
    core: usize,
    count: u64,
}

/// What a dump says, owned, so that another thread can write it.
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
    /// Starts the task that takes the answers of the cores, in the [`LocalSet`](tokio::task::LocalSet)
    /// of the caller. The time since the start counts from now.
    pub(crate) fn start(cores: watch::Receiver<Arc<dyn Cores>>) -> Collector {
        let (reply, answers) = unbounded_channel();
        let now = Instant::now();
        let collector = Collector(Rc::new(Inner {
            sums: RefCell::new(Sums {
                cores,
                started: Started {
                    time: SystemTime::now(),
                    instant: now,
                },
                last_dump: now,
                sequence: 0,
                total: CoreMetrics::new(),
                interval: CoreMetrics::new(),
                spare: Vec::new(),
                requests: BTreeMap::new(),
                reply,
                has_ended: false,
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

    /// Adds everything that the cores have recorded before this call. Returns the cores that do not
    /// answer within `limit`; what they have recorded is added once they answer.
    pub(crate) async fn collect(&self, limit: Duration) -> Vec<usize> {
        let awaited = self.0.sums.borrow_mut().ask_all();
        self.wait_for(awaited, limit).await
    }

    /// Ends every core, and adds what they have recorded until then. Returns whether all of them
    /// answered within `limit`. Later collections add nothing.
    pub(crate) async fn cut(&self, limit: Duration) -> bool {
        let awaited = self.0.sums.borrow_mut().cut_all();
        self.wait_for(awaited, limit).await.is_empty()
    }

    async fn wait_for(&self, awaited: Vec<Awaited>, limit: Duration) -> Vec<usize> {
        let all = async {
            loop {
                let answer = self.0.answered.notified();
                if self.0.sums.borrow().missing(&awaited).is_empty() {
                    return;
                }
                answer.await;
            }
        };
        // The sums say who has answered, in time or not.
        let _ = timeout(limit, all).await;
        self.0.sums.borrow().missing(&awaited)
    }

    /// Everything since the start, as of the last collection.
    pub(crate) fn with_total<T>(&self, read: impl FnOnce(&CoreMetrics) -> T) -> T {
        read(&self.0.sums.borrow().total)
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.0.sums.borrow().started.instant.elapsed()
    }

    /// Collects, and returns what a dump is to say. A new interval begins, unless
    /// [`Collector::dump_failed`] is called.
    pub(crate) async fn begin_dump(&self, limit: Duration) -> OwnedDump {
        let missing = self.collect(limit).await;
        self.0.sums.borrow_mut().begin_dump(missing)
    }

    /// The dump was not written. The next one says what this one would have said as well, so that a full
    /// disk loses nothing.
    pub(crate) fn dump_failed(&self, dump: &OwnedDump) {
        let mut sums = self.0.sums.borrow_mut();
        sums.interval.add(&dump.interval);
        sums.sequence = dump.sequence - 1;
        sums.last_dump = dump.taken - dump.since_last;
    }
}

impl Sums {
    fn ask_all(&mut self) -> Vec<Awaited> {
        if self.has_ended {
            return Vec::new();
        }
        let numbers = self.cores.borrow().numbers();
        let ask = |core: usize| {
            let requests = self.requests.entry(core).or_default();
            if requests.sent > requests.answered {
                // The answer to come is to an earlier request, and lacks what was recorded since.
                requests.ask_again = true;
                let count = requests.sent + 1;
                return Awaited { core, count };
            }
            self.ask(core)
        };
        numbers.into_iter().map(ask).collect()
    }

    fn ask(&mut self, core: usize) -> Awaited {
        let fresh = self.spare.pop().unwrap_or_default();
        self.cores.borrow().dump(core, fresh, self.reply.clone());
        let requests = self.requests.entry(core).or_default();
        requests.sent += 1;
        let count = requests.sent;
        Awaited { core, count }
    }

    fn cut_all(&mut self) -> Vec<Awaited> {
        self.has_ended = true;
        let cores = self.cores.borrow();
        let cut = |core: usize| {
            cores.cut(core, self.reply.clone());
            // A core answers its requests in order: this one last.
            let requests = self.requests.entry(core).or_default();
            requests.sent += 1;
            requests.ask_again = false;
            let count = requests.sent;
            Awaited { core, count }
        };
        cores.numbers().into_iter().map(cut).collect()
    }

    fn take(&mut self, dumped: Dumped) {
        let Dumped { core, mut metrics } = dumped;
        self.total.add(&metrics);
        self.interval.add(&metrics);
        metrics.clear();
        self.spare.push(metrics);
        let requests = self.requests.entry(core).or_default();
        requests.answered += 1;
        if std::mem::take(&mut requests.ask_again) {
            self.ask(core);
        }
    }

    /// The cores that have not given these answers yet.
    fn missing(&self, awaited: &[Awaited]) -> Vec<usize> {
        let is_missing = |awaited: &&Awaited| {
            let requests = self.requests.get(&awaited.core);
            requests.is_none_or(|requests| requests.answered < awaited.count)
        };
        let missing = awaited.iter().filter(is_missing);
        missing.map(|awaited| awaited.core).collect()
    }

    fn begin_dump(&mut self, missing: Vec<usize>) -> OwnedDump {
        let now = Instant::now();
        self.sequence += 1;
        let dump = OwnedDump {
            sequence: self.sequence,
            started: self.started.time,
            taken: now,
            since_start: now - self.started.instant,
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
