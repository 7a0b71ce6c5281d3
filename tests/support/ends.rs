//! Client and backend of a connection through the proxy. The connection is brought to a stage of its life;
//! there one side ends or stops in one of several ways (a fault), and the other side is watched.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::client::{self, Hello};
use super::port;

/// The side that ends or stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}

/// How it ends or stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fin,
    Reset,
    Silence,
    StopsReading,
    FinAndStopsReading,
    FinThenReset,
    UrgentByte,
    /// From now on all packets from it and to it are lost.
    Vanishes,
}

/// The stage at which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    BeforeHead,
    WithinHead,
    Connecting,
    HeadSent,
    CopiedBody,
    SplicedBody,
    BetweenRequests,
    InTunnel,
    /// The client has been refused, and the body that its head announced has not come.
    Farewell,
    /// Within a copied body or a tunnel, after the proxy was told to stop.
    Drain,
}

/// The kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tls,
    Http11,
    Http10,
    Tunnel,
}

impl Side {
    pub const ALL: [Side; 2] = [Side::Client, Side::Backend];
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::Fin,
        Fault::Reset,
        Fault::Silence,
        Fault::StopsReading,
        Fault::FinAndStopsReading,
        Fault::FinThenReset,
        Fault::UrgentByte,
        Fault::Vanishes,
    ];

    /// The other side sends more than all buffers on the way hold.
    pub fn is_flooded(self) -> bool {
        matches!(self, Fault::StopsReading | Fault::FinAndStopsReading)
    }
}

impl Stage {
    pub const ALL: [Stage; 10] = [
        Stage::BeforeHead,
        Stage::WithinHead,
        Stage::Connecting,
        Stage::HeadSent,
        Stage::CopiedBody,
        Stage::SplicedBody,
        Stage::BetweenRequests,
        Stage::InTunnel,
        Stage::Farewell,
        Stage::Drain,
    ];

    /// Whether the deadline of this stage runs from accept. Such stages are entered after all others.
    pub fn is_entered_last(self) -> bool {
        matches!(
            self,
            Stage::BeforeHead | Stage::WithinHead | Stage::Connecting | Stage::Farewell
        )
    }
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Tls, Kind::Http11, Kind::Http10, Kind::Tunnel];
}

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub side: Side,
    pub fault: Fault,
    pub stage: Stage,
    pub kind: Kind,
}

/// Clients and backends have addresses of their own, so that the packets of one of them can be dropped.
pub const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
pub const BACKENDS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// More than any cell sends of its body.
const BODY_BYTES: u64 = 1 << 34;
/// After so many bytes in one piece the proxy splices.
const BULK_BYTES: usize = 4 << 20;
/// More than all buffers on the way hold, and little enough to be sent soon if the other side reads.
const FLOOD_BYTES: usize = 48 << 20;
/// If nothing can be sent for so long, all buffers on the way are full.
const FULL_AFTER: Duration = Duration::from_millis(150);
/// Between a FIN and the reset behind it: long enough for the proxy to notice the FIN by itself.
const FIN_TO_RESET: Duration = Duration::from_millis(300);
/// How often a watcher looks whether it has to stop.
const LOOK: Duration = Duration::from_millis(50);
/// The last bytes that are kept of what a side reads: more than any response of the proxy's own.
const TAIL_BYTES: usize = 1000;
/// Sent behind an urgent byte.
const BEHIND_URGENT: &[u8] = b"behind the mark";

impl Cell {
    pub fn host(self) -> String {
        let Cell { stage, kind, .. } = self;
        format!("{stage:?}-{kind:?}.test").to_lowercase()
    }

