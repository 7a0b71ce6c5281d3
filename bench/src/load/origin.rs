//! The origin behind the proxies: how it serves a connection of each [`Service`], and the slow backends of
//! the scenario `seed`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::buffers::{HeadEnd, Moved, read, write};
use super::bulk::{Stock, discard, send_before_more};
use super::plan::{
    BODY_BYTES, PIECE_BYTES, REPLY_BYTES, REQUEST_BYTES, SEED_SERVICE_TIME, SEED_WORKERS, Service,
};

/// Length of a TLS record's header, in which the length of its content is the last two bytes.
const RECORD_HEADER_BYTES: usize = 5;

/// A PROXY header of version 2 begins with this many bytes, of which the last two are the length of
/// what follows.
const PROXY_HEADER_BYTES: usize = 16;

/// A body longer than any window carries.
const HTTP_DOWN_BYTES: u64 = 1 << 50;

/// What the origin answers, made once.
#[derive(Debug)]
pub struct Answers {
    small: Vec<u8>,
    keep: Vec<u8>,
    close: Vec<u8>,
    /// Heads before bulk, and what comes between two chunks of it.
    down: Vec<u8>,
    down_chunked: Vec<u8>,
    chunk_line: Vec<u8>,
}

impl Answers {
    pub fn new() -> Answers {
        let http = |connection: &str| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: \
                 application/octet-stream\r\nContent-Length: {BODY_BYTES}\r\n{connection}\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + BODY_BYTES, b'x');
            answer
        };
        let bulk = |length: &str| format!("HTTP/1.1 200 OK\r\nServer: origin\r\n{length}\r\n\r\n");
        let first_line = format!("{PIECE_BYTES:x}\r\n");
        let mut down_chunked = bulk("Transfer-Encoding: chunked");
        down_chunked.push_str(&first_line);
        Answers {
            down: bulk(&format!("Content-Length: {HTTP_DOWN_BYTES}")).into(),
            down_chunked: down_chunked.into(),
            chunk_line: format!("\r\n{first_line}").into(),
            small: vec![0x2a; REPLY_BYTES],
            keep: http(""),
            close: http("Connection: close\r\n"),
        }
    }

    fn of(&self, service: Service) -> &[u8] {
        match service {
            Service::Keep => &self.keep,
            Service::Close | Service::Seed(_) => &self.close,
            Service::HttpDown => &self.down,
            Service::HttpDownChunked => &self.down_chunked,
            _ => &self.small,
        }
    }
}

/// The result of a step of a served connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Waits,
    /// Has used up its share of this turn and goes on in the next.
    Again,
    /// A request for the numbered slow backend is complete.
    Queue(usize),
    Ended,
}

/// A connection being served.
#[derive(Debug)]
pub struct Served {
    pub stream: TcpStream,
    pub service: Service,
    /// It is in the queue of those that go on in the next turn.
    pub queued: bool,
    /// The first bytes of a PROXY header, and how many of the whole header were received.
    proxy_header: [u8; PROXY_HEADER_BYTES],
    proxied: usize,
    header: [u8; RECORD_HEADER_BYTES],
    /// Bytes of the hello received so far, header included.
    hello: usize,
    /// The hello is complete.
    greeted: bool,
    /// Bytes of a request received so far.
    request: usize,
    head: HeadEnd,
    /// Bytes of the answer still to be sent.
    answer_left: usize,
    /// Bulk sent, and since when, for streams held at a rate.
    sent: u64,
    since: Instant,
}

impl Served {
    pub fn new(stream: TcpStream, service: Service) -> Served {
        Served {
            stream,
            service,
            queued: false,
            proxy_header: [0; PROXY_HEADER_BYTES],
            proxied: 0,
            header: [0; RECORD_HEADER_BYTES],
            hello: 0,
            greeted: false,
            request: 0,
            head: HeadEnd::default(),
            answer_left: 0,
            sent: 0,
            since: Instant::now(),
        }
    }

