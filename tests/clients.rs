//! Clients that people use, through the proxy to backends that speak real TLS: each reaches the
//! one it names, verifies its certificate, and sends and fetches bodies whole. openssl and curl
//! are required; python3 and Chromium are used where they are installed.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use support::backend::{self, Backend};
use support::client::{self, Response, tls_connect, tls_connect_with, tls_get};
use support::proxy::{Options, Proxy};
use support::{skipped, wait_until};
use tempfile::TempDir;

/// Chromium alone takes seconds to start; nobody else comes near.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

const CHROMIUM: &str = "/usr/bin/chromium";

/// The proxy before two TLS backends (`a.test`, `b.test`) and two HTTP backends (`a.web.test`,
/// `b.web.test`), whose pages say TLS-A, TLS-B, WEB-A and WEB-B.
struct Site {
    proxy: Proxy,
    directory: TempDir,
    _backends: [Backend; 4],
}

impl Site {
    fn new() -> Site {
        let backends = [
            backend::tls("TLS-A"),
            backend::tls("TLS-B"),
            backend::http("WEB-A"),
            backend::http("WEB-B"),
        ];
        let [tls_a, tls_b, web_a, web_b] = backends.each_ref().map(Backend::member);
        let proxy = Options::new()
            .route("a.test", &[&tls_a])
            .route("b.test", &[&tls_b])
            .route("a.web.test", &[&web_a])
            .route("b.web.test", &[&web_b])
            .start();
        let directory = tempfile::tempdir().expect("a directory");
        let site = Site {
            proxy,
            directory,
            _backends: backends,
        };
        std::fs::write(site.authority(), backend::authority_pem()).expect("a file");
        site
    }

    /// The file of the authority that the backends' certificates come from.
    fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// A file of `bytes` bytes.
    fn file(&self, bytes: usize) -> PathBuf {
        let path = self.directory.path().join(format!("{bytes}.bytes"));
        std::fs::write(&path, backend::pattern(bytes)).expect("a file");
        path
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a client to its end with this on its standard input.
///
/// # Panics
/// When it cannot be started or does not end in time.
fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} is needed by this test: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    // A client that is refused does not read; it says so itself.
    let _ = stdin.write_all(input);
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let deadline = Instant::now() + CLIENT_PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our own child") {
            break status;
        }
        if Instant::now() >= deadline {
            end(&mut child);
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    drop(stdin);
    Output {
        status,
        stdout: stdout.join().expect("it only reads"),
        stderr: stderr.join().expect("it only reads"),
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// `openssl s_client` that verifies the backend's certificate for `name`.
fn s_client(site: &Site, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect"]);
    command.arg(site.proxy.https().to_string());
    command.args(["-servername", name, "-verify_hostname", name]);
    command.arg("-CAfile").arg(site.authority());
    command.arg("-verify_return_error").args(more);
    command
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Long enough to fill records of 512 bytes several times.
fn long_alpn() -> String {
    let names: Vec<String> = (0..8)
        .map(|index| format!("{index}{}", "x".repeat(200)))
        .collect();
    names.join(",")
}

#[test]
fn openssl() {
    let site = Site::new();
    let alpn = long_alpn();
    let in_records = ["-max_send_frag", "512", "-alpn", &alpn];
    let ways: [&[&str]; 5] = [
        &["-tls1_2"],
        &["-tls1_3"],
        &in_records,
        &["-tls1_2", "-max_send_frag", "512", "-alpn", &alpn],
        // rustls has no P-521 and asks for a second hello (HelloRetryRequest).
        &["-groups", "P-521:X25519", "-alpn", "h2,http/1.1"],
    ];
    for way in ways {
        for (name, who) in [("a.test", "TLS-A"), ("b.test", "TLS-B")] {
            let output = run(&mut s_client(&site, name, way), REQUEST);
            let answer = text(&output.stdout);
            assert!(answer.ends_with(who), "{name} {way:?}: {output:?}");
            assert!(output.status.success(), "{name} {way:?}: {output:?}");
        }
    }
    for way in [&["-tls1_2"][..], &["-tls1_3"], &in_records] {
        let output = run(&mut s_client(&site, "unknown.test", way), REQUEST);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{way:?}: {output:?}");
        assert!(said.contains("alert number 112"), "{way:?}: {said}");
    }
    site.proxy.wait_for_outcome("tls", "unknown_name", 3);
}

/// What the test above takes for granted: with these options openssl sends several records.
#[test]
fn openssl_sends_its_hello_in_several_records() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let alpn = long_alpn();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "a.test"])
        .args(["-max_send_frag", "512", "-alpn", &alpn])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is needed by this test");
    let (mut stream, _) = listener.accept().expect("openssl connects");
    let mut first = [0; 5 + 512];
    let mut second = [0; 5];
    let read = stream
        .read_exact(&mut first)
        .and_then(|()| stream.read_exact(&mut second));
    end(&mut child);
    read.expect("two records");
    assert_eq!(first[..1], [22]);
    assert_eq!(first[3..5], [2, 0], "the first record is full");
    assert_eq!(second[..1], [22], "and goes on in a second one");
}