    /// The first bytes of the client: a hello, or the head of a request.
    fn head(self) -> Vec<u8> {
        let host = match self.stage {
            Stage::Farewell => format!("{:?}.nobody.test", self.kind).to_lowercase(),
            _ => self.host(),
        };
        let length = match self.stage {
            Stage::Farewell => 1000,
            _ if self.is_upload() => BODY_BYTES,
            _ => 0,
        };
        let body = match length {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let method = if length > 0 { "POST" } else { "GET" };
        match self.kind {
            Kind::Tls => Hello::named(&host).record(),
            Kind::Http11 => format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{body}\r\n").into(),
            Kind::Http10 => format!(
                "{method} / HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n{body}\r\n"
            )
            .into(),
            Kind::Tunnel => format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            .into(),
        }
    }

    /// The first bytes of the backend.
    fn answer_head(self) -> Vec<u8> {
        match self.kind {
            Kind::Tls => Vec::new(),
            Kind::Http11 | Kind::Http10 if self.stage == Stage::BetweenRequests => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
            }
            Kind::Http11 | Kind::Http10 => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n").into()
            }
            Kind::Tunnel => {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                    .to_vec()
            }
        }
    }

    fn is_http(self) -> bool {
        matches!(self.kind, Kind::Http11 | Kind::Http10)
    }

    /// Whether the client sends a body that the backend does not read.
    fn is_upload(self) -> bool {
        self.is_http() && self.side == Side::Backend && self.fault.is_flooded()
    }
}

/// The address of a cell's backend, with its listener or with what keeps the address silent or refusing.
pub struct Place {
    listener: Option<TcpListener>,
    pub member: String,
    /// What keeps an address silent or refusing.
    _held: Option<Box<dyn Send + Sync>>,
}

impl Place {
    pub fn of(cell: Cell) -> Place {
        let (held, address): (Box<dyn Send + Sync>, SocketAddr) =
            match (cell.stage, cell.side, cell.fault) {
                (Stage::Connecting, Side::Backend, Fault::Reset) => {
                    let (socket, address) = port::refusing();
                    (Box::new(socket), address)
                }
                (Stage::Connecting, ..) => {
                    let (held, address) = port::silent();
                    (Box::new(held), address)
                }
                _ => {
                    let listener = TcpListener::bind((BACKENDS, 0)).expect("a free port");
                    let address = listener.local_addr().expect("it is bound");
                    return Place {
                        listener: Some(listener),
                        member: address.to_string(),
                        _held: None,
                    };
                }
            };
        Place {
            listener: None,
            member: address.to_string(),
            _held: Some(held),
        }
    }
}

/// Client and backend of a connection. A side is `None` before it exists and after it has ended.
pub struct Ends {
    cell: Cell,
    client: Option<TcpStream>,
    backend: Option<TcpStream>,
    /// The watched side was reset while it sent; a read then reports an end of stream and no reset.
    was_reset: bool,
    /// The client's address, by which the connection is found in the proxy's log.
    pub client_address: SocketAddr,
}

impl Ends {
    /// Opens the connection of `cell` and brings it to its stage.
    pub fn reach(cell: Cell, place: &Place, https: SocketAddr, http: SocketAddr) -> Ends {
        let proxy = match cell.kind {
            Kind::Tls => https,
            _ => http,
        };
        let client = client::connect_from(CLIENTS, proxy);
        let mut ends = Ends {
            cell,
            client_address: client.local_addr().expect("it is connected"),
            client: Some(client),
            backend: None,
            was_reset: false,
        };
        let head = cell.head();
        match cell.stage {
            Stage::BeforeHead => {}
            Stage::WithinHead => ends.client_sends(&head[..head.len() / 2]),
            Stage::Connecting => ends.client_sends(&head),
            Stage::Farewell => {
                ends.client_sends(&head);
                ends.client_reads(7);
            }
            _ => {
                ends.client_sends(&head);
                ends.backend_reads_head(place);
                ends.go_on();
            }
        }
        ends
    }

