//! One client: a connection, or one after the other, that sends requests and reads the answers.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::buffers::{HeadEnd, Moved, read, write};
use super::bulk::{Stock, discard};
use super::plan::{Act, BODY_BYTES, Group, PIECE_BYTES, RECEIVE_BUFFER_BYTES, REPLY_BYTES};

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected.
    Closed,
    /// Sends the opening.
    Open,
    /// Sends a request.
    Ask,
    /// Reads an answer.
    Await,
    /// Has its answer and no further request yet.
    Rest,
    /// Receives without end.
    Receive,
    /// Sends without end.
    Send,
}

/// The result of a step.
#[derive(Debug)]
pub enum Step {
    /// Waits for an event or for the next arrival.
    Waits,
    /// Has used up its share of this turn and goes on in the next.
    Again,
    /// Has its answer; the latency counts from this moment.
    Answered {
        since: Instant,
    },
    Failed(io::Error),
}

/// A client and its place in the loop.
#[derive(Debug)]
pub struct Client {
    pub group: usize,
    /// It is in the queue of those that go on in the next turn.
    pub queued: bool,
    /// The first answer of this client has come.
    pub opened: bool,
    stream: Option<TcpStream>,
    phase: Phase,
    moved: usize,
    /// Bytes of the body still to come; `None` while the head of an HTTP answer is read.
    body_left: Option<usize>,
    head: HeadEnd,
    since: Instant,
}

impl Client {
    pub fn new(group: usize) -> Client {
        Client {
            group,
            queued: false,
            opened: false,
            stream: None,
            phase: Phase::Closed,
            moved: 0,
            body_left: None,
            head: HeadEnd::default(),
            since: Instant::now(),
        }
    }

    /// Begins a connection to `target`; the latency of its first answer counts from `since`.
    pub fn connect(
        &mut self,
        group: &Group,
        target: SocketAddr,
        since: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        self.stream = None;
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        if group.act == Act::Receive {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        self.phase = Phase::Open;
        self.moved = 0;
        self.since = since;
        Ok(())
    }

    /// Lets a resting client ask again; the latency counts from `since`.
    pub fn ask(&mut self, since: Instant) {
        self.phase = Phase::Ask;
        self.moved = 0;
        self.since = since;
    }

    /// Closes the connection. Everything received has been read, so the kernel sends a FIN and no RST.
    pub fn close(&mut self) {
        self.stream = None;
        self.phase = Phase::Closed;
    }

    /// Goes on as far as the socket allows, at most one piece of bulk. `received` counts bytes.
    pub fn advance(
        &mut self,
        group: &Group,
        scratch: &mut [u8],
        stock: &mut Stock,
        received: &mut u64,
    ) -> Step {
        loop {
            let Some(stream) = &mut self.stream else {
                return Step::Waits;
            };
            let step = match self.phase {
                Phase::Closed | Phase::Rest => Some(Step::Waits),
                Phase::Open | Phase::Ask => self.write_request(group),
                Phase::Await => self.read_answer(scratch),
                Phase::Receive => Some(match discard(stream, scratch) {
                    Moved::Bytes(length) => {
                        *received += length as u64;
                        Step::Again
                    }
                    Moved::Blocked => Step::Waits,
                    Moved::Finished => Step::Failed(io::ErrorKind::UnexpectedEof.into()),
                    Moved::Failed(error) => Step::Failed(error),
                }),
                Phase::Send => Some(match stock.send(stream, PIECE_BYTES) {
                    Moved::Bytes(_) => Step::Again,
                    Moved::Blocked | Moved::Finished => Step::Waits,
                    Moved::Failed(error) => Step::Failed(error),
                }),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// `None`: there is more to write, and room for it.
    fn write_request(&mut self, group: &Group) -> Option<Step> {
        let bytes = match self.phase {
            Phase::Open => &group.opening,
            _ => &group.request,
        };
        match write(self.stream.as_mut()?, &bytes[self.moved..]) {
            Moved::Bytes(length) => self.moved += length,
            Moved::Failed(error) => return Some(Step::Failed(error)),
            Moved::Blocked | Moved::Finished => return Some(Step::Waits),
        }
        if self.moved < bytes.len() {
            return None;
        }
        self.moved = 0;
        self.body_left = (!group.http).then_some(REPLY_BYTES);
        self.phase = match group.act {
            Act::Receive => Phase::Receive,
            Act::Send => Phase::Send,
            _ => Phase::Await,
        };
        // The answer cannot be here yet; its event will come.
        if self.phase == Phase::Await {
            return Some(Step::Waits);
        }
        self.opened = true;
        Some(Step::Again)
    }

    /// `None`: there may be more of it to read.
    fn read_answer(&mut self, scratch: &mut [u8]) -> Option<Step> {
        let length = match read(self.stream.as_mut()?, scratch) {
            Moved::Bytes(length) => length,
            Moved::Blocked => return Some(Step::Waits),
            Moved::Finished => return Some(Step::Failed(io::ErrorKind::UnexpectedEof.into())),
            Moved::Failed(error) => return Some(Step::Failed(error)),
        };
        let mut rest = &scratch[..length];
        if self.body_left.is_none() {
            let end = self.head.advance(rest)?;
            rest = &rest[end..];
            self.body_left = Some(BODY_BYTES);
        }
        let left = self.body_left.unwrap_or(0).saturating_sub(rest.len());
        self.body_left = Some(left);
        (left == 0).then(|| {
            self.phase = Phase::Rest;
            self.opened = true;
            Step::Answered { since: self.since }
        })
    }
}
