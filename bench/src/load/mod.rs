//! The load side: clients and origin in one loop on one thread. On a machine with two processors the load
//! has one of them, and no thread on it has to wait for another. All memory is allocated before a window
//! begins.

mod buffers;
mod bulk;
mod client;
mod origin;
mod plan;
mod work;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bulk::Stock;
use client::Client;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use origin::Answers;
pub use plan::{Act, Group, REQUEST_BYTES, Service};
use plan::{PIECE_BYTES, RECEIVE_BUFFER_BYTES, REPLY_BYTES};
use socket2::SockRef;
pub use work::Tally;
use work::{Crew, FAILURES_MAX, LISTENER_TOKENS, Work};

/// Clients and origin.
pub struct LoadSide {
    poll: Poll,
    events: Events,
    work: Work,
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
                stock: Stock::new()?,
                bulk_rate: None,
                uploaded: 0,
                first_failure: None,
                polling: Duration::ZERO,
            },
        })
    }

    /// The address of a service.
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

    /// Polls once and handles all events.
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
