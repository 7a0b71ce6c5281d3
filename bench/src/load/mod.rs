//! The load side: clients and origin in one loop on one thread, so that on a machine with two
//! processors nothing on the load's processor waits for a scheduler. Everything it needs is
//! allocated before a window begins.

mod buffers;
mod client;
mod origin;
mod plan;

pub use plan::{Act, Group, REQUEST_BYTES, Service};

use client::{Client, Step as ClientStep};
use hdrhistogram::Histogram;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Registry, Token};
use origin::{Answers, Served, SlowBackend, Step as ServedStep};
use plan::{PIECE_BYTES, RECEIVE_BUFFER_BYTES, REPLY_BYTES};
use socket2::SockRef;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Connections that are opened at the same time while a window's connections are set up.
const OPENING_MAX: usize = 128;
/// A run with more failures than this is given up: it no longer measures what it should.
const FAILURES_MAX: u64 = 1_000;
/// Latencies are kept from 1 µs to 60 s with three digits.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Listener tokens; clients have even ones from 0, served connections odd ones.
const LISTENER_TOKENS: usize = usize::MAX - 64;

/// What one group did since the last [`LoadSide::reset`].
#[derive(Debug)]
pub struct Tally {
    pub answers: u64,
    /// Bulk that arrived at its end, in bytes.
    pub bytes: u64,
    /// In microseconds.
    pub latency: Histogram<u64>,
    pub failures: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            answers: 0,
            bytes: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
                .expect("these bounds are valid"),
            failures: 0,
        }
    }
}

/// A group at work: its plan, where it connects and what it did.
struct Crew {
    group: Group,
    target: SocketAddr,
    tally: Tally,
    /// Clients of this group: from, and how many were begun.
    first: usize,
    begun: usize,
    opened: usize,
    /// Open loop: when the next request arrives, arrivals not yet taken up, clients that rest.
    next_arrival: Option<Instant>,
    arrivals: VecDeque<Instant>,
    resting: Vec<usize>,
}

/// Clients and origin, see the module.
pub struct LoadSide {
    poll: Poll,
    events: Events,
    work: Work,
}

struct Work {
    registry: Registry,
    listeners: Vec<(Service, TcpListener, SocketAddr)>,
    served: Vec<Option<Served>>,
    free: Vec<usize>,
    slow: [SlowBackend; 3],
    answers: Answers,
    crews: Vec<Crew>,
    clients: Vec<Client>,
    /// Tokens that want another turn without an event.
    again: VecDeque<Token>,
    scratch: Vec<u8>,
    /// Bytes per second that each download stream is held at.
    bulk_rate: Option<f64>,
    uploaded: u64,
    first_failure: Option<io::Error>,
    /// Time spent inside the poll since the last reset.
    polling: Duration,
}

