//! The HTTP server of the admin endpoint: HTTP/1 with GET and HEAD, one request per connection. Each
//! connection is a task with deadlines, so that a slow client delays no other. It serves operators and
//! scrapers, so it is small rather than fast.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::own_host::{OwnHost, WrongHost};
use super::page::Page;
use super::pages::page;
use super::process::ProcessState;

/// From accept to the end of the request's head. Browsers open connections ahead and send nothing.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);
/// From accept to the last byte. `/metrics` of many backends through a slow link needs seconds.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// How long, and how much, is read from a client after its response. Closing at once would reset the
/// connection when bytes of the client are unread, and a reset discards the response on its way.
const LINGER_DEADLINE: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// The smallest buffer that hyper allows. Scrapers and browsers send less than half of it.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// Connections at a time. Their descriptors are among those that the process keeps back. Further
/// connections wait in the backlog, for the head deadline at most if all of these stay silent.
const CONNECTIONS_MAX: usize = 32;

/// After a failed accept. When descriptors have run out, the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin endpoint, bound to its address.
pub(crate) struct Admin {
    listener: TcpListener,
    rules: Rules,
}

/// Which requests are served.
#[derive(Default)]
struct Rules {
    own_host: OwnHost,
    /// Whether POST /debug/panic/CORE makes that core panic.
    allows_faults: bool,
}

impl Admin {
    /// # Errors
    /// When the address cannot be bound. The text has the address and the remedy.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Admin> {
        let listener = TcpListener::bind(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "admin cannot listen on {address}: {error}; choose another address, or end the \
                     process that listens there"
                ),
            )
        })?;
        // The runtime waits for it.
        listener.set_nonblocking(true)?;
        Ok(Admin {
            listener,
            rules: Rules::default(),
        })
    }

    /// Serves requests for these hosts as well, by name or address.
    pub(crate) fn with_hosts(mut self, names: Vec<Box<str>>) -> Admin {
        self.rules.own_host = OwnHost::new(names);
        self
    }

    /// Obeys POST /debug/panic/CORE. For tests only: any client of the endpoint can then end the
    /// process.
    pub(crate) fn with_faults(mut self) -> Admin {
        self.rules.allows_faults = true;
        self
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as the runtime lives.
    pub(crate) async fn serve(self, process: Rc<ProcessState>) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the admin endpoint cannot be served: its socket cannot be \
                    registered with the runtime");
                return;
            }
        };
        let rules = Rc::new(self.rules);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = permits.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((client, _)) => {
                    let answer = answer(process.clone(), rules.clone(), client);
                    spawn_local(async move {
                        let _permit = permit;
                        // A client that leaves or is too slow is not worth a log line.
                        let _ = timeout(CONNECTION_DEADLINE, answer).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the admin endpoint cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn answer(process: Rc<ProcessState>, rules: Rc<Rules>, client: TcpStream) -> io::Result<()> {
    let local = client.local_addr()?.ip();
    let service = service_fn(|request| {
        let (process, rules) = (process.clone(), rules.clone());
        Box::pin(async move {
            let page = respond(&process, &rules, local, &request).await;
            Ok::<_, Infallible>(response(page))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        // A client such as `nc -N` finishes sending and waits for the response.
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(client), service);
    // After an error hyper has sent its own response, so the connection ends in the same way.
    let _ = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut client = connection.into_parts().io.into_inner();
    client.shutdown().await?;
    let _ = timeout(LINGER_DEADLINE, read_to_end(&mut client)).await;
    Ok(())
}

async fn read_to_end(client: &mut TcpStream) -> io::Result<()> {
    let mut piece = [0; 1024];
    let mut read = 0;
    while read < LINGER_BYTES_MAX {
        match client.read(&mut piece).await? {
            0 => break,
            count => read += count,
        }
    }
    Ok(())
}

async fn respond<B>(
    process: &ProcessState,
    rules: &Rules,
    local: IpAddr,
    request: &Request<B>,
) -> Page {
    match rules.own_host.verify(request, local) {
        Ok(()) => {}
        Err(WrongHost::NotOne) => {
            return Page::text("400 Bad Request", "A request has one Host field.\n");
        }
        Err(WrongHost::Foreign) => {
            let sentence = "The admin endpoint does not serve this Host: use its address or localhost, or \
                start it with --admin-host NAME.\n";
            return Page::text("421 Misdirected Request", sentence);
        }
    }
    let uri = request.uri();
    match *request.method() {
        Method::GET | Method::HEAD => page(process, uri.path(), uri.query().unwrap_or("")).await,
        Method::POST if rules.allows_faults => panic_page(process, uri.path()),
        _ => Page::text(
            "405 Method Not Allowed",
            "The admin endpoint serves GET and HEAD.\n",
        ),
    }
}

/// `/debug/panic/CORE`: makes that core panic.
fn panic_page(process: &ProcessState, path: &str) -> Page {
    let number = path.strip_prefix("/debug/panic/");
    let number = number.and_then(|number| number.parse().ok());
    let cores = process.cores();
    match number.filter(|core| cores.numbers().contains(core)) {
        Some(core) => {
            cores.panic(core);
            Page::text("202 Accepted", "The core is going to panic.\n")
        }
        None => Page::text(
            "404 Not Found",
            "The page is /debug/panic/CORE, with the number of a core.\n",
        ),
    }
}

/// The page as a response. Content-Length, and the missing body of a response to HEAD, are hyper's.
fn response(page: Page) -> Response<String> {
    let status = page
        .status
        .split(' ')
        .next()
        .and_then(|code| code.parse().ok());
    let mut response = Response::new(page.body);
    *response.status_mut() = status.expect("a page's status begins with its code");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
