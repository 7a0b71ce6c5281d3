//! HTTP/1 at the level of bytes: a client that reads one response after the other from one connection, and
//! backends that answer with what they received or with what a closure returns.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::backend::{self, Backend};
use super::client;

/// A connection, with the bytes that were read and not yet used.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// One message, its body without chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// All bytes up to and including the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The value of a field; `None` when it is missing.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).into_iter().next()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1);
        let fields = lines.filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        Wire::new(client::connect(address))
    }

    pub fn new(stream: TcpStream) -> Wire {
        Wire {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the peer reads");
    }

    /// Sends a GET and reads the answer.
    pub fn get(&mut self, host: &str, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response()
    }

    /// The next response with its body. An interim response counts as one.
    ///
    /// # Panics
    /// When there is none.
    pub fn response(&mut self) -> Message {
        let head = self.head().expect("a response").expect("a response");
        let status: u16 = head[9..12].parse().expect("a status");
        let until_close = status >= 200 && status != 204 && status != 304;
        self.with_body(head, until_close).expect("a whole body")
    }

    /// The head of the next response alone, for a response whose body never comes.
    pub fn response_head(&mut self) -> Message {
        let head = self.head().expect("a response").expect("a response");
        Message {
            head,
            body: Vec::new(),
        }
    }

    /// The next request; `None` at the end of the stream.
    pub fn request(&mut self) -> io::Result<Option<Message>> {
        match self.head()? {
            Some(head) => self.with_body(head, false).map(Some),
            None => Ok(None),
        }
    }

    /// The head of the next request alone.
    pub fn request_head(&mut self) -> io::Result<Option<Message>> {
        let body = Vec::new();
        Ok(self.head()?.map(|head| Message { head, body }))
    }

    /// A PROXY header of version 2 and the head of the request behind it.
    pub fn announced_head(&mut self) -> io::Result<Vec<u8>> {
        let signature = self.through(b"\r\n\r\n\0\r\nQUIT\n")?;
        let rest = self.through(b"\r\n\r\n")?;
        Ok([signature, rest].into_iter().flatten().flatten().collect())
    }

    /// The body of the request with this head.
    pub fn request_body(&mut self, head: &Message) -> io::Result<Vec<u8>> {
        Ok(self.with_body(head.head.clone(), false)?.body)
    }

    /// As [`Wire::response`], with an error if there is none. `is_head`: it is the response to HEAD.
    pub fn try_response(&mut self, is_head: bool) -> io::Result<Message> {
        let head = self.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let message = Message {
            head,
            body: Vec::new(),
        };
        let status = message.status();
        if is_head || status < 200 || status == 204 || status == 304 {
            return Ok(message);
        }
        self.with_body(message.head, true)
    }

    /// Everything up to the end of the stream or a reset.
    pub fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(true)) {}
        std::mem::take(&mut self.buffer)
    }

    /// The bytes that were read and not used.
    pub fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        let bytes = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..bytes]);
        Ok(bytes > 0)
    }

    fn take(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < bytes {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    fn through(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return self.take(at + end.len()).map(Some);
            }
            if !self.fill()? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn head(&mut self) -> io::Result<Option<String>> {
        let head = self.through(b"\r\n\r\n")?;
        Ok(head.map(|head| String::from_utf8(head).expect("an ASCII head")))
    }

    fn with_body(&mut self, head: String, until_close: bool) -> io::Result<Message> {
        let mut message = Message {
            head,
            body: Vec::new(),
        };
        if message.field("transfer-encoding").is_some() {
            loop {
                let line = self.through(b"\r\n")?.unwrap_or_default();
                let line = String::from_utf8(line).map_err(io::Error::other)?;
                let digits = line.trim_end().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    while self.through(b"\r\n")?.is_some_and(|line| line.len() > 2) {}
                    break;
                }
                message.body.extend(self.take(size)?);
                self.take(2)?;
            }
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            message.body = self.take(length)?;
        } else if until_close {
            message.body = self.rest();
        }
        Ok(message)
    }
}

/// Answers every request with `name`, a line end, the head of the request as it arrived and its
/// body without chunks.
pub fn reflecting(name: &str) -> Backend {
    let name = name.to_owned();
    backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            let body = [
                name.as_bytes(),
                b"\n",
                request.head.as_bytes(),
                &request.body,
            ]
            .concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let answer = [head.as_bytes(), &body].concat();
            if wire.stream.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

/// Calls `serve` with each request and its number on the connection, counted from 0. Sends the bytes that it
/// returns; `None` closes the connection.
pub fn scripted(
    serve: impl Fn(&Message, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Backend {
    backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        for number in 0.. {
            let Ok(Some(request)) = wire.request() else {
                return;
            };
            let Some(answer) = serve(&request, number) else {
                return;
            };
            if wire.stream.write_all(&answer).is_err() {
                return;
            }
        }
    })
}
