//! One client: a connection (or one after the other) that asks and takes the answers.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::buffers::{HeadEnd, Moved, read, write};
use super::bulk::{Stock, discard};
use super::plan::{Act, BODY_BYTES, Group, PIECE_BYTES, RECEIVE_BUFFER_BYTES, REPLY_BYTES};

/// What a client wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected.
    Closed,
    /// Sends the opening.
    Open,
    /// Sends a request.
    Ask,
    /// Takes an answer.
    Await,
    /// Answered, and nothing to ask (yet).
    Rest,
    /// Receives without end.
    Receive,
    /// Sends without end.
    Send,
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// Waits for an event or for the next arrival.
    Waits,
    /// Has had its share of this turn and wants another.
    Again,
    /// Answered; the latency counts from this moment.
    Answered {
        since: Instant,
    },
    Failed(io::Error),
}

/// A client and its place in the loop.
#[derive(Debug)]
pub struct Client {
    pub group: usize,
    /// It stands in the queue of those that want another turn.
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

    /// Closes the connection; everything received was read, so the kernel sends a FIN.
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
        let Some(stream) = &mut self.stream else {
            return Step::Waits;
        };
        loop {
            match self.phase {
                Phase::Closed | Phase::Rest => return Step::Waits,
                Phase::Open | Phase::Ask => {
                    let bytes = match self.phase {
                        Phase::Open => &group.opening,
                        _ => &group.request,
                    };
                    match write(stream, &bytes[self.moved..]) {
                        Moved::Bytes(length) => self.moved += length,
                        Moved::Failed(error) => return Step::Failed(error),
                        Moved::Blocked | Moved::Finished => return Step::Waits,
                    }
                    if self.moved < bytes.len() {
                        continue;
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
                        return Step::Waits;
                    }
                    self.opened = true;
                    return Step::Again;
                }
                Phase::Await => {
                    let length = match read(stream, scratch) {
                        Moved::Bytes(length) => length,
                        Moved::Blocked => return Step::Waits,
                        Moved::Finished => {
                            return Step::Failed(io::ErrorKind::UnexpectedEof.into());
                        }
                        Moved::Failed(error) => return Step::Failed(error),
                    };
                    let mut rest = &scratch[..length];
                    if self.body_left.is_none() {
                        let Some(end) = self.head.advance(rest) else {
                            continue;
                        };
                        rest = &rest[end..];
                        self.body_left = Some(BODY_BYTES);
                    }
                    let left = self.body_left.unwrap_or(0).saturating_sub(rest.len());
                    self.body_left = Some(left);
                    if left == 0 {
                        self.phase = Phase::Rest;
                        self.opened = true;
                        return Step::Answered { since: self.since };
                    }
                }
                Phase::Receive => {
                    return match discard(stream, scratch) {
                        Moved::Bytes(length) => {
                            *received += length as u64;
                            Step::Again
                        }
                        Moved::Blocked => Step::Waits,
                        Moved::Finished => Step::Failed(io::ErrorKind::UnexpectedEof.into()),
                        Moved::Failed(error) => Step::Failed(error),
                    };
                }
                Phase::Send => {
                    return match stock.send(stream, PIECE_BYTES) {
                        Moved::Bytes(_) => Step::Again,
                        Moved::Blocked | Moved::Finished => Step::Waits,
                        Moved::Failed(error) => Step::Failed(error),
                    };
                }
            }
        }
    }
}