    /// Brings a connection whose backend has the head to its stage.
    fn go_on(&mut self) {
        let head = self.cell.answer_head();
        let body = match self.cell.stage {
            Stage::HeadSent => return,
            Stage::BetweenRequests => 0,
            Stage::SplicedBody => BULK_BYTES,
            _ => 1000,
        };
        let bytes = [head, vec![b'd'; body]].concat();
        let mut backend = self.backend.as_ref().expect("it has the head");
        std::thread::scope(|scope| {
            scope.spawn(move || backend.write_all(&bytes).expect("the proxy reads"));
            self.client_reads_body(body);
        });
        if self.cell.kind == Kind::Tunnel {
            self.client_sends(b"hello");
            let mut backend = self.backend.as_ref().expect("it has the head");
            backend.read_exact(&mut [0; 5]).expect("the proxy sends");
        }
    }

    /// Reads the head of the response, unless the connection is TLS, and `body` bytes behind it.
    fn client_reads_body(&self, body: usize) {
        let mut client = self.client.as_ref().expect("it is there");
        if self.cell.kind != Kind::Tls {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("the proxy sends");
                head.push(byte[0]);
            }
            if self.cell.stage == Stage::BetweenRequests {
                client.read_exact(&mut [0; 2]).expect("the proxy sends");
            }
        }
        let mut bytes = vec![0; body];
        client.read_exact(&mut bytes).expect("the proxy sends");
    }

    fn client_reads(&self, bytes: usize) {
        let mut client = self.client.as_ref().expect("it is there");
        client
            .read_exact(&mut vec![0; bytes])
            .expect("the proxy answers");
    }

    fn client_sends(&self, bytes: &[u8]) {
        let mut client = self.client.as_ref().expect("it is there");
        client.write_all(bytes).expect("the proxy reads");
    }

    fn backend_reads_head(&mut self, place: &Place) {
        let listener = place.listener.as_ref().expect("a backend that accepts");
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(client::PATIENCE)).expect("a socket option");
        }
        stream.set_nodelay(true).expect("a socket option");
        let mut head = Vec::new();
        let is_whole = |head: &[u8]| match self.cell.kind {
            Kind::Tls => head.len() == self.cell.head().len(),
            _ => head.ends_with(b"\r\n\r\n"),
        };
        while !is_whole(&head) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the proxy sends");
            head.push(byte[0]);
        }
        self.backend = Some(stream);
    }

    /// Makes one side end or stop. [`Fault::Vanishes`] does nothing here: the caller drops the packets.
    pub fn misbehave(&mut self) {
        let Cell { side, fault, .. } = self.cell;
        let faulty = match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        let Some(stream) = faulty else { return };
        let finish = |stream: &TcpStream| stream.shutdown(Shutdown::Write);
        match fault {
            Fault::Fin | Fault::FinAndStopsReading => finish(stream).expect("connected"),
            Fault::Reset => reset(faulty),
            Fault::FinThenReset => {
                finish(stream).expect("connected");
                std::thread::sleep(FIN_TO_RESET);
                reset(faulty);
            }
            Fault::UrgentByte => {
                let urgent = SockRef::from(&*stream).send_out_of_band(b"u");
                urgent.expect("connected");
                if self.cell.sends_behind_urgent() {
                    stream.write_all(BEHIND_URGENT).expect("connected");
                }
            }
            Fault::Silence | Fault::StopsReading | Fault::Vanishes => {}
        }
        if fault.is_flooded() {
            self.flood();
        }
    }

    /// Has the watched side send until all buffers are full.
    fn flood(&mut self) {
        let other = match self.cell.side {
            Side::Client => &self.backend,
            Side::Backend => &self.client,
        };
        let Some(mut stream) = other.as_ref() else {
            return;
        };
        if self.cell.side == Side::Client && self.cell.stage == Stage::HeadSent {
            let head = self.cell.answer_head();
            stream.write_all(&head).expect("the proxy reads");
        }
        let full = Some(FULL_AFTER);
        stream.set_write_timeout(full).expect("a socket option");
        let piece = [b'd'; 64 * 1024];
        let sent = (0..FLOOD_BYTES / piece.len()).try_for_each(|_| stream.write_all(&piece));
        self.was_reset = sent.is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
        });
    }

    /// Watches the side without the fault to its end, or the faulty side if there is no other. Stops when
    /// `is_over` is set.
    pub fn watch(&mut self, is_over: &AtomicBool) -> Seen {
        let (faulty, other) = match self.cell.side {
            Side::Client => (&mut self.client, &mut self.backend),
            Side::Backend => (&mut self.backend, &mut self.client),
        };
        let waits_for_reset = matches!(
            self.cell.fault,
            Fault::FinThenReset | Fault::FinAndStopsReading
        );
        match (other, faulty) {
            (Some(_), _) if self.cell.leaves_the_other_alone() => Seen::default(),
            (other @ Some(_), _) => {
                let mut seen = Seen::watch(other.as_ref().unwrap(), is_over, waits_for_reset);
                if self.was_reset {
                    seen.end = End::Reset;
                }
                // A program closes its socket when it has seen the end.
                *other = None;
                seen
            }
            (None, Some(faulty)) => Seen::watch(faulty, is_over, false),
            (None, None) => Seen::default(),
        }
    }
}

