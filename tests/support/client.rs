//! Clients: of TLS and of plain HTTP, one that sends bytes in pieces of any size, and a builder of
//! ClientHellos that no library would send.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::backend;

/// The longest that a client waits for a byte before its test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const UNEXPECTED_MESSAGE: u8 = 10;
pub const RECORD_OVERFLOW: u8 = 22;
pub const DECODE_ERROR: u8 = 50;
pub const PROTOCOL_VERSION: u8 = 70;
pub const INTERNAL_ERROR: u8 = 80;
pub const UNRECOGNIZED_NAME: u8 = 112;

/// Connects, sends small pieces at once, and gives up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket option");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket option");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a socket option");
    stream
}

/// As [`connect`], from this address of loopback.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    let source = SocketAddr::new(source, 0);
    socket.bind(&source.into()).expect("an address of loopback");
    socket.connect(&address.into()).expect("the proxy listens");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("a socket option");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket option");
    stream
}

/// Everything that came back on a connection, and whether it ended with a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub reset: bool,
}

impl Answer {
    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// When there is no end within [`PATIENCE`].
    pub fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let reset = match stream.read_to_end(&mut bytes) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        };
        Answer { bytes, reset }
    }

    /// The description of the TLS alert, if the answer is one alert and nothing else.
    pub fn alert(&self) -> Option<u8> {
        match self.bytes[..] {
            [21, 3, _, 0, 2, 2, description] => Some(description),
            _ => None,
        }
    }

    /// The status, if the answer is one HTTP response and nothing else.
    pub fn status(&self) -> Option<u16> {
        Response::parse(&self.bytes).map(|response| response.status)
    }

    /// The name and the received bytes in an answer of [`backend::echo`].
    pub fn echoed(&self) -> Option<(&str, &[u8])> {
        let mut bytes = &self.bytes[..];
        if bytes.starts_with(b"HTTP/1.1 200 ") {
            let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
            bytes = &bytes[head_end + 4..];
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let name = std::str::from_utf8(&bytes[..end]).ok()?;
        Some((name, &bytes[end + 1..]))
    }
}

/// How bytes are cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Whole,
    /// Two pieces with a pause between them, so that the proxy reads one and then the other.
    At(usize),
    EveryByte,
}

/// Between two pieces that must not arrive together.
const PAUSE: Duration = Duration::from_millis(30);

/// Sends `bytes` in the pieces of `cut`. It ignores that the peer has closed meanwhile: the test reads what
/// the peer sent before.
pub fn send_cut(stream: &mut TcpStream, bytes: &[u8], cut: Cut) {
    match cut {
        Cut::Whole => _ = stream.write_all(bytes),
        Cut::At(at) => {
            _ = stream.write_all(&bytes[..at]);
            std::thread::sleep(PAUSE);
            _ = stream.write_all(&bytes[at..]);
        }
        Cut::EveryByte => {
            for byte in bytes {
                if stream.write_all(std::slice::from_ref(byte)).is_err() {
                    return;
                }
            }
        }
    }
}

/// Connects, sends `bytes` in the pieces of `cut`, finishes sending and reads to the end.
pub fn exchange(address: SocketAddr, bytes: &[u8], cut: Cut) -> Answer {
    let mut stream = connect(address);
    send_cut(&mut stream, bytes, cut);
    let _ = stream.shutdown(Shutdown::Write);
    Answer::read(&mut stream)
}

/// An HTTP/1 response with its whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Reads a response that ends with its Content-Length or with the connection.
    pub fn read(stream: &mut impl Read) -> io::Result<Response> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(response) = Response::parse(&bytes) {
                return Ok(response);
            }
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// `None` when the bytes are not one whole response.
    pub fn parse(bytes: &[u8]) -> Option<Response> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
        let body = &bytes[end + 4..];
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(field, _)| field.eq_ignore_ascii_case("content-length"))?;
        if length.1.parse() != Ok(body.len()) {
            return None;
        }
        Some(Response {
            status,
            head,
            body: body.to_vec(),
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not text)")
    }
}

/// The head of a request for `/`.
pub fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// One request on a connection of its own.
pub fn http_get(address: SocketAddr, host: &str, path: &str) -> io::Result<Response> {
    let mut stream = connect(address);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    Response::read(&mut stream)
}

/// A TLS connection of rustls.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A TLS client that trusts the test backends and has finished its handshake. `name` is the SNI; if it is an
/// IP address, no SNI is sent.
pub fn tls_connect(address: SocketAddr, name: &str) -> io::Result<TlsStream> {
    tls_connect_with(Arc::new(tls_config()), address, name)
}

