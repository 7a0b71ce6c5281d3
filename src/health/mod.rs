//! The prober: asks every backend that has a check, once per interval for the whole process, and
//! turns its [`CheckState`] up or down, which every core sees with its next choice.
//!
//! It has a thread and a runtime of its own, because the redis-sync thread may be busy with a million
//! hosts while a backend dies. There is one task per check, which ends when no route has the check any
//! more; the thread starts with the first check and sleeps while there is none.

mod answer;
mod probe;
mod verdict;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use answer::Cause;
use probe::Question;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use verdict::Verdict;

use crate::route::{Address, CheckState, Moment};

const THREAD_NAME: &str = "health";
/// Questions under way at once, each with a descriptor; more wait for their turn. Those to backends
/// that are down are not among them.
const QUESTIONS_MAX: usize = 48;
/// The same for backends that are down: most keep silent until the timeout, and many of them must not
/// hold up what finds out the next.
const QUESTIONS_TO_DOWN_MAX: usize = 16;
/// Of a DNS name so many addresses are asked: one good answer is enough, and a name with hundreds is a
/// balancer's.
const ADDRESSES_MAX: usize = 8;
/// Intervals are longer or shorter by up to this part, at random, so that checks that began in step
/// (of one proxy or of many) do not stay in step.
const JITTER: f64 = 0.1;

type News = Vec<Weak<CheckState>>;

/// Answers since the start.
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
}

/// Hands checks to the thread. Dropping it ends the thread.
pub(crate) struct Prober {
    news: Option<UnboundedSender<News>>,
    tally: Arc<Tally>,
}

impl Prober {
    /// Nothing runs yet.
    pub(crate) fn new(tally: Arc<Tally>) -> Prober {
        Prober { news: None, tally }
    }

    /// Asks about these from now on, until each is held by nobody else.
    pub(crate) fn look_after(&mut self, checks: News) {
        if checks.is_empty() {
            return;
        }
        if self.news.is_none() {
            match start(Arc::clone(&self.tally)) {
                Ok(news) => self.news = Some(news),
                Err(error) => {
                    tracing::error!(%error, "the thread of the active checks does not start, so backends count as up; raise the limits of threads and open files and restart");
                    return;
                }
            }
        }
        let sent = self.news.as_ref().map(|news| news.send(checks));
        if sent.is_some_and(|sent| sent.is_err()) {
            tracing::error!(
                "the thread of the active checks has ended, so new checks do not run; please report it with the lines before"
            );
        }
    }
}

fn start(tally: Arc<Tally>) -> std::io::Result<UnboundedSender<News>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (news, receiver) = unbounded_channel();
    std::thread::Builder::new()
        .name(THREAD_NAME.into())
        .spawn(move || runtime.block_on(run(receiver, tally)))?;
    Ok(news)
}

/// The questions that may be under way.
#[derive(Clone)]
struct Room {
    to_up: Arc<Semaphore>,
    to_down: Arc<Semaphore>,
}

impl Room {
    fn new() -> Room {
        Room {
            to_up: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            to_down: Arc::new(Semaphore::new(QUESTIONS_TO_DOWN_MAX)),
        }
    }

    fn seats(&self, is_up: bool) -> &Arc<Semaphore> {
        if is_up { &self.to_up } else { &self.to_down }
    }
}

async fn run(mut news: UnboundedReceiver<News>, tally: Arc<Tally>) {
    let room = Room::new();
    while let Some(checks) = news.recv().await {
        for check in checks {
            tokio::spawn(look_after(check, room.clone(), Arc::clone(&tally)));
        }
    }
}

