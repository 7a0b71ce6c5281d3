//! The state of the load, and one turn of its loop: clients and served connections go on, and requests and
//! answers that are due begin.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};

use super::bulk::Stock;
use super::client::{Client, Step as ClientStep};
use super::origin::{Answers, Served, SlowBackend, Step as ServedStep};
use super::plan::{Act, Group, Service};

/// Connections that are opened at the same time while a window's connections are set up.
const OPENING_MAX: usize = 128;
/// A run with more failures is given up, since it no longer measures what it should.
pub const FAILURES_MAX: u64 = 1_000;
/// Latencies are kept from 1 µs to 60 s with three digits.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Tokens of listeners begin here. Clients have even tokens from 0, served connections odd ones.
pub const LISTENER_TOKENS: usize = usize::MAX - 64;

/// What one group of clients did since the last [`super::LoadSide::reset`].
#[derive(Debug)]
pub struct Tally {
    pub answers: u64,
    /// Bytes of bulk that were received.
    pub bytes: u64,
    /// In microseconds.
    pub latency: Histogram<u64>,
    pub failures: u64,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            answers: 0,
            bytes: 0,
            latency: Tally::no_latency(),
            failures: 0,
        }
    }

    /// An empty histogram; all have the same bounds.
    pub fn no_latency() -> Histogram<u64> {
        Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("these bounds are valid")
    }
}

/// A group of clients at work: its plan, the address that it connects to, and its figures.
pub struct Crew {
    pub group: Group,
    pub target: SocketAddr,
    pub tally: Tally,
    /// The first client of this group, and how many have been started.
    pub first: usize,
    pub begun: usize,
    pub opened: usize,
    /// Open loop: when the next request arrives, arrivals not yet taken up, clients that rest.
    pub next_arrival: Option<Instant>,
    pub arrivals: VecDeque<Instant>,
    pub resting: Vec<usize>,
}

/// Everything the loop works on.
pub struct Work {
    pub registry: Registry,
    pub listeners: Vec<(Service, TcpListener, SocketAddr)>,
    pub served: Vec<Option<Served>>,
    pub free: Vec<usize>,
    pub slow: [SlowBackend; 3],
    pub answers: Answers,
    pub crews: Vec<Crew>,
    pub clients: Vec<Client>,
    /// Tokens that go on in the next turn without an event.
    pub again: VecDeque<Token>,
    pub scratch: Vec<u8>,
    /// What bulk is sent from.
    pub stock: Stock,
    /// Bytes per second that each download stream is held at.
    pub bulk_rate: Option<f64>,
    pub uploaded: u64,
    pub first_failure: Option<io::Error>,
    /// Time spent inside the poll since the last reset.
    pub polling: Duration,
}

impl Work {
    pub fn is_open(&self) -> bool {
        self.crews
            .iter()
            .all(|crew| crew.opened >= crew.group.connections)
    }

    pub fn is_answered(&self) -> bool {
        let mut limited = self
            .crews
            .iter()
            .filter_map(|crew| Some((crew.group.answers_max?, crew.tally.answers)))
            .peekable();
        limited.peek().is_some() && limited.all(|(max, answers)| answers >= max)
    }

    /// How long the poll may block.
    pub fn wait(&self, now: Instant) -> Duration {
        // An open loop cannot sleep until its next arrival: a poll's resolution is a millisecond.
        let open_loop = self.crews.iter().any(|crew| crew.next_arrival.is_some());
        if open_loop || !self.again.is_empty() {
            return Duration::ZERO;
        }
        let due = self
            .slow
            .iter()
            .filter_map(|backend| backend.next(now))
            .min();
        due.unwrap_or(Duration::MAX)
    }

    pub fn begin_clients(&mut self) -> io::Result<()> {
        for crew in 0..self.crews.len() {
            for _ in 0..OPENING_MAX {
                self.begin_next(crew)?;
            }
        }
        Ok(())
    }