/// `curl` to one of the site's names.
fn curl(site: &Site, url: &str, more: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30"]);
    command.arg("--cacert").arg(site.authority());
    for (names, address) in [
        (["a.test", "b.test", "unknown.test"], site.proxy.https()),
        (
            ["a.web.test", "b.web.test", "unknown.web.test"],
            site.proxy.http(),
        ),
    ] {
        for name in names {
            let resolve = format!("{name}:{}:{}", address.port(), address.ip());
            command.args(["--resolve", &resolve]);
        }
    }
    command.args(more).arg(url);
    command
}

/// The four pages of the site, and who they are from.
fn pages(site: &Site) -> [(String, &'static str); 4] {
    let (https, http) = (site.proxy.https().port(), site.proxy.http().port());
    [
        (format!("https://a.test:{https}"), "TLS-A"),
        (format!("https://b.test:{https}"), "TLS-B"),
        (format!("http://a.web.test:{http}"), "WEB-A"),
        (format!("http://b.web.test:{http}"), "WEB-B"),
    ]
}

#[track_caller]
fn succeeded(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn curl_fetches_pages() {
    let site = Site::new();
    for (page, who) in pages(&site) {
        for way in [
            "--http1.1",
            "--http1.0",
            "--http2",
            "--tlsv1.3",
            "--compressed",
        ] {
            let got = succeeded(run(&mut curl(&site, &page, &[way]), b""));
            assert_eq!(text(&got), who, "{page} {way}");
        }
        // Two requests on one connection: the second reaches the same backend.
        let two = format!("{page}/[1-2]");
        let ways = ["--write-out", " %{num_connects} "];
        let got = succeeded(run(&mut curl(&site, &two, &ways), b""));
        assert_eq!(text(&got), format!("{who} 1 {who} 0 "), "{page}");
    }
}

#[test]
fn curl_is_told_what_is_wrong() {
    let site = Site::new();
    let (https, http) = (site.proxy.https().port(), site.proxy.http().port());
    let status = ["--write-out", "%{http_code}", "--output", "/dev/null"];
    for (url, more, code) in [
        (format!("http://unknown.web.test:{http}/"), &[][..], "421"),
        (
            format!("http://a.web.test:{http}/"),
            &["--header", "Host: a b"],
            "400",
        ),
        (
            format!("http://a.web.test:{http}/"),
            &["--header", "Host:"],
            "400",
        ),
        // Plain HTTP on the TLS port gets a TLS alert, which curl takes for HTTP/0.9.
        (format!("http://a.test:{https}/"), &[], "000"),
    ] {
        let output = run(curl(&site, &url, &status).args(more), b"");
        assert_eq!(text(&output.stdout), code, "{url} {more:?}: {output:?}");
    }
    for (url, outcome, protocol) in [
        (
            format!("https://unknown.test:{https}/"),
            "unknown_name",
            "tls",
        ),
        (
            format!("https://a.web.test:{http}/"),
            "tls_on_http_port",
            "http",
        ),
    ] {
        let output = run(&mut curl(&site, &url, &[]), b"");
        // CURLE_SSL_CONNECT_ERROR
        assert_eq!(output.status.code(), Some(35), "{url}: {output:?}");
        site.proxy.wait_for_outcome(protocol, outcome, 1);
    }
    let url = format!("http://a.web.test:{http}/");
    let output = run(&mut curl(&site, &url, &["--http2-prior-knowledge"]), b"");
    assert!(!output.status.success(), "{output:?}");
    site.proxy.wait_for_outcome("http", "http2_preface", 1);
}

#[test]
fn curl_sends_and_fetches_bodies_whole() {
    const BYTES: usize = 3_000_000;
    let site = Site::new();
    let file = site.file(BYTES);
    let file = file.to_str().expect("a path of ours is text");
    for (page, who) in pages(&site) {
        for way in [
            &["--header", "Expect: 100-continue", "--upload-file", file][..],
            &["--header", "Expect:", "--upload-file", file],
            &["--http1.0", "--upload-file", file],
        ] {
            let url = format!("{page}/upload");
            let got = succeeded(run(&mut curl(&site, &url, way), b""));
            assert_eq!(text(&got), format!("{who} {BYTES}"), "{page} {way:?}");
        }
        let url = format!("{page}/bytes/{BYTES}");
        let got = succeeded(run(&mut curl(&site, &url, &[]), b""));
        assert!(
            got == backend::pattern(BYTES),
            "{page}: {} bytes",
            got.len()
        );
    }
}

#[test]
fn curl_opens_many_connections_at_once() {
    let site = Site::new();
    for (page, who) in pages(&site) {
        // Each asks for the end of its connection, so that each opens its own.
        let url = format!("{page}/[1-40]");
        let many = ["--parallel", "--parallel-immediate", "--http1.0"];
        let got = succeeded(run(&mut curl(&site, &url, &many), b""));
        assert_eq!(text(&got), who.repeat(40), "{page}");
    }
    site.proxy.wait_for_outcome("http", "relayed", 80);
    // curl leaves once it has the body; a close_notify that comes later meets a closed socket.
    wait_until("each is counted once", CLIENT_PATIENCE, || {
        let ends = ["relayed", "client_reset"];
        ends.map(|end| site.proxy.outcome("tls", end))
            .iter()
            .sum::<u64>()
            == 80
    });
}

/// A client of these versions.
fn rustls_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(backend::provider())
        .with_protocol_versions(versions)
        .expect("the provider has the versions")
        .with_root_certificates(backend::roots())
        .with_no_client_auth()
}

#[test]
fn rustls_of_every_version() {
    let site = Site::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for fragment in [None, Some(64)] {
            for (name, who) in [("a.test", "TLS-A"), ("b.test", "TLS-B")] {
                let mut config = rustls_config(&[version]);
                config.max_fragment_size = fragment;
                let mut stream = tls_connect_with(Arc::new(config), site.proxy.https(), name)
                    .expect("a handshake");
                stream.write_all(REQUEST).expect("a request");
                let response = Response::read(&mut stream).expect("an answer");
                assert_eq!(response.text(), who, "{version:?} {fragment:?}");
                // The end comes as TLS wants it: a close_notify, then the end of the stream.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).expect("a clean end");
                assert!(rest.is_empty());
            }
        }
    }
}