impl LoadSide {
    /// Opens the origin's ports, one per service, for as many connections as will be served.
    pub fn new(connections: usize) -> io::Result<LoadSide> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let mut listeners = Vec::new();
        for (index, service) in Service::ALL.into_iter().enumerate() {
            let mut listener = listen(service)?;
            let address = listener.local_addr()?;
            registry.register(
                &mut listener,
                Token(LISTENER_TOKENS + index),
                Interest::READABLE,
            )?;
            listeners.push((service, listener, address));
        }
        let room = 2 * connections + 1_024;
        Ok(LoadSide {
            poll,
            events: Events::with_capacity(1_024),
            work: Work {
                registry,
                listeners,
                served: Vec::with_capacity(room),
                free: Vec::with_capacity(room),
                slow: Default::default(),
                answers: Answers::new(),
                crews: Vec::new(),
                clients: Vec::with_capacity(connections),
                again: VecDeque::with_capacity(2 * room),
                scratch: vec![0x55; PIECE_BYTES],
                bulk_rate: None,
                uploaded: 0,
                first_failure: None,
                polling: Duration::ZERO,
            },
        })
    }

    /// Where a service listens.
    pub fn address(&self, service: Service) -> SocketAddr {
        let found = self.work.listeners.iter().find(|(one, ..)| *one == service);
        found.expect("every service has a listener").2
    }

    /// Holds each download stream at `bytes_per_second`.
    pub fn hold_bulk(&mut self, bytes_per_second: Option<f64>) {
        self.work.bulk_rate = bytes_per_second;
    }

    /// Adds clients that connect to `target` once the loop runs.
    pub fn add(&mut self, group: Group, target: SocketAddr) {
        let first = self.work.clients.len();
        let index = self.work.crews.len();
        for _ in 0..group.connections {
            self.work.clients.push(Client::new(index));
        }
        self.work.crews.push(Crew {
            first,
            begun: 0,
            opened: 0,
            next_arrival: None,
            arrivals: VecDeque::with_capacity(100_000),
            resting: Vec::with_capacity(group.connections),
            tally: Tally::new(),
            group,
            target,
        });
    }

    /// Begins the connections, as many at a time as may open together.
    pub fn begin(&mut self) -> io::Result<()> {
        self.work.begin_clients()
    }

    /// Runs until every connection was opened and answered once.
    ///
    /// # Errors
    /// When that takes longer than `patience` or connections fail.
    pub fn open(&mut self, patience: Duration) -> io::Result<()> {
        let end = Instant::now() + patience;
        self.begin()?;
        while !self.work.is_open() {
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "after {patience:?} not every connection was open ({:?} of {:?}; first failure: {:?})",
                    self.work
                        .crews
                        .iter()
                        .map(|crew| crew.opened)
                        .collect::<Vec<_>>(),
                    self.work
                        .crews
                        .iter()
                        .map(|crew| crew.group.connections)
                        .collect::<Vec<_>>(),
                    self.work.first_failure,
                )));
            }
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Runs for `window`, or until every group with a number of answers to reach has reached it.
    pub fn run(&mut self, window: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + window;
        for crew in &mut self.work.crews {
            crew.next_arrival = crew.group.rate.map(|_| begin);
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.work.is_answered() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Forgets what was counted so far.
    pub fn reset(&mut self) {
        for crew in &mut self.work.crews {
            crew.tally.answers = 0;
            crew.tally.bytes = 0;
            crew.tally.latency.reset();
            crew.tally.failures = 0;
        }
        self.work.uploaded = 0;
        self.work.polling = Duration::ZERO;
    }

    /// What the groups did, in the order in which they were added.
    pub fn tallies(&mut self) -> Vec<&Tally> {
        let uploaded = self.work.uploaded;
        for crew in &mut self.work.crews {
            if crew.group.act == Act::Send {
                crew.tally.bytes = uploaded;
            }
        }
        self.work.crews.iter().map(|crew| &crew.tally).collect()
    }

    /// Time spent waiting inside the poll since the last reset.
    pub fn polling(&self) -> Duration {
        self.work.polling
    }

    pub fn first_failure(&self) -> Option<String> {
        self.work.first_failure.as_ref().map(io::Error::to_string)
    }

    /// One poll and everything that came of it.
    fn turn(&mut self, wait_max: Duration) -> io::Result<()> {
        let work = &mut self.work;
        let before = Instant::now();
        let wait = work.wait(before).min(wait_max);
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        work.polling += now - before;
        for event in &self.events {
            work.touch(event.token());
        }
        for _ in 0..work.again.len() {
            if let Some(token) = work.again.pop_front() {
                work.unqueue(token);
                work.touch(token);
            }
        }
        work.answer_slow(now);
        work.arrive(now);
        if work
            .crews
            .iter()
            .any(|crew| crew.tally.failures > FAILURES_MAX)
        {
            return Err(io::Error::other(format!(
                "more than {FAILURES_MAX} connections failed; the first: {:?}",
                work.first_failure
            )));
        }
        Ok(())
    }
}

impl Work {
    fn is_open(&self) -> bool {
        self.crews
            .iter()
            .all(|crew| crew.opened >= crew.group.connections)
    }

    fn is_answered(&self) -> bool {
        let mut limited = self
            .crews
            .iter()
            .filter_map(|crew| Some((crew.group.answers_max?, crew.tally.answers)))
            .peekable();
        limited.peek().is_some() && limited.all(|(max, answers)| answers >= max)
    }

    /// How long the poll may block.
    fn wait(&self, now: Instant) -> Duration {
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

    fn begin_clients(&mut self) -> io::Result<()> {
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

    fn touch(&mut self, token: Token) {
        if token.0 >= LISTENER_TOKENS {
            self.accept(token.0 - LISTENER_TOKENS);
        } else if token.0.is_multiple_of(2) {
            self.advance_client(token.0 / 2);
        } else {
            self.advance_served(token.0 / 2);
        }
    }

    fn unqueue(&mut self, token: Token) {
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
        let step = client.advance(&crew.group, &mut self.scratch, &mut crew.tally.bytes);
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
            // Those under way will be answered too.
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
    fn arrive(&mut self, now: Instant) {
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

    fn answer_slow(&mut self, now: Instant) {
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

/// A port of the origin. Accepted sockets inherit TCP_NODELAY and the bounded receive buffer.
fn listen(service: Service) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    if service == Service::Up {
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.listen(4_096)?;
    Ok(TcpListener::from_std(socket.into()))
}

const _: () = assert!(REPLY_BYTES <= PIECE_BYTES);
