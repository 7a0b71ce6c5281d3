//! The admin endpoint: HTTP/1 with GET and HEAD, one request per connection, each with deadlines and
//! none in another's way. It is for an operator and a scraper, so it is small rather than fast.

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

use super::own_host::{NotOurs, OwnHost};
use super::page::Page;
use super::pages::page;
use super::process::ProcessState;

/// From accept to the end of the request's head. A browser opens connections ahead and says nothing.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);
/// From accept to the last byte: `/metrics` of many backends through a slow line.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// What a client that has its answer may still send before it is hung up on: a reset would take the
/// answer away from it.
const LINGER_DEADLINE: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// The least that hyper takes; scrapers and browsers send less than half of it.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// Connections at once. They come out of the descriptors that are kept back; further ones wait in
/// the backlog, for the head deadline at most when nobody has anything to say.
const CONNECTIONS_MAX: usize = 32;

/// After accept fails for want of descriptors: the next try would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin endpoint that does not serve yet.
pub(crate) struct Admin {
    listener: TcpListener,
    rules: Rules,
}

/// What it answers.
#[derive(Default)]
struct Rules {
    own_host: OwnHost,
    /// Whether POST /debug/panic/CORE is obeyed.
    faults: bool,
}

impl Admin {
    /// # Errors
    /// With the address and the remedy in the text.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Admin> {
        let listener = TcpListener::bind(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "admin {address} cannot be listened on: {error}; choose another address or end \
                     what has it"
                ),
            )
        })?;
        // Tasks wait for it, not threads.
        listener.set_nonblocking(true)?;
        Ok(Admin {
            listener,
            rules: Rules::default(),
        })
    }

    /// Answers requests for these hosts, too.
    pub(crate) fn with_hosts(mut self, names: Vec<Box<str>>) -> Admin {
        self.rules.own_host = OwnHost::new(names);
        self
    }

    /// Obeys POST /debug/panic/CORE, too. For tests: whoever reaches the endpoint can then end the
    /// process.
    pub(crate) fn with_faults(mut self) -> Admin {
        self.rules.faults = true;
        self
    }

    /// Where it listens, the port chosen by the kernel included.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as the runtime lives.
    pub(crate) async fn serve(self, process: Rc<ProcessState>) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the admin endpoint cannot be waited for and does not answer");
                return;
            }
        };
        let rules = Rc::new(self.rules);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((client, _)) => {
                    let answer = answer(process.clone(), rules.clone(), client);
                    spawn_local(async move {
                        let _place = place;
                        // A client that left or is too slow is no event.
                        let _ = timeout(CONNECTION_DEADLINE, answer).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "admin endpoint cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn answer(process: Rc<ProcessState>, rules: Rc<Rules>, client: TcpStream) -> io::Result<()> {
    let own = client.local_addr()?.ip();
    let service = service_fn(|request| {
        let (process, rules) = (process.clone(), rules.clone());
        Box::pin(async move {
            let page = respond(&process, &rules, own, &request).await;
            Ok::<_, Infallible>(response(page))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        // Who asks with `nc -N` has finished sending and still reads.
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(client), service);
    // What hyper does not understand it has answered as well, so the end is the same.
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
    own: IpAddr,
    request: &Request<B>,
) -> Page {
    match rules.own_host.check(request, own) {
        Ok(()) => {}
        Err(NotOurs::Unclear) => {
            return Page::text("400 Bad Request", "A request has one Host.\n");
        }
        Err(NotOurs::AnotherHost) => {
            let sentence = "This Host is not the admin endpoint's: ask by its address or as localhost, or start with --admin-host NAME.\n";
            return Page::text("421 Misdirected Request", sentence);
        }
    }
    let uri = request.uri();
    match *request.method() {
        Method::GET | Method::HEAD => page(process, uri.path(), uri.query().unwrap_or("")).await,
        Method::POST if rules.faults => panic_page(process, uri.path()),
        _ => Page::text(
            "405 Method Not Allowed",
            "Only GET and HEAD are answered.\n",
        ),
    }
}

/// Makes the core in `/debug/panic/CORE` panic.
fn panic_page(process: &ProcessState, path: &str) -> Page {
    let number = path.strip_prefix("/debug/panic/");
    let number = number.and_then(|number| number.parse().ok());
    let cores = process.cores();
    match number.filter(|core| cores.numbers().contains(core)) {
        Some(core) => {
            cores.panic(core);
            Page::text("202 Accepted", "The core is told to panic.\n")
        }
        None => Page::text("404 Not Found", "There is /debug/panic/CORE.\n"),
    }
}

/// With the length, and without the body where HEAD asked, both of which hyper sees to.
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