/// A client that trusts the test backends and offers no ALPN.
pub fn tls_config() -> ClientConfig {
    ClientConfig::builder_with_provider(backend::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .with_root_certificates(backend::roots())
        .with_no_client_auth()
}

/// As [`tls_connect`], with a configuration of the test's own.
pub fn tls_connect_with(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> io::Result<TlsStream> {
    tls_over(config, connect(address), name)
}

/// As [`tls_connect_with`], on an open connection.
pub fn tls_over(
    config: Arc<ClientConfig>,
    mut stream: TcpStream,
    name: &str,
) -> io::Result<TlsStream> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// One request over TLS on a connection of its own.
pub fn tls_get(address: SocketAddr, name: &str, path: &str) -> io::Result<Response> {
    let mut stream = tls_connect(address, name)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    )?;
    let response = Response::read(&mut stream)?;
    // Closing before the backend's close_notify has come would reset the connection.
    stream.read_to_end(&mut Vec::new())?;
    Ok(response)
}

/// The TLS alert that a failed [`tls_connect`] has received.
pub fn alert_of(error: &io::Error) -> Option<rustls::AlertDescription> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// A ClientHello made of the extensions that a test wants.
#[derive(Debug, Clone)]
pub struct Hello {
    /// `None`: the hello ends before the extensions, which are optional (RFC 5246 section 7.4.1.2).
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

const EXTENSION_SERVER_NAME: u16 = 0;
/// RFC 7685.
const EXTENSION_PADDING: u16 = 21;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;

impl Hello {
    /// A hello of TLS 1.3 without a name.
    pub fn new() -> Hello {
        Hello {
            extensions: Some(vec![(EXTENSION_SUPPORTED_VERSIONS, vec![2, 3, 4])]),
        }
    }

    /// A hello with this SNI.
    pub fn named(name: &str) -> Hello {
        Hello::new().sni(name.as_bytes())
    }

    /// A hello that ends before its extensions.
    pub fn without_extensions() -> Hello {
        Hello { extensions: None }
    }

    /// Adds a server_name extension with one host_name.
    pub fn sni(self, name: &[u8]) -> Hello {
        let mut data = Vec::new();
        data.extend(length16(name.len() + 3));
        data.push(0);
        data.extend(length16(name.len()));
        data.extend_from_slice(name);
        self.extension(EXTENSION_SERVER_NAME, data)
    }

    pub fn extension(mut self, kind: u16, data: Vec<u8>) -> Hello {
        self.extensions.get_or_insert_default().push((kind, data));
        self
    }

    /// Adds a padding extension that brings the handshake message to `bytes`.
    pub fn padded_to(self, bytes: usize) -> Hello {
        let bare = self.clone().extension(EXTENSION_PADDING, Vec::new());
        let missing = bytes - bare.message().len();
        self.extension(EXTENSION_PADDING, vec![0; missing])
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([0x5a; 32]);
        body.push(32);
        body.extend([0xa5; 32]);
        body.extend([0, 4, 0x13, 0x01, 0x13, 0x02]);
        body.extend([1, 0]);
        if let Some(extensions) = &self.extensions {
            let mut block = Vec::new();
            for (kind, data) in extensions {
                block.extend(kind.to_be_bytes());
                block.extend(length16(data.len()));
                block.extend_from_slice(data);
            }
            body.extend(length16(block.len()));
            body.extend(block);
        }
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    /// The message in one record.
    ///
    /// # Panics
    /// When it is larger than a record may be.
    pub fn record(&self) -> Vec<u8> {
        let message = self.message();
        records(&message, &[message.len()])
    }
}

/// A handshake message in records of these sizes, the last of them repeated until it ends.
pub fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    const RECORD_BYTES_MAX: usize = 1 << 14;
    let mut bytes = Vec::new();
    let mut rest = message;
    let mut sizes = sizes.iter();
    let mut size = RECORD_BYTES_MAX;
    while !rest.is_empty() {
        size = *sizes.next().unwrap_or(&size);
        assert!((1..=RECORD_BYTES_MAX).contains(&size), "{size}");
        let (content, left) = rest.split_at(size.min(rest.len()));
        bytes.extend([22, 3, 1]);
        bytes.extend(length16(content.len()));
        bytes.extend_from_slice(content);
        rest = left;
    }
    bytes
}

fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("what has two bytes of length is shorter")
        .to_be_bytes()
}