#[test]
fn rustls_resumes_and_keeps_a_connection() {
    let site = Site::new();
    let config = rustls_config(rustls::DEFAULT_VERSIONS);
    let config = Arc::new(config);
    let mut resumed = 0;
    for _ in 0..3 {
        let mut stream =
            tls_connect_with(config.clone(), site.proxy.https(), "a.test").expect("a handshake");
        for _ in 0..5 {
            write!(stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("a request");
            let response = Response::read(&mut stream).expect("an answer");
            assert_eq!(response.text(), "TLS-A");
        }
        let kind = stream.conn.handshake_kind();
        resumed += usize::from(kind == Some(rustls::HandshakeKind::Resumed));
    }
    assert_eq!(resumed, 2, "a ticket in the hello is in nobody's way");
    let bytes = 1_000_000;
    let response = tls_get(site.proxy.https(), "b.test", &format!("/bytes/{bytes}"));
    assert!(response.expect("an answer").body == backend::pattern(bytes));
    let error = tls_connect(site.proxy.https(), "unknown.test").expect_err("nobody is there");
    let alert = client::alert_of(&error);
    assert_eq!(alert, Some(rustls::AlertDescription::UnrecognisedName));
}

/// Prints what the page of each name says, or the reason why there is none.
const PYTHON: &str = r#"
import socket, ssl, sys
port, authority, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
context = ssl.create_default_context(cafile=authority)
for name in names:
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: tls.recv(4096), b""))
                print(tls.version(), answer.split(b"\r\n\r\n")[1].decode())
    except ssl.SSLError as error:
        print(error.reason)
"#;

#[test]
fn python() {
    let site = Site::new();
    let port = site.proxy.https().port().to_string();
    if Command::new("python3").arg("--version").output().is_err() {
        return skipped("python3 is not installed");
    }
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON, &port]).arg(site.authority());
    command.args(["a.test", "b.test", "unknown.test"]);
    let got = text(&succeeded(run(&mut command, b"")));
    let lines: Vec<&str> = got.lines().collect();
    assert_eq!(
        lines,
        ["TLSv1.3 TLS-A", "TLSv1.3 TLS-B", "TLSV1_UNRECOGNIZED_NAME"]
    );
}

/// The document of a page as Chromium sees it. Names beside the site's lead nowhere.
fn chromium(site: &Site, profile: &Path, url: &str) -> String {
    let to = |address: SocketAddr| format!("{}:{}", address.ip(), address.port());
    let (https, http) = (to(site.proxy.https()), to(site.proxy.http()));
    let rules = format!(
        "MAP a.test:443 {https}, MAP b.test:443 {https}, MAP a.web.test:80 {http}, MAP \
         b.web.test:80 {http}, MAP * ~NOTFOUND"
    );
    let mut command = Command::new(CHROMIUM);
    command.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    command.args(["--disable-dev-shm-usage", "--disable-background-networking"]);
    command.args(["--no-first-run", "--disable-component-update"]);
    // Chromium has no option for one more authority.
    command.arg("--ignore-certificate-errors");
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("--host-resolver-rules={rules}"));
    command.args(["--dump-dom", url]);
    text(&succeeded(run(&mut command, b"")))
}

#[test]
fn a_browser() {
    if !Path::new(CHROMIUM).exists() {
        return skipped("Chromium is not installed");
    }
    let site = Site::new();
    let profile = tempfile::tempdir().expect("a directory");
    for (url, who) in [
        ("https://a.test/", "TLS-A"),
        ("https://b.test/", "TLS-B"),
        ("http://a.web.test/", "WEB-A"),
        ("http://b.web.test/", "WEB-B"),
    ] {
        let document = chromium(&site, profile.path(), url);
        assert!(
            document.contains(&format!("<body>{who}")),
            "{url}: {document}"
        );
    }
}
