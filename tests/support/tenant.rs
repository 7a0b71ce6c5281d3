//! A backend of one of several tenants. Each request says what the response has to be like, and the bodies
//! follow from the request, so that a byte of another tenant is noticed. The backend checks that a request
//! is its own and came whole; some responses misbehave as servers do.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::backend::{self, Backend};
use super::http::{Message, Wire};

/// The longest body.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// All bodies are pieces of this noise, no two of which are alike.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = fastrand::Rng::with_seed(5);
    let mut bytes = vec![0; 2 * BODY_BYTES_MAX];
    dice.fill(&mut bytes);
    bytes
});

/// What a response is like, and what else happens on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    Length,
    Chunked,
    /// Two interim responses first.
    Interim,
    /// A body that ends with the connection.
    UntilClose,
    Head,
    NotModified,
    NoContent,
    /// Sent before the body of the request is read, which is left unread.
    Early,
    /// The request has a body, which the backend takes for the next request.
    Ignored,
    /// Another response follows, which belongs to no request.
    Surplus,
    /// With `Connection: close`.
    LastOne,
}

pub const SHAPES: [Shape; 11] = [
    Shape::Length,
    Shape::Chunked,
    Shape::Interim,
    Shape::UntilClose,
    Shape::Head,
    Shape::NotModified,
    Shape::NoContent,
    Shape::Early,
    Shape::Ignored,
    Shape::Surplus,
    Shape::LastOne,
];

/// One request; its target contains all of these fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub host: String,
    /// Different for every request of a run.
    pub number: u64,
    pub shape: Shape,
    pub body_bytes: usize,
    pub chunked: bool,
    pub answer_bytes: usize,
}

impl Ask {
    pub fn target(&self) -> String {
        let shape = SHAPES.iter().position(|shape| *shape == self.shape);
        format!(
            "/{}/{}/{}/{}/{}/{}",
            self.host,
            self.number,
            shape.expect("every shape is listed"),
            self.body_bytes,
            u8::from(self.chunked),
            self.answer_bytes
        )
    }

    pub fn parse(head: &str) -> Option<Ask> {
        let target = head.split(' ').nth(1)?;
        let mut parts = target.strip_prefix('/')?.split('/');
        Some(Ask {
            host: parts.next()?.to_owned(),
            number: parts.next()?.parse().ok()?,
            shape: *SHAPES.get(parts.next()?.parse::<usize>().ok()?)?,
            body_bytes: parts.next()?.parse().ok()?,
            chunked: parts.next()? == "1",
            answer_bytes: parts.next()?.parse().ok()?,
        })
    }

    pub fn method(&self) -> &'static str {
        match self.shape {
            Shape::Head => "HEAD",
            Shape::Ignored => "GET",
            _ if self.body_bytes == 0 && !self.chunked => "GET",
            _ => "POST",
        }
    }

    /// The request as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method(),
            self.target(),
            self.host
        )
        .into_bytes();
        let body = self.body();
        if self.chunked {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            bytes.extend(chunked(&body, self.number));
        } else {
            if !body.is_empty() {
                bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
            }
            bytes.extend(b"\r\n");
            bytes.extend(body);
        }
        bytes
    }

    pub fn body(&self) -> Vec<u8> {
        match self.shape {
            Shape::Ignored => smuggled(&self.host).into_bytes(),
            _ => noise(self.number, 1, self.body_bytes).to_vec(),
        }
    }

    /// Whether the backend closes right behind its response, with the body of the request unread. That
    /// resets the connection, and the response may be lost. Otherwise the backend reads on first.
    pub fn may_be_lost(&self) -> bool {
        self.shape == Shape::Early && !self.number.is_multiple_of(2)
    }

    /// The body of the response.
    pub fn answer(&self) -> &'static [u8] {
        match self.shape {
            Shape::Head | Shape::NotModified | Shape::NoContent => &[],
            _ => noise(self.number, 2, self.answer_bytes),
        }
    }
}

