//! Backends: HTTP servers that answer with their own name, in the clear and over real TLS, servers that
//! send back what they receive, and servers made of a closure.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// The longest that a backend waits for a byte; a test in which it takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a thread of its own, with one more for each connection. Dropping it closes the
/// listener; connections go on until their peers end them.
pub struct Backend {
    place: Place,
    accepted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Backend {
    /// The backend as an operator writes it in a route.
    pub fn member(&self) -> String {
        match &self.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// # Panics
    /// When it listens on a unix socket.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{} has no address", path.display()),
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // A connection makes accept return, and the thread then sees that it has to end.
        let woken = match &self.place {
            Place::Tcp(address) => TcpStream::connect(address).map(drop),
            Place::Unix(path) => UnixStream::connect(path).map(drop),
        };
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Calls `serve` with each connection, on a thread of its own.
pub fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
    raw_at("127.0.0.1:0", serve)
}

/// As [`raw`], at an address; port 0 lets the kernel choose.
pub fn raw_at(address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
    let listener = TcpListener::bind(address).expect("a free port");
    let place = Place::Tcp(listener.local_addr().expect("it is bound"));
    let accept = move || {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    start(place, accept, serve)
}

/// As [`raw`], on a unix socket.
pub fn raw_unix(path: &Path, serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Backend {
    let listener = UnixListener::bind(path).expect("a free path");
    let accept = move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    start(Place::Unix(path.to_owned()), accept, serve)
}

fn start<S: Send + 'static>(
    place: Place,
    accept: impl Fn() -> io::Result<S> + Send + 'static,
    serve: impl Fn(S) + Send + Sync + 'static,
) -> Backend {
    let accepted = Arc::new(AtomicUsize::new(0));
    let stopping = Arc::new(AtomicBool::new(false));
    let serve = Arc::new(serve);
    let (counter, stop) = (accepted.clone(), stopping.clone());
    let thread = std::thread::spawn(move || {
        loop {
            let stream = accept();
            if stop.load(Ordering::SeqCst) {
                return;
            }
            // A connection that was reset before it was accepted is not counted.
            let Ok(stream) = stream else { continue };
            counter.fetch_add(1, Ordering::SeqCst);
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    Backend {
        place,
        accepted,
        stopping,
        thread: Some(thread),
    }
}

/// Sends `name` and a line end when the first byte comes, then sends back every byte, and closes when the
/// client has finished. So a client reads which backend it reached and what arrived there. If the first
/// bytes are the head of a request, the same is the body of a response, and the connection ends with it.
pub fn echo(name: &str) -> Backend {
    let greeting = format!("{name}\n");
    raw(move |stream| {
        let _ = echo_all(stream, greeting.as_bytes());
    })
}

fn echo_all(mut stream: TcpStream, greeting: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut greeted = false;
    loop {
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        if !greeted {
            if buffer[0].is_ascii_uppercase() {
                return echo_head(stream, greeting, buffer[..bytes].to_vec());
            }
            stream.write_all(greeting)?;
            greeted = true;
        }
        stream.write_all(&buffer[..bytes])?;
    }
}

fn echo_head(mut stream: TcpStream, greeting: &[u8], mut head: Vec<u8>) -> io::Result<()> {
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        greeting.len() + head.len()
    );
    stream.write_all(response.as_bytes())?;
    stream.write_all(greeting)?;
    stream.write_all(&head)?;
    stream.shutdown(Shutdown::Write)
}

/// A plain HTTP/1 server that answers with its name; see [`serve_http`].
pub fn http(name: &str) -> Backend {
    http_at("127.0.0.1:0", name)
}

/// As [`http`], at an address.
pub fn http_at(address: &str, name: &str) -> Backend {
    let name = name.to_owned();
    raw_at(address, move |stream| {
        let _ = serve_plain(stream, &name);
    })
}

/// As [`http`], on a unix socket.
pub fn http_unix(path: &Path, name: &str) -> Backend {
    let name = name.to_owned();
    raw_unix(path, move |stream| {
        let _ = serve_plain(stream, &name);
    })
}

/// An HTTP/1 server behind TLS 1.2 and 1.3 that answers with its name; see [`serve_http`]. It has a
/// certificate for every name, signed by the authority of [`authority_pem`].
pub fn tls(name: &str) -> Backend {
    tls_at("127.0.0.1:0", name)
}

/// As [`tls`], at an address.
pub fn tls_at(address: &str, name: &str) -> Backend {
    let name = name.to_owned();
    raw_at(address, move |stream| {
        let _ = serve_tls(stream, &name);
    })
}

/// As [`tls`], on a unix socket.
pub fn tls_unix(path: &Path, name: &str) -> Backend {
    let name = name.to_owned();
    raw_unix(path, move |stream| {
        let _ = serve_tls(stream, &name);
    })
}

/// A TCP or unix socket, of which the sending side can be ended.
trait Socket: Read + Write {
    fn finish_sending(&self) -> io::Result<()>;

    /// Ends the sending side and reads on to the end: closing with unread bytes, such as a close_notify,
    /// would reset the connection.
    fn finish(&mut self) -> io::Result<()> {
        self.finish_sending()?;
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Socket for TcpStream {
    fn finish_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Socket for UnixStream {
    fn finish_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn serve_plain(mut socket: impl Socket, name: &str) -> io::Result<()> {
    serve_http(&mut BufReader::new(&mut socket), name)?;
    socket.finish()
}

fn serve_tls(mut socket: impl Socket, name: &str) -> io::Result<()> {
    let mut connection = ServerConnection::new(SERVER.clone()).map_err(io::Error::other)?;
    let stream = rustls::Stream::new(&mut connection, &mut socket);
    serve_http(&mut BufReader::new(stream), name)?;
    connection.send_close_notify();
    connection.complete_io(&mut socket)?;
    socket.finish()
}

/// Serves requests until one has `Connection: close`. The body of a response is `name`, followed by a blank
/// and the length of the request's body if it has one. `Expect: 100-continue` is answered; the body for
/// `/bytes/N` is [`pattern`] of N bytes.
pub fn serve_http<S: Read + Write>(stream: &mut BufReader<S>, name: &str) -> io::Result<()> {
    while let Some(request) = Request::read(stream)? {
        if request.expects_continue {
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let received = io::copy(&mut stream.take(request.body_bytes), &mut io::sink())?;
        let body = match request.path.strip_prefix("/bytes/") {
            Some(count) => pattern(count.parse().map_err(io::Error::other)?),
            None if received > 0 => format!("{name} {received}").into_bytes(),
            None => name.as_bytes().to_vec(),
        };
        let connection = if request.is_last {
            "close"
        } else {
            "keep-alive"
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: \
             {connection}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(&body)?;
        stream.get_mut().flush()?;
        if request.is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// `count` bytes in which no two pieces within 64 KiB are alike, so that a lost or doubled piece is noticed.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count as u64)
        .map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

struct Request {
    path: String,
    body_bytes: u64,
    expects_continue: bool,
    is_last: bool,
}

impl Request {
    /// `None` when the client has finished.
    fn read(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                // Empty lines may precede a request.
                "" if lines.is_empty() => {}
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let mut request = Request {
            path: lines[0].split(' ').nth(1).unwrap_or_default().to_owned(),
            body_bytes: 0,
            expects_continue: false,
            is_last: lines[0].ends_with("HTTP/1.0"),
        };
        for line in &lines[1..] {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.trim();
            match field.to_ascii_lowercase().as_str() {
                "content-length" => request.body_bytes = value.parse().unwrap_or(0),
                "expect" => request.expects_continue = value.eq_ignore_ascii_case("100-continue"),
                "connection" => request.is_last |= value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(Some(request))
    }
}

/// The certificate authority of this test process, made once.
static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "Pointsman test authority");
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
});

static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(CertificateForAnyName {
            key: KeyPair::generate().expect("a key"),
        }));
    Arc::new(config)
});

/// Makes a certificate for the name that arrived, so that a test may use any.
#[derive(Debug)]
struct CertificateForAnyName {
    key: KeyPair,
}

impl ResolvesServerCert for CertificateForAnyName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = match hello.server_name() {
            Some(name) => vec![name.to_owned()],
            // A client that sends no name checks the address that it connected to.
            None => ["127.0.0.1", "::1"].map(str::to_owned).to_vec(),
        };
        let params = CertificateParams::new(names).ok()?;
        let certificate = params.signed_by(&self.key, &AUTHORITY).ok()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = provider().key_provider.load_private_key(key).ok()?;
        Some(Arc::new(CertifiedKey::new(
            vec![certificate.der().clone()],
            key,
        )))
    }
}

/// A certificate for `name` from [`authority_pem`], and its key, for servers that are other
/// programs.
pub fn certificate_pem(name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &AUTHORITY).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// The cryptography of all rustls ends in the tests.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Trusts the certificates of [`tls`] and nothing else.
pub fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority: &CertificateDer<'static> = AUTHORITY.der();
    roots.add(authority.clone()).expect("a valid certificate");
    roots
}

/// The authority of the certificates of [`tls`], for clients that are other programs.
pub fn authority_pem() -> String {
    AUTHORITY.pem()
}