    fn begin_next(&mut self, crew: usize) -> io::Result<()> {
        let entry = &mut self.crews[crew];
        if entry.begun < entry.group.connections {
            let index = entry.first + entry.begun;
            entry.begun += 1;
            self.connect(index)?;
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let crew = &self.crews[client.group];
        client.connect(
            &crew.group,
            crew.target,
            Instant::now(),
            &self.registry,
            Token(2 * index),
        )
    }

    pub fn touch(&mut self, token: Token) {
        if token.0 >= LISTENER_TOKENS {
            self.accept(token.0 - LISTENER_TOKENS);
        } else if token.0.is_multiple_of(2) {
            self.advance_client(token.0 / 2);
        } else {
            self.advance_served(token.0 / 2);
        }
    }

    pub fn unqueue(&mut self, token: Token) {
        if token.0.is_multiple_of(2) {
            self.clients[token.0 / 2].queued = false;
        } else if let Some(served) = &mut self.served[token.0 / 2] {
            served.queued = false;
        }
    }

    fn advance_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let crew = &mut self.crews[client.group];
        let was_open = client.opened;
        let step = client.advance(
            &crew.group,
            &mut self.scratch,
            &mut self.stock,
            &mut crew.tally.bytes,
        );
        let opened_now = client.opened && !was_open;
        if opened_now {
            crew.opened += 1;
        }
        let crew_index = client.group;
        match step {
            ClientStep::Waits => {}
            ClientStep::Again => {
                if !client.queued {
                    client.queued = true;
                    self.again.push_back(Token(2 * index));
                }
            }
            ClientStep::Answered { since } => self.answered(index, since),
            ClientStep::Failed(error) => self.failed(index, error),
        }
        if opened_now && let Err(error) = self.begin_next(crew_index) {
            self.failed(index, error);
        }
    }

    fn answered(&mut self, index: usize, since: Instant) {
        let now = Instant::now();
        let client = &mut self.clients[index];
        let crew = &mut self.crews[client.group];
        crew.tally.answers += 1;
        crew.tally
            .latency
            .saturating_record((now - since).as_micros() as u64);
        let enough = crew.group.answers_max.is_some_and(|max| {
            // The requests under way will be answered, too.
            crew.tally.answers + crew.group.connections as u64 > max
        });
        match crew.group.act {
            Act::Connect => {
                client.close();
                if !enough && let Err(error) = self.connect(index) {
                    self.failed(index, error);
                }
            }
            Act::Exchange if crew.group.rate.is_none() => {
                client.ask(now);
                self.advance_client(index);
            }
            Act::Exchange => match crew.arrivals.pop_front() {
                Some(arrival) => {
                    client.ask(arrival);
                    self.advance_client(index);
                }
                None => crew.resting.push(index),
            },
            Act::Receive | Act::Send | Act::Hold => {}
        }
    }

    fn failed(&mut self, index: usize, error: io::Error) {
        let client = &mut self.clients[index];
        let crew = &mut self.crews[client.group];
        crew.tally.failures += 1;
        self.first_failure.get_or_insert(error);
        client.close();
        if crew.tally.failures <= FAILURES_MAX && self.connect(index).is_err() {
            self.crews[self.clients[index].group].tally.failures += 1;
        }
    }

    /// Open loop: hands every arrival that is due to a resting client, or lets it wait for one.
    pub fn arrive(&mut self, now: Instant) {
        for crew in 0..self.crews.len() {
            let Some(rate) = self.crews[crew].group.rate else {
                continue;
            };
            let gap = Duration::from_secs_f64(1.0 / rate);
            while let Some(arrival) = self.crews[crew].next_arrival.filter(|at| *at <= now) {
                self.crews[crew].next_arrival = Some(arrival + gap);
                match self.crews[crew].resting.pop() {
                    Some(index) => {
                        self.clients[index].ask(arrival);
                        self.advance_client(index);
                    }
                    None => self.crews[crew].arrivals.push_back(arrival),
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let (service, listening, _) = &self.listeners[listener];
            let service = *service;
            let mut stream = match listening.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.first_failure.get_or_insert(error);
                    return;
                }
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.served.push(None);
                self.served.len() - 1
            });
            let token = Token(2 * index + 1);
            let readiness = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.registry.register(&mut stream, token, readiness) {
                self.first_failure.get_or_insert(error);
                return;
            }
            self.served[index] = Some(Served::new(stream, service));
        }
    }

    fn advance_served(&mut self, index: usize) {
        let Some(Some(served)) = self.served.get_mut(index) else {
            return;
        };
        match served.advance(
            &self.answers,
            &mut self.scratch,
            &mut self.stock,
            &mut self.uploaded,
            self.bulk_rate,
        ) {
            ServedStep::Waits => {}
            ServedStep::Again => {
                if !served.queued {
                    served.queued = true;
                    self.again.push_back(Token(2 * index + 1));
                }
            }
            ServedStep::Queue(backend) => self.slow[backend].queue(index, Instant::now()),
            ServedStep::Ended => {
                self.served[index] = None;
                self.free.push(index);
            }
        }
    }

    pub fn answer_slow(&mut self, now: Instant) {
        for backend in 0..self.slow.len() {
            while let Some(index) = self.slow[backend].due(now) {
                if let Some(mut served) = self.served[index].take() {
                    served.answer(&self.answers);
                    self.free.push(index);
                }
            }
        }
    }
}
