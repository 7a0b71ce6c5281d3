//! The prober: the thread that makes the health checks. It checks every backend that has one once per
//! interval, for the whole process, and sets its [`HealthCheckState`], which every core reads with its
//! next choice.
//!
//! It is a thread with a tokio runtime of its own, because the redis-sync thread may be busy with a
//! million hosts while a backend dies. Each check is a task, which ends when no route has the check any
//! more. The thread starts with the first check.

mod probe;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use probe::Probe;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::health::{CheckFailure, HealthCheckState, Moment, Verdict};
use crate::route::{Address, Backend, ProbeTarget};

const THREAD_NAME: &str = "health";
/// Probes of backends that are up that may be under way at once, each with a descriptor. Further ones
/// wait.
const PROBES_MAX: usize = 48;
/// The same for backends that are down. Most of them keep silent until the timeout, and many of them must
/// not delay the probes of backends that are up.
const PROBES_OF_DOWN_MAX: usize = 16;
/// So many addresses of a DNS name are probed. One good answer is enough, and a name with hundreds of
/// addresses belongs to a load balancer.
const ADDRESSES_MAX: usize = 8;
/// Intervals vary at random by up to this part, so that checks that began together, in one proxy or in
/// many, do not stay together.
const JITTER: f64 = 0.1;

/// Counts answers since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Tally {
    pub(crate) fn good(&self) -> u64 {
        self.good.load(Relaxed)
    }

    pub(crate) fn bad(&self) -> u64 {
        self.bad.load(Relaxed)
    }

    fn count(&self, is_good: bool) {
        let counter = if is_good { &self.good } else { &self.bad };
        counter.fetch_add(1, Relaxed);
    }
}

/// Hands checks to the thread. Dropping it ends the thread.
pub(crate) struct Prober {
    /// `None`: the thread does not run yet.
    targets: Option<UnboundedSender<Vec<ProbeTarget>>>,
    tally: Arc<Tally>,
}

impl Prober {
    /// Starts nothing yet.
    pub(crate) fn new(tally: Arc<Tally>) -> Prober {
        Prober {
            targets: None,
            tally,
        }
    }

    /// Makes these checks from now on, each until no route has it any more.
    pub(crate) fn add(&mut self, targets: Vec<ProbeTarget>) {
        if targets.is_empty() {
            return;
        }
        if self.targets.is_none() {
            match start(Arc::clone(&self.tally)) {
                Ok(sender) => self.targets = Some(sender),
                Err(error) => {
                    tracing::error!(%error, "the thread of the health checks does not start, so \
                        all backends count as up; raise the limits of threads and open files and \
                        restart");
                    return;
                }
            }
        }
        let sent = self.targets.as_ref().map(|sender| sender.send(targets));
        if sent.is_some_and(|sent| sent.is_err()) {
            tracing::error!(
                "the thread of the health checks has ended, so new checks are not made; please \
                 report it with the lines before"
            );
        }
    }
}

fn start(tally: Arc<Tally>) -> std::io::Result<UnboundedSender<Vec<ProbeTarget>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, receiver) = unbounded_channel();
    std::thread::Builder::new()
        .name(THREAD_NAME.into())
        .spawn(move || runtime.block_on(run(receiver, tally)))?;
    Ok(sender)
}

/// The bounds of probes under way.
#[derive(Clone)]
struct Slots {
    of_up: Arc<Semaphore>,
    of_down: Arc<Semaphore>,
}

impl Slots {
    fn new() -> Slots {
        Slots {
            of_up: Arc::new(Semaphore::new(PROBES_MAX)),
            of_down: Arc::new(Semaphore::new(PROBES_OF_DOWN_MAX)),
        }
    }

    fn of(&self, state: &HealthCheckState) -> &Arc<Semaphore> {
        if state.is_up() {
            &self.of_up
        } else {
            &self.of_down
        }
    }
}

async fn run(mut targets: UnboundedReceiver<Vec<ProbeTarget>>, tally: Arc<Tally>) {
    let slots = Slots::new();
    while let Some(targets) = targets.recv().await {
        for target in targets {
            tokio::spawn(check_regularly(target, slots.clone(), Arc::clone(&tally)));
        }
    }
}

/// Makes one check until no route has it any more.
async fn check_regularly(target: ProbeTarget, slots: Slots, tally: Arc<Tally>) {
    let Some(interval) = target.upgrade().map(|(_, state)| state.check().interval) else {
        return;
    };
    let mut verdict = Verdict::new();
    // A random first delay spreads the checks over the interval.
    let mut due = tokio::time::Instant::now() + interval.mul_f64(fastrand::f64());
    loop {
        tokio::time::sleep_until(due).await;
        // Held for the time of the check only, so that the check can end.
        let Some((backend, state)) = target.upgrade() else {
            return;
        };
        // On the heap, so that a check that waits needs little memory.
        if let Some(answer) = Box::pin(check_once(&backend, &state, &slots)).await {
            tally.count(answer.result.is_ok());
            take_in(&backend, &state, &mut verdict, answer);
        }
        // The next check is due an interval after this one was, so that slow answers do not stretch
        // the interval. Checks that the thread missed are not made up for.
        due = (due + jittered(interval)).max(tokio::time::Instant::now());
    }
}

