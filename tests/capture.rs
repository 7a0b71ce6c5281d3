//! The parsers of first bytes held against what the clients of this machine send now, not only against what
//! stored captures say they once sent.
//!
//! A plain listener on loopback stands where the proxy would, reads until the parser has an
//! answer, and hangs up. `openssl` and `curl` are required; Chromium is used where it is installed.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::internals::http::{FieldStorage, Reading, RequestReader};
use pointsman::internals::refusal::Refusal;
use pointsman::internals::sniff::{Head, Sniff, Sniffer};

/// The defaults of `hello-bytes-max` and `request-head-bytes-max`.
const HELLO_BYTES_MAX: usize = 65_536;
const REQUEST_HEAD_BYTES_MAX: usize = 32_768;

/// Within which a client has to connect and send its head; Chromium takes seconds to start.
const CLIENT_DEADLINE: Duration = Duration::from_secs(60);

const CHROMIUM: &str = "/usr/bin/chromium";

/// A client process that is ended, by its own id, with the test.
struct Client(Child);

impl Client {
    fn start(program: &str, arguments: &[&str]) -> Client {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Client(child.unwrap_or_else(|error| panic!("{program} is needed by this test: {error}")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.set_nonblocking(true).expect("a listener can poll");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

fn accept(listener: &TcpListener, deadline: Instant) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a stream can block");
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "the client did not connect");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Reads one connection until `parse`, which gets all that was received, has an answer; `None` when the
/// client left.
fn read<T>(mut stream: TcpStream, mut parse: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    stream
        .set_read_timeout(Some(CLIENT_DEADLINE))
        .expect("a deadline can be set");
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).expect("the client sends its head");
        received.extend_from_slice(&buffer[..length]);
        let verdict = parse(&received);
        if verdict.is_some() || length == 0 {
            return verdict;
        }
    }
}

/// [`Sniff::More`] when the client left.
fn read_hello(stream: TcpStream) -> Sniff {
    let mut sniffer = Sniffer::new(HELLO_BYTES_MAX);
    let read = read(stream, |received| {
        Some(sniffer.advance(received)).filter(|verdict| *verdict != Sniff::More)
    });
    read.unwrap_or(Sniff::More)
}

/// The host of the request that a client sends.
fn read_request(stream: TcpStream) -> Result<Option<String>, Refusal> {
    let mut reader = RequestReader::new(REQUEST_HEAD_BYTES_MAX);
    let read = read(stream, |received| {
        match reader.advance(received, &mut FieldStorage::new()) {
            Reading::Found(head) => Some(Ok(head.host.map(|host| host.to_string()))),
            Reading::Refused(refusal) => Some(Err(refusal)),
            Reading::More => None,
        }
    });
    read.expect("the client sends a whole head")
}

/// Runs a client and accepts its first connection; `{port}` in the arguments is filled in.
fn connection_of(program: &str, arguments: &[&str]) -> (Client, TcpStream) {
    let (listener, port) = listen();
    let filled: Vec<String> = arguments
        .iter()
        .map(|argument| argument.replace("{port}", &port.to_string()))
        .collect();
    let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
    let client = Client::start(program, &filled);
    let stream = accept(&listener, Instant::now() + CLIENT_DEADLINE);
    (client, stream)
}

fn hello_of(program: &str, arguments: &[&str]) -> Sniff {
    let (_client, stream) = connection_of(program, arguments);
    read_hello(stream)
}

fn request_of(program: &str, arguments: &[&str]) -> Result<Option<String>, Refusal> {
    let (_client, stream) = connection_of(program, arguments);
    read_request(stream)
}

fn found(verdict: Sniff) -> Head {
    match verdict {
        Sniff::Found(head) => head,
        other => panic!("a real client is refused or not understood: {other:?}"),
    }
}

fn name(head: &Head) -> Option<&str> {
    head.name.as_ref().map(|name| name.as_str())
}

#[test]
fn openssl() {
    let plain = ["s_client", "-connect", "127.0.0.1:{port}"];
    let runs: [(&[&str], Option<&str>); 6] = [
        (&["-servername", "a.test"], Some("a.test")),
        (&["-servername", "A.Test.", "-tls1_2"], Some("a.test")),
        (
            &[
                "-servername",
                "a.test",
                "-tls1",
                "-cipher",
                "ALL:@SECLEVEL=0",
            ],
            Some("a.test"),
        ),
        (
            &[
                "-servername",
                "a.test",
                "-max_send_frag",
                "512",
                "-groups",
                "ffdhe8192",
            ],
            Some("a.test"),
        ),
        (&["-servername", "192.0.2.7"], Some("192.0.2.7")),
        (&["-noservername"], None),
    ];
    for (options, want) in runs {
        let arguments = [&plain, options].concat();
        let head = found(hello_of("openssl", &arguments));
        assert_eq!(name(&head), want, "{options:?}");
    }
    let arguments = [&plain[..], &["-alpn", "h2,http/1.1"]].concat();
    let head = found(hello_of("openssl", &arguments));
    assert_eq!(&*head.alpn, "h2,http/1.1");
}

#[test]
fn curl_with_tls() {
    let arguments = [
        "-sk",
        "--connect-to",
        "a.test:443:127.0.0.1:{port}",
        "https://a.test/",
    ];
    let head = found(hello_of("curl", &arguments));
    assert_eq!(name(&head), Some("a.test"));
    assert!(head.alpn.contains("http/1.1"));
}

#[test]
fn curl_with_http() {
    let here = ["-s", "--connect-to", "::127.0.0.1:{port}"];
    let proxied = ["-s", "-x", "127.0.0.1:{port}"];
    let runs: [(&[&str], &[&str], &str); 5] = [
        (&here, &["http://A.test/"], "a.test"),
        (&here, &["http://a.test:8080/"], "a.test"),
        (&here, &["-0", "http://a.test/"], "a.test"),
        (&here, &["http://[2001:db8::1]/"], "[2001:db8::1]"),
        (&proxied, &["http://b.test:8080/"], "b.test"),
    ];
    for (common, options, want) in runs {
        let arguments = [common, options].concat();
        let host = request_of("curl", &arguments);
        assert_eq!(host, Ok(Some(want.to_owned())), "{options:?}");
    }
}

#[test]
fn curl_at_the_wrong_port() {
    let tls = request_of("curl", &["-sk", "https://127.0.0.1:{port}/"]);
    assert_eq!(tls, Err(Refusal::TlsOnHttpPort));
    let http = hello_of("curl", &["-s", "http://127.0.0.1:{port}/"]);
    assert_eq!(http, Sniff::Refused(Refusal::HttpOnTlsPort));
    let http2 = ["-s", "--http2-prior-knowledge", "http://127.0.0.1:{port}/"];
    assert_eq!(request_of("curl", &http2), Err(Refusal::Http2Preface));
}

/// `fragment` is the most bytes rustls puts into a record, its header included.
fn sniff_rustls(fragment: Option<usize>) -> Head {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.max_fragment_size = fragment;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = "a.test".try_into().expect("a name");
    let mut client =
        rustls::ClientConnection::new(Arc::new(config), server).expect("a sound configuration");
    let (listener, port) = listen();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("loopback connects");
    while client.wants_write() {
        client
            .write_tls(&mut stream)
            .expect("the listener is there");
    }
    let deadline = Instant::now() + CLIENT_DEADLINE;
    found(read_hello(accept(&listener, deadline)))
}

#[test]
fn rustls_whole_and_in_fragments() {
    for fragment in [None, Some(32), Some(64)] {
        let head = sniff_rustls(fragment);
        assert_eq!(name(&head), Some("a.test"), "{fragment:?}");
        assert_eq!(&*head.alpn, "h2,http/1.1");
    }
}

#[test]
fn chromium() {
    if !Path::new(CHROMIUM).exists() {
        println!("{CHROMIUM} is not installed: its hello was not checked");
        return;
    }
    let profile = tempfile::tempdir().expect("a place for the profile");
    let (listener, port) = listen();
    let rules = format!("--host-resolver-rules=MAP a.test:443 127.0.0.1:{port}");
    let profile_option = format!("--user-data-dir={}", profile.path().display());
    let _client = Client::start(
        CHROMIUM,
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            &profile_option,
            &rules,
            "https://a.test/",
        ],
    );
    let deadline = Instant::now() + CLIENT_DEADLINE;
    // A browser may connect ahead and leave without a word.
    loop {
        match read_hello(accept(&listener, deadline)) {
            Sniff::More => continue,
            verdict => {
                let head = found(verdict);
                assert_eq!(name(&head), Some("a.test"));
                assert!(head.alpn.contains("h2"));
                return;
            }
        }
    }
}
