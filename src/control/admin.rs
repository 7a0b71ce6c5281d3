//! The admin endpoint: HTTP/1 with GET and HEAD, one connection at a time, each with a deadline,
//! on a thread of its own. It is for an operator and a scraper, so it is small rather than fast.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::pages::{Page, page};

/// For one connection, from accept to the last byte. Others wait meanwhile.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(2);

/// Scrapers and browsers send less than half of this.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// After accept fails for want of descriptors: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin endpoint that does not serve yet.
pub struct Admin {
    listener: TcpListener,
    /// Whether POST /debug/panic/CORE is obeyed.
    faults: bool,
}

impl Admin {
    /// # Errors
    /// With the address and the remedy in the text.
    pub fn bind(address: SocketAddr) -> io::Result<Admin> {
        let listener = TcpListener::bind(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "admin {address} cannot be listened on: {error}; choose another address or end \
                     what has it"
                ),
            )
        })?;
        Ok(Admin {
            listener,
            faults: false,
        })
    }

    /// Obeys POST /debug/panic/CORE, too. For tests: whoever reaches the endpoint can then end the
    /// process.
    pub fn with_faults(self) -> Admin {
        Admin {
            faults: true,
            ..self
        }
    }

    /// Where it listens, the port chosen by the kernel included.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn serve(self, shared: Arc<Shared>) -> io::Result<()> {
        std::thread::Builder::new()
            .name(String::from("admin"))
            .spawn(move || {
                loop {
                    match self.listener.accept() {
                        Ok((client, _)) => {
                            // A client that left is no event.
                            let _ = answer(&shared, client, self.faults);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "admin endpoint cannot accept");
                            std::thread::sleep(ACCEPT_PAUSE);
                        }
                    }
                }
            })?;
        Ok(())
    }
}

/// What was asked for.
enum Request {
    Get(String),
    Head(String),
    Post(String),
    Other,
    Malformed,
}

fn answer(shared: &Shared, mut client: TcpStream, faults: bool) -> io::Result<()> {
    let deadline = Instant::now() + CONNECTION_DEADLINE;
    let (page, with_body) = match read_request(&mut client, deadline)? {
        Request::Get(target) => (page(shared, &target), true),
        Request::Head(target) => (page(shared, &target), false),
        Request::Post(target) if faults => (panic_page(shared, &target), true),
        Request::Post(_) | Request::Other => {
            let sentence = "Only GET and HEAD are answered.\n";
            (Page::text("405 Method Not Allowed", sentence), true)
        }
        Request::Malformed => {
            let sentence = "This is no HTTP/1 request of reasonable size.\n";
            (Page::text("400 Bad Request", sentence), true)
        }
    };
    let mut response = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len()
    );
    if with_body {
        response.push_str(&page.body);
    }
    write_by(&mut client, response.as_bytes(), deadline)?;
    client.shutdown(Shutdown::Write)?;
    // A reset after the last byte would take the answer away from a client whose request had more
    // to it than its head, so what it sends is read until it is done.
    while read_by(&mut client, &mut [0; 1024], deadline)? > 0 {}
    Ok(())
}

/// Makes the core in `/debug/panic/CORE` panic.
fn panic_page(shared: &Shared, path: &str) -> Page {
    let number = path.strip_prefix("/debug/panic/");
    let number = number.and_then(|number| number.parse().ok());
    match number.filter(|core| shared.cores.numbers().contains(core)) {
        Some(core) => {
            shared.cores.panic(core);
            Page::text("202 Accepted", "The core is told to panic.\n")
        }
        None => Page::text("404 Not Found", "There is /debug/panic/CORE.\n"),
    }
}

fn read_request(client: &mut TcpStream, deadline: Instant) -> io::Result<Request> {
    let mut head = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    loop {
        let count = read_by(client, &mut piece, deadline)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&piece[..count]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default();
                let target = target.to_owned();
                return Ok(match request.method {
                    Some("GET") => Request::Get(target),
                    Some("HEAD") => Request::Head(target),
                    Some("POST") => Request::Post(target),
                    _ => Request::Other,
                });
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => {}
            _ => return Ok(Request::Malformed),
        }
    }
}

/// Time left, or the error that says that there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn read_by(client: &mut TcpStream, piece: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        client.set_read_timeout(Some(left(deadline)?))?;
        match client.read(piece) {
            // A call with a timeout is not restarted after a signal (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn write_by(client: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        client.set_write_timeout(Some(left(deadline)?))?;
        match client.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