/// Notes an answer and logs when it changes the verdict.
fn take_in(backend: &Backend, state: &HealthCheckState, verdict: &mut Verdict, answer: Answer) {
    let failure = answer.result.err();
    let text = failure.as_ref().map(|failure| failure.to_string().into());
    state.record_answer(answer.latency, text);
    let check = state.check();
    if let Some(is_up) = verdict.changed_by(failure.is_none(), check.rise, check.fall) {
        state.set_up(is_up, Moment::of(Instant::now()));
        log_change(backend, state, failure);
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Probes all addresses of a backend. The answer is good when any of them answers well. `None`: nothing
/// is learnt, because the backend has no address yet or this machine lacks what a probe needs.
async fn check_once(backend: &Backend, state: &HealthCheckState, slots: &Slots) -> Option<Answer> {
    let slots = slots.of(state);
    let protocol = probe::protocol(state);
    let count = backend.address_count().min(ADDRESSES_MAX);
    let mut addresses: Vec<Address> = (0..count)
        .filter_map(|n| backend.address(protocol, n))
        .collect();
    let probe = Probe::new(backend, state);
    let first = addresses.pop()?;
    if addresses.is_empty() {
        return run_probe(&probe, &first, slots).await;
    }
    let probe = Arc::new(probe);
    let mut answers = JoinSet::new();
    for address in addresses.into_iter().chain([first]) {
        let (probe, slots) = (Arc::clone(&probe), Arc::clone(slots));
        answers.spawn(async move { run_probe(&probe, &address, &slots).await });
    }
    let mut last = None;
    while let Some(answer) = answers.join_next().await {
        match answer {
            Ok(Some(good)) if good.result.is_ok() => return Some(good),
            Ok(Some(bad)) => last = Some(bad),
            Ok(None) | Err(_) => {}
        }
    }
    last
}

/// What one address answered, and how long that took without the wait for a slot.
struct Answer {
    result: Result<(), CheckFailure>,
    latency: Duration,
}

/// Probes one address when there is a slot. `None`: this machine lacks what a probe needs.
async fn run_probe(probe: &Probe, address: &Address, slots: &Semaphore) -> Option<Answer> {
    let _slot = slots.acquire().await.ok()?;
    let began = Instant::now();
    match probe.run(address).await {
        Err(CheckFailure::OwnFault(error)) => {
            tracing::debug!(error, "a health check could not be made");
            None
        }
        result => Some(Answer {
            result,
            latency: began.elapsed(),
        }),
    }
}

/// One line per change of a verdict, with the number of answers in a row that it took.
fn log_change(backend: &Backend, state: &HealthCheckState, failure: Option<CheckFailure>) {
    let (backend, check) = (backend.text(), state.check());
    match failure {
        Some(failure) => tracing::warn!(
            backend,
            check = check.kind.name(),
            cause = %failure,
            in_a_row = check.fall,
            "backend is down: it gets no new connections until its health checks succeed again"
        ),
        None => tracing::info!(
            backend,
            check = check.kind.name(),
            in_a_row = check.rise,
            "backend is up again: its health checks succeed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::route::{Endpoint, HostOptions, Member, Registry, Route, RouteOptions};

    /// A route whose members have the health check of these options.
    fn route(registry: &mut Registry, members: &[String], options: &[&str]) -> Arc<Route> {
        let endpoints: Vec<Endpoint> = members
            .iter()
            .map(|member| registry.endpoint(Member::parse(member).unwrap()))
            .collect();
        let mut host = HostOptions::default();
        options.iter().for_each(|option| host.set(option).unwrap());
        registry.route_with(endpoints, Some(RouteOptions { host, acme: None }))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_name_is_good_when_any_of_its_addresses_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut registry = Registry::default();
        let route = route(&mut registry, &[format!("app.test:{port}")], &["check=tcp"]);
        let (backend, state) = (&route.backends()[0], &route.health_checks()[0]);
        let slots = Slots::new();
        let answer = || {
            let answer = runtime().block_on(check_once(backend, state, &slots));
            answer.map(|answer| answer.result)
        };
        assert_eq!(answer(), None, "without an address nothing is learnt");
        let addresses = ["127.0.0.2", "127.0.0.1", "127.0.0.3"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        backend.resolve_to(Arc::new(addresses.into()));
        assert_eq!(answer(), Some(Ok(())));
        drop(listener);
        assert_eq!(answer(), Some(Err(CheckFailure::Refused)));
    }

    /// Three bad answers take 300 ms. Behind 200 probes of half a second each they would take 5 s.
    #[test]
    fn many_backends_that_are_down_and_silent_do_not_delay_the_next_verdict() {
        const SOON: Duration = Duration::from_secs(2);
        let silent = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let members: Vec<String> = (1..=200).map(|n| format!("127.0.1.{n}:{port}")).collect();
        let mut registry = Registry::default();
        let options = [
            "check=tls",
            "check-interval=100ms",
            "check-timeout=500ms",
            "check-fall=1",
        ];
        let frozen = route(&mut registry, &members, &options);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let member = listener.local_addr().unwrap().to_string();
        let options = ["check=tcp", "check-interval=100ms"];
        let well = route(&mut registry, &[member], &options);
        let mut prober = Prober::new(Arc::default());
        prober.add(registry.take_new_probe_targets());
        let within = |patience: Duration, is_so: &dyn Fn() -> bool| {
            let deadline = Instant::now() + patience;
            while !is_so() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            is_so()
        };
        let are_down = || frozen.health_checks().iter().all(|check| !check.is_up());
        assert!(within(Duration::from_secs(30), &are_down));
        assert!(well.health_checks()[0].is_up());
        drop(listener);
        assert!(within(SOON, &|| !well.health_checks()[0].is_up()));
    }
}
