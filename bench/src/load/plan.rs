//! What the clients do and what the origin answers: sizes and names that both sides use.

use std::rc::Rc;
use std::time::Duration;

/// What follows a hello in a small exchange, in bytes: about a short request and its answer.
pub const REQUEST_BYTES: usize = 128;
/// What the origin answers to a hello and to each request, in bytes; one segment.
pub const REPLY_BYTES: usize = 1_024;
/// Body of an HTTP answer, in bytes.
pub const BODY_BYTES: usize = 1_024;
/// The origin writes bulk in pieces of at most this many bytes and serves the other streams
/// between two of them, so that the load side does not decide how streams share the proxy.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Receive buffer of bulk clients, and of the origin for uploads, in bytes (the kernel doubles it). Without
/// a bound it grows until it holds all that is under way.
pub const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;
/// How long a backend of the seed's scenario takes for a request.
pub const SEED_SERVICE_TIME: Duration = Duration::from_millis(50);
/// How many requests a backend of the seed's scenario serves at a time.
pub const SEED_WORKERS: usize = 4;

/// What the origin does on one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Answers a hello and then each request.
    Small,
    /// After the hello, sends without end.
    Down,
    /// After the hello, receives without end.
    Up,
    /// Answers HTTP requests, keeps the connection.
    Keep,
    /// Answers one HTTP request and closes.
    Close,
    /// As `Close`, by the slow backend with this number.
    Seed(usize),
    /// Answers an HTTP request with a body of known length that never ends in a window.
    HttpDown,
    /// As `HttpDown`, in chunks of [`PIECE_BYTES`].
    HttpDownChunked,
    /// As `Small`, behind a PROXY header of version 2.
    Proxied,
}

impl Service {
    pub const ALL: [Service; 11] = [
        Service::Small,
        Service::Down,
        Service::Up,
        Service::Keep,
        Service::Close,
        Service::Seed(0),
        Service::Seed(1),
        Service::Seed(2),
        Service::Proxied,
        Service::HttpDown,
        Service::HttpDownChunked,
    ];

    /// The name of its address in configuration templates.
    pub fn name(self) -> &'static str {
        match self {
            Service::Small => "small",
            Service::Down => "down",
            Service::Up => "up",
            Service::Keep => "keep",
            Service::Close => "close",
            Service::Seed(0) => "seed1",
            Service::Seed(1) => "seed2",
            Service::Seed(_) => "seed3",
            Service::Proxied => "proxied",
            Service::HttpDown => "httpdown",
            Service::HttpDownChunked => "httpdownchunked",
        }
    }

    /// The name that proxies route to it; the three seed backends share one.
    pub fn host(self) -> &'static str {
        match self {
            Service::Small => "small.bench.test",
            Service::Down => "down.bench.test",
            Service::Up => "up.bench.test",
            Service::Keep => "keep.bench.test",
            Service::Close => "close.bench.test",
            Service::Seed(_) => "seed.bench.test",
            Service::Proxied => "proxied.bench.test",
            Service::HttpDown => "httpdown.bench.test",
            Service::HttpDownChunked => "httpdownchunked.bench.test",
        }
    }

    pub fn is_http(self) -> bool {
        matches!(self, Service::Keep | Service::Close | Service::Seed(_)) || self.is_http_down()
    }

    pub fn is_http_down(self) -> bool {
        matches!(self, Service::HttpDown | Service::HttpDownChunked)
    }
}

/// What one client does with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Connect, send the opening, take the answer, close; again.
    Connect,
    /// Connect and open once, then request after request.
    Exchange,
    /// Connect and open once, then receive without end.
    Receive,
    /// Connect and open once, then send without end.
    Send,
    /// Connect and open once, then stay idle.
    Hold,
}

/// Clients that do the same.
#[derive(Debug, Clone)]
pub struct Group {
    pub act: Act,
    pub connections: usize,
    /// What a connection sends first: a hello or a request.
    pub opening: Rc<[u8]>,
    /// What it sends as each further request; only [`Act::Exchange`] has any.
    pub request: Rc<[u8]>,
    /// Answers are HTTP and end with their body, not after [`REPLY_BYTES`].
    pub http: bool,
    /// Requests per second that arrive whether or not the ones before were answered (open loop);
    /// latencies count from the arrival. `None`: a client asks again once it is answered.
    pub rate: Option<f64>,
    /// Stop after this many answers; `None`: when the window ends.
    pub answers_max: Option<u64>,
}