impl Cell {
    /// Whether ordinary bytes follow the urgent byte. At other stages they would be taken for a head.
    pub fn sends_behind_urgent(self) -> bool {
        match self.stage {
            Stage::CopiedBody | Stage::SplicedBody | Stage::Drain => {
                !self.is_http() || self.side == Side::Backend
            }
            Stage::InTunnel => true,
            _ => false,
        }
    }

    /// Between two requests a fault on one side does not concern the other side.
    fn leaves_the_other_alone(self) -> bool {
        self.stage == Stage::BetweenRequests
    }
}

fn reset(stream: &mut Option<TcpStream>) {
    if let Some(stream) = stream.take() {
        let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        linger.expect("a socket option");
    }
}

/// How a connection ended for the side that was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    Fin,
    Reset,
    /// A reset behind an end of the stream.
    FinThenReset,
    /// It did not end.
    #[default]
    None,
}

/// What the watched side saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The last bytes.
    pub tail: Vec<u8>,
    pub end: End,
}

impl Seen {
    fn watch(mut stream: &TcpStream, is_over: &AtomicBool, waits_for_reset: bool) -> Seen {
        let mut seen = Seen::default();
        let mut buffer = vec![0; 64 * 1024];
        stream
            .set_read_timeout(Some(LOOK))
            .expect("a socket option");
        while seen.end == End::None && !is_over.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => seen.end = End::Fin,
                Ok(bytes) => {
                    seen.tail.extend_from_slice(&buffer[..bytes]);
                    let surplus = seen.tail.len().saturating_sub(TAIL_BYTES);
                    seen.tail.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => seen.end = End::Reset,
                Err(_) => {}
            }
        }
        while waits_for_reset && seen.end == End::Fin && !is_over.load(Ordering::Relaxed) {
            if has_failed(stream) {
                seen.end = End::FinThenReset;
            }
        }
        seen
    }

    /// The status of the last response or the description of the TLS alert; `None` without either.
    pub fn told(&self) -> Option<u16> {
        if let [.., 21, 3, _, 0, 2, 2, description] = self.tail[..] {
            return Some(description.into());
        }
        let text = String::from_utf8_lossy(&self.tail);
        let (_, last) = text.rsplit_once("HTTP/1.1 ")?;
        last.get(..3)?.parse().ok()
    }

    pub fn has_bytes_behind_urgent(&self) -> bool {
        self.tail.ends_with(BEHIND_URGENT)
    }
}

/// Whether the socket has failed; waits for a failure for [`LOOK`].
fn has_failed(stream: &TcpStream) -> bool {
    let mut asked = libc::pollfd {
        fd: stream.as_raw_fd(),
        // Failures are reported unasked.
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd that lives across the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, LOOK.as_millis() as i32) };
    ready == 1 && asked.revents & libc::POLLERR != 0
}