/// One check, until no route has it.
async fn look_after(check: Weak<CheckState>, room: Room, tally: Arc<Tally>) {
    let Some(interval) = check.upgrade().map(|state| state.check.interval) else {
        return;
    };
    let mut verdict = Verdict::new();
    // The first questions are spread over the interval, and all later ones with them.
    let mut due = tokio::time::Instant::now() + interval.mul_f64(fastrand::f64());
    loop {
        tokio::time::sleep_until(due).await;
        // Held only while it is asked about, or it would never end.
        let Some(state) = check.upgrade() else {
            return;
        };
        // On the heap, so that a check that waits costs little.
        if let Some(Heard { answer, took }) = Box::pin(ask(&state, &room)).await {
            let cause = answer.as_ref().err().map(|cause| cause.to_string().into());
            state.hear(took, cause);
            let count = if answer.is_ok() {
                &tally.good
            } else {
                &tally.bad
            };
            count.fetch_add(1, Relaxed);
            let (rise, fall) = (state.check.rise, state.check.fall);
            if let Some(is_up) = verdict.turned_by(answer.is_ok(), rise, fall) {
                state.set_up(is_up, Moment::of(Instant::now()));
                tell(&state, answer.err());
            }
        }
        // From when it was due, so that slow answers do not stretch the interval; a thread that was
        // held up does not catch up on what it missed.
        due = (due + jittered(interval)).max(tokio::time::Instant::now());
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Good when any address of the backend answers well; `None` when nothing was learnt about the backend:
/// it has no address yet, or this machine has no means to ask.
async fn ask(state: &CheckState, room: &Room) -> Option<Heard> {
    let seats = room.seats(state.is_up());
    let protocol = probe::protocol(state);
    let count = state.backend.address_count().min(ADDRESSES_MAX);
    let mut addresses: Vec<Address> = (0..count)
        .filter_map(|n| state.backend.address(protocol, n))
        .collect();
    let question = Question::of(state);
    let first = addresses.pop()?;
    if addresses.is_empty() {
        return hear(&question, &first, seats).await;
    }
    let question = Arc::new(question);
    let mut answers = JoinSet::new();
    for address in addresses.into_iter().chain([first]) {
        let (question, seats) = (Arc::clone(&question), Arc::clone(seats));
        answers.spawn(async move { hear(&question, &address, &seats).await });
    }
    let mut last = None;
    while let Some(answer) = answers.join_next().await {
        match answer {
            Ok(Some(heard)) if heard.answer.is_ok() => return Some(heard),
            Ok(Some(bad)) => last = Some(bad),
            Ok(None) | Err(_) => {}
        }
    }
    last
}

/// What one address answered, and how long that took once it had a seat.
struct Heard {
    answer: Result<(), Cause>,
    took: Duration,
}

/// Asks one address when there is a seat; `None` when the answer says something about this machine and
/// not about the backend.
async fn hear(question: &Question, address: &Address, seats: &Semaphore) -> Option<Heard> {
    let _seat = seats.acquire().await.ok()?;
    let began = Instant::now();
    match question.ask(address).await {
        Err(Cause::OwnFault(error)) => {
            tracing::debug!(error, "a check could not be made");
            None
        }
        answer => Some(Heard {
            answer,
            took: began.elapsed(),
        }),
    }
}

/// One line per change of a verdict, with how many answers in a row it took.
fn tell(state: &CheckState, cause: Option<Cause>) {
    let (backend, check) = (state.backend.text(), state.check.kind.name());
    match cause {
        Some(cause) => tracing::warn!(
            backend,
            check,
            %cause,
            in_a_row = state.check.fall,
            "backend is down: it gets no new connections until its checks succeed again"
        ),
        None => tracing::info!(
            backend,
            check,
            in_a_row = state.check.rise,
            "backend is up again: its checks succeed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::route::{HostOptions, Registry, Route, RouteOptions, Seat};

    /// A route whose members are all asked so.
    fn route(registry: &mut Registry, members: &[String], options: &[&str]) -> Arc<Route> {
        let seats: Vec<Seat> = members
            .iter()
            .map(|member| registry.seat(member).unwrap())
            .collect();
        let mut said = HostOptions::default();
        options.iter().for_each(|option| said.read(option).unwrap());
        registry.route_with(seats, Some(RouteOptions { said, acme: None }))
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
        let mut registry = Registry::new();
        let route = route(&mut registry, &[format!("app.test:{port}")], &["check=tcp"]);
        let state = &route.checks()[0];
        let room = Room::new();
        let answer = || {
            let heard = runtime().block_on(ask(state, &room));
            heard.map(|heard| heard.answer)
        };
        assert_eq!(answer(), None, "without an address nothing is learnt");
        let addresses = ["127.0.0.2", "127.0.0.1", "127.0.0.3"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        state.backend.resolve_to(Arc::new(addresses.into()));
        assert_eq!(answer(), Some(Ok(())));
        drop(listener);
        assert_eq!(answer(), Some(Err(Cause::Refused)));
    }

    /// Three bad answers make a verdict of 300 ms. If they stood in line behind 200 questions that
    /// take half a second each, it would be one of 5 s.
    #[test]
    fn many_that_are_down_and_silent_do_not_hold_up_the_next_verdict() {
        const SOON: Duration = Duration::from_secs(2);
        let silent = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let members: Vec<String> = (1..=200).map(|n| format!("127.0.1.{n}:{port}")).collect();
        let mut registry = Registry::new();
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
        prober.look_after(registry.take_new_checks());
        let within = |patience: Duration, is_so: &dyn Fn() -> bool| {
            let deadline = Instant::now() + patience;
            while !is_so() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            is_so()
        };
        let are_down = || frozen.checks().iter().all(|check| !check.is_up());
        assert!(within(Duration::from_secs(30), &are_down));
        assert!(well.checks()[0].is_up());
        drop(listener);
        assert!(within(SOON, &|| !well.checks()[0].is_up()));
    }
}