/// A request inside a body. Its response must reach no client.
fn smuggled(host: &str) -> String {
    format!("GET /stolen HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

const STOLEN: &[u8] = b"HTTP/1.1 200 OK\r\nX-Number: stolen\r\nContent-Length: 6\r\n\r\nstolen";

fn noise(number: u64, side: u64, bytes: usize) -> &'static [u8] {
    let mut dice = fastrand::Rng::with_seed(2 * number + side);
    let from = dice.usize(..BODY_BYTES_MAX);
    &NOISE[from..from + bytes]
}

/// A body in chunks, some of them long enough to be spliced.
fn chunked(body: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    while !rest.is_empty() {
        let most = [100, 5_000, 300_000][dice.usize(..3)];
        let (chunk, behind) = rest.split_at(dice.usize(1..=most).min(rest.len()));
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
        rest = behind;
    }
    bytes.extend(if dice.bool() {
        b"0\r\nX-Sum: 1\r\n\r\n".as_slice()
    } else {
        b"0\r\n\r\n"
    });
    bytes
}

/// What went wrong, noticed by a client or by a backend.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<String>>>);

impl Faults {
    pub fn add(&self, fault: String) {
        self.0.lock().expect("no panic").push(fault);
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().expect("no panic").is_empty()
    }

    pub fn first(&self) -> Option<String> {
        self.0.lock().expect("no panic").first().cloned()
    }
}

/// The backend of a host.
pub fn tenant(host: &str, faults: &Faults) -> Backend {
    let (host, faults) = (host.to_owned(), faults.clone());
    backend::raw(move |stream| {
        // An error means that the client has closed in the middle of a message.
        let _ = serve(stream, &host, &faults);
    })
}

fn serve(stream: TcpStream, host: &str, faults: &Faults) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.request_head()? {
        if head.head.starts_with("GET /stolen ") {
            wire.stream.write_all(STOLEN)?;
            continue;
        }
        let Some(ask) = Ask::parse(&head.head) else {
            faults.add(format!("{host} was sent {:?}", head.head));
            return Ok(());
        };
        if ask.host != host || head.field("host") != Some(host) {
            faults.add(format!("{host} was sent {:?}", head.head));
        }
        if ask.shape == Shape::Early {
            return answer_early(&mut wire, &ask);
        }
        if ask.shape != Shape::Ignored {
            let body = wire.request_body(&head)?;
            if body != ask.body() {
                faults.add(format!("{host} got another body with {:?}", head.head));
            }
        }
        if !answer(&mut wire, &head, &ask)? {
            return Ok(());
        }
    }
    Ok(())
}

fn answer_early(wire: &mut Wire, ask: &Ask) -> io::Result<()> {
    let answer = ask.answer();
    write!(
        wire.stream,
        "HTTP/1.1 403 Early\r\nX-Number: {}\r\nContent-Length: {}\r\n\r\n",
        ask.number,
        answer.len()
    )?;
    wire.stream.write_all(answer)?;
    if !ask.may_be_lost() {
        wire.finish();
        io::copy(&mut wire.stream.try_clone()?.take(1 << 30), &mut io::sink())?;
    }
    Ok(())
}

/// Returns whether the connection goes on.
fn answer(wire: &mut Wire, head: &Message, ask: &Ask) -> io::Result<bool> {
    let mut dice = fastrand::Rng::with_seed(ask.number);
    let body = ask.answer();
    let mut bytes = Vec::with_capacity(body.len() + 256);
    if ask.shape == Shape::Interim {
        bytes.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n");
    }
    bytes.extend(match ask.shape {
        Shape::NotModified => b"HTTP/1.1 304 Not Modified\r\n".as_slice(),
        Shape::NoContent => b"HTTP/1.1 204 No Content\r\n",
        _ => b"HTTP/1.1 200 OK\r\n",
    });
    bytes.extend(format!("X-Number: {}\r\n", ask.number).bytes());
    match ask.shape {
        Shape::UntilClose => bytes.extend(b"\r\n"),
        Shape::NoContent => bytes.extend(b"\r\n"),
        Shape::Chunked => bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n"),
        _ => {
            if ask.shape == Shape::LastOne {
                bytes.extend(b"Connection: close\r\n");
            }
            bytes.extend(format!("Content-Length: {}\r\n\r\n", ask.answer_bytes).bytes());
        }
    }
    match ask.shape {
        Shape::Chunked => bytes.extend(chunked(body, ask.number)),
        _ => bytes.extend(body),
    }
    if ask.shape == Shape::Surplus {
        bytes.extend(STOLEN);
    }
    // Most often in one piece. A surplus response comes in one segment with the end of the body: if it came
    // later, the proxy could not tell it from the response to a request that was sent meanwhile.
    let cut = match dice.u8(..8) {
        _ if ask.shape == Shape::Surplus && bytes.len() > 1_000 => bytes.len() - STOLEN.len() - 20,
        0 if ask.shape != Shape::Surplus => dice.usize(..bytes.len()),
        _ => bytes.len(),
    };
    wire.stream.write_all(&bytes[..cut])?;
    if cut < bytes.len() {
        std::thread::sleep(Duration::from_micros(dice.u64(..1500)));
        wire.stream.write_all(&bytes[cut..])?;
    }
    let ends = matches!(ask.shape, Shape::UntilClose | Shape::LastOne)
        || head.field("connection") == Some("close");
    if !ends && dice.u8(..24) == 0 {
        // As at a keep-alive timeout, sometimes at the moment in which the next request comes.
        std::thread::sleep(Duration::from_micros(dice.u64(..1000)));
        return Ok(false);
    }
    Ok(!ends)
}