    /// Goes on as far as the socket allows, at most one piece of bulk. `received` counts bytes of
    /// uploads; `rate` holds a bulk stream at that many bytes per second.
    pub fn advance(
        &mut self,
        answers: &Answers,
        scratch: &mut [u8],
        stock: &mut Stock,
        received: &mut u64,
        rate: Option<f64>,
    ) -> Step {
        loop {
            if self.answer_left > 0 {
                match self.send_answer(answers) {
                    None => return Step::Waits,
                    Some(false) => return Step::Ended,
                    Some(true) => {}
                }
                if self.service == Service::Close {
                    return Step::Ended;
                }
                if self.service.is_http_down() {
                    self.greeted = true;
                    return Step::Again;
                }
                // The next request cannot be here yet; its event will come.
                return Step::Waits;
            }
            if self.service == Service::HttpDownChunked && self.greeted {
                let moved = self.send_chunk(answers, stock);
                return self.sent_piece(moved);
            }
            if matches!(self.service, Service::Down | Service::HttpDown) && self.greeted {
                return self.send_piece(stock, rate);
            }
            let taken = if self.service == Service::Up && self.greeted {
                discard(&self.stream, scratch)
            } else {
                read(&mut self.stream, scratch)
            };
            let length = match taken {
                Moved::Bytes(length) => length,
                Moved::Blocked => return Step::Waits,
                Moved::Finished | Moved::Failed(_) => return Step::Ended,
            };
            match self.service {
                Service::Up if self.greeted => {
                    *received += length as u64;
                    return Step::Again;
                }
                Service::Small | Service::Down | Service::Up => self.take_small(&scratch[..length]),
                Service::Proxied => {
                    let skipped = self.skip_proxy_header(&scratch[..length]);
                    self.take_small(&scratch[skipped..length]);
                }
                Service::Keep | Service::Close | Service::HttpDown | Service::HttpDownChunked => {
                    if self.head.advance(&scratch[..length]).is_some() {
                        self.answer_left = answers.of(self.service).len();
                    }
                }
                Service::Seed(backend) => {
                    if self.head.advance(&scratch[..length]).is_some() {
                        return Step::Queue(backend);
                    }
                }
            }
        }
    }

    /// Answers a request that a slow backend is done with; the caller then ends the connection.
    pub fn answer(&mut self, answers: &Answers) {
        self.answer_left = answers.of(self.service).len();
        self.send_answer(answers);
    }

    /// How many of these bytes belong to the PROXY header.
    fn skip_proxy_header(&mut self, bytes: &[u8]) -> usize {
        let missing = PROXY_HEADER_BYTES
            .saturating_sub(self.proxied)
            .min(bytes.len());
        self.proxy_header[self.proxied.min(PROXY_HEADER_BYTES)..][..missing]
            .copy_from_slice(&bytes[..missing]);
        self.proxied += missing;
        if self.proxied < PROXY_HEADER_BYTES {
            return missing;
        }
        let [.., high, low] = self.proxy_header;
        let whole = PROXY_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        let rest = (whole - self.proxied).min(bytes.len() - missing);
        self.proxied += rest;
        missing + rest
    }

    fn take_small(&mut self, mut bytes: &[u8]) {
        if !self.greeted {
            let missing = RECORD_HEADER_BYTES
                .saturating_sub(self.hello)
                .min(bytes.len());
            self.header[self.hello.min(RECORD_HEADER_BYTES)..][..missing]
                .copy_from_slice(&bytes[..missing]);
            self.hello += missing;
            bytes = &bytes[missing..];
            if self.hello < RECORD_HEADER_BYTES {
                return;
            }
            let content = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            let missing = (RECORD_HEADER_BYTES + content - self.hello).min(bytes.len());
            self.hello += missing;
            bytes = &bytes[missing..];
            if self.hello < RECORD_HEADER_BYTES + content {
                return;
            }
            self.greeted = true;
            self.since = Instant::now();
            if matches!(self.service, Service::Small | Service::Proxied) {
                self.answer_left = REPLY_BYTES;
            }
        }
        self.request += bytes.len();
        let answers = matches!(self.service, Service::Small | Service::Proxied);
        if self.request >= REQUEST_BYTES && answers {
            self.request -= REQUEST_BYTES;
            self.answer_left += REPLY_BYTES;
        }
    }

