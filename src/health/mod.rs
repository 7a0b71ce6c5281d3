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

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::route::{Address, CheckState, Moment};
use answer::Cause;
use probe::Question;
use verdict::Verdict;

const THREAD_NAME: &str = "health";
/// Questions under way at once, each with a descriptor; more wait for their turn.
const QUESTIONS_MAX: usize = 64;
/// Of a DNS name so many addresses are asked: one good answer is enough, and a name with hundreds is a
/// balancer's.
const ADDRESSES_MAX: usize = 8;
/// Intervals are longer or shorter by up to this part, at random, so that checks that began in step
/// (of one proxy or of many) do not stay in step.
const JITTER: f64 = 0.1;

type News = Vec<Weak<CheckState>>;

/// Answers since the start.
#[derive(Debug, Default)]
pub struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Tally {
    pub fn good(&self) -> u64 {
        self.good.load(Relaxed)
    }

    pub fn bad(&self) -> u64 {
        self.bad.load(Relaxed)
    }
}

/// Hands checks to the thread. Dropping it ends the thread.
pub struct Prober {
    news: Option<UnboundedSender<News>>,
    tally: Arc<Tally>,
}

impl Prober {
    /// Nothing runs yet.
    pub fn new(tally: Arc<Tally>) -> Prober {
        Prober { news: None, tally }
    }

    /// Asks about these from now on, until each is held by nobody else.
    pub fn look_after(&mut self, checks: News) {
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

async fn run(mut news: UnboundedReceiver<News>, tally: Arc<Tally>) {
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    while let Some(checks) = news.recv().await {
        for check in checks {
            tokio::spawn(look_after(check, Arc::clone(&room), Arc::clone(&tally)));
        }
    }
}

/// One check, until no route has it.
async fn look_after(check: Weak<CheckState>, room: Arc<Semaphore>, tally: Arc<Tally>) {
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
async fn ask(state: &CheckState, room: &Arc<Semaphore>) -> Option<Heard> {
    let protocol = probe::protocol(state);
    let count = state.backend.address_count().min(ADDRESSES_MAX);
    let mut addresses: Vec<Address> = (0..count)
        .filter_map(|n| state.backend.address(protocol, n))
        .collect();
    let question = Question::of(state);
    let first = addresses.pop()?;
    if addresses.is_empty() {
        return hear(&question, &first, room).await;
    }
    let question = Arc::new(question);
    let mut answers = JoinSet::new();
    for address in addresses.into_iter().chain([first]) {
        let (question, room) = (Arc::clone(&question), Arc::clone(room));
        answers.spawn(async move { hear(&question, &address, &room).await });
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

/// What one address answered, and how long that took once there was room to ask.
struct Heard {
    answer: Result<(), Cause>,
    took: Duration,
}

/// Asks one address when there is room; `None` when the answer says something about this machine and
/// not about the backend.
async fn hear(question: &Question, address: &Address, room: &Semaphore) -> Option<Heard> {
    let _seat = room.acquire().await.ok()?;
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