    /// `None` when the socket is full, otherwise whether it still works.
    fn send_answer(&mut self, answers: &Answers) -> Option<bool> {
        let answer = answers.of(self.service);
        while self.answer_left > 0 {
            let begin = answer.len() - self.answer_left.min(answer.len());
            match write(&mut self.stream, &answer[begin..]) {
                Moved::Bytes(length) => self.answer_left -= length,
                Moved::Blocked => return None,
                Moved::Finished | Moved::Failed(_) => return Some(false),
            }
        }
        Some(true)
    }

    fn send_piece(&mut self, stock: &mut Stock, rate: Option<f64>) -> Step {
        let mut piece = PIECE_BYTES;
        if let Some(rate) = rate {
            let due = self.since.elapsed().as_secs_f64() * rate - self.sent as f64;
            // With smaller writes the rate would depend on the speed of the origin itself.
            if due < 16_384.0 {
                return Step::Again;
            }
            piece = piece.min(due as usize);
        }
        let moved = stock.send(&self.stream, piece);
        self.sent_piece(moved)
    }

    /// Sends what is left of a chunk, or of the line behind it.
    fn send_chunk(&mut self, answers: &Answers, stock: &mut Stock) -> Moved {
        let line = &answers.chunk_line;
        let at = (self.sent % (PIECE_BYTES + line.len()) as u64) as usize;
        match at.checked_sub(PIECE_BYTES) {
            None => stock.send(&self.stream, PIECE_BYTES - at),
            Some(at) => send_before_more(&self.stream, &line[at..]),
        }
    }

    fn sent_piece(&mut self, moved: Moved) -> Step {
        match moved {
            Moved::Bytes(length) => {
                self.sent += length as u64;
                Step::Again
            }
            Moved::Blocked => Step::Waits,
            Moved::Finished | Moved::Failed(_) => Step::Ended,
        }
    }
}

/// A backend that takes [`SEED_SERVICE_TIME`] for each request, [`SEED_WORKERS`] at a time; the
/// others queue. Since all take equally long, they end in the order in which they began.
#[derive(Debug, Default)]
pub struct SlowBackend {
    waiting: VecDeque<usize>,
    serving: VecDeque<(Instant, usize)>,
}

impl SlowBackend {
    /// Takes a request of the connection with this index.
    pub fn queue(&mut self, connection: usize, now: Instant) {
        self.waiting.push_back(connection);
        self.begin(now);
    }

    /// The connection whose answer is due, one per call.
    pub fn due(&mut self, now: Instant) -> Option<usize> {
        let (at, connection) = *self.serving.front()?;
        if at > now {
            return None;
        }
        self.serving.pop_front();
        self.begin(now);
        Some(connection)
    }

    /// How long until the next answer is due.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let (at, _) = self.serving.front()?;
        Some(at.saturating_duration_since(now))
    }

    fn begin(&mut self, now: Instant) {
        while self.serving.len() < SEED_WORKERS {
            let Some(connection) = self.waiting.pop_front() else {
                return;
            };
            self.serving
                .push_back((now + SEED_SERVICE_TIME, connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_backend_serves_four_at_a_time() {
        let start = Instant::now();
        let mut backend = SlowBackend::default();
        for connection in 0..6 {
            backend.queue(connection, start);
        }
        assert_eq!(backend.due(start), None);
        let later = start + SEED_SERVICE_TIME;
        let done: Vec<usize> = std::iter::from_fn(|| backend.due(later)).collect();
        assert_eq!(done, [0, 1, 2, 3]);
        assert_eq!(backend.next(later), Some(SEED_SERVICE_TIME));
        let done: Vec<usize> =
            std::iter::from_fn(|| backend.due(later + SEED_SERVICE_TIME)).collect();
        assert_eq!(done, [4, 5]);
    }
}
