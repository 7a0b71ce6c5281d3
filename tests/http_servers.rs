//! Real servers behind the proxy: nginx, HAProxy, Python's and Go's. What a client gets through the proxy
//! is what it gets from the server itself, whatever it asks for and however it asks.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::backend::pattern;
use support::http::{Message, Wire};
use support::port::free_address;
use support::proxy::{Options, Proxy};
use support::{client, wait_until};

/// A server in a process of its own, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// # Panics
    /// When the program is not there or does not listen.
    fn start(program: &str, package: &str, args: &[&str], address: SocketAddr) -> Server {
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {package}"));
        wait_until(&format!("{program} listens"), client::PATIENCE, || {
            TcpStream::connect(address).is_ok()
        });
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // As a service manager would: nginx ends its workers then.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

const LARGE: usize = 3 << 20;

fn site(directory: &Path) {
    std::fs::write(directory.join("small.txt"), "a small file\n").expect("our own");
    std::fs::write(directory.join("large.bin"), pattern(LARGE)).expect("our own");
    std::fs::write(directory.join("empty.txt"), "").expect("our own");
}

fn nginx(directory: &Path) -> Server {
    let address = free_address();
    let top = directory.display();
    let config = directory.join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes 1; pid {top}/nginx.pid; error_log {top}/error.log; user root;
        events {{ }}
        http {{ access_log off; client_body_temp_path {top}/b; proxy_temp_path {top}/p;
        fastcgi_temp_path {top}/f; uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;
        gzip on; gzip_min_length 1; gzip_types *; keepalive_requests 7;
        server {{ listen {address}; root {top}; client_max_body_size 100m;
        location = /moved {{ return 301 /small.txt; }} location = /none {{ return 204; }}
        location = /close {{ keepalive_timeout 0; return 200 closed; }} }} }}"
    );
    std::fs::write(&config, text).expect("our own");
    let config = config.to_str().expect("text");
    Server::start("nginx", "nginx", &["-c", config], address)
}

fn haproxy(directory: &Path, behind: SocketAddr) -> Server {
    let address = free_address();
    let config = directory.join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout client 9s\n timeout server 9s\n timeout connect 9s\n \
         timeout http-keep-alive 200ms\nfrontend f\n bind {address}\n default_backend b\nbackend \
         b\n server s {behind}\n"
    );
    std::fs::write(&config, text).expect("our own");
    let config = config.to_str().expect("text");
    Server::start("haproxy", "haproxy", &["-q", "-db", "-f", config], address)
}

fn python(directory: &Path, version: &str) -> Server {
    let address = free_address();
    let script = "import http.server, sys\nclass H(http.server.SimpleHTTPRequestHandler):\n\x20   \
        protocol_version = sys.argv[3]\n\x20   def log_message(self, *a): pass\n\x20   def \
        do_POST(self):\n\x20       body = self.rfile.read(int(self.headers.get('Content-Length', \
        0)))\n\x20       self.send_response(200); self.send_header('Content-Length', \
        str(len(body))); self.end_headers(); self.wfile.write(body)\nh = lambda *a: H(*a, \
        directory=sys.argv[2])\nhttp.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), \
        h).serve_forever()\n";
    let port = address.port().to_string();
    let top = directory.to_str().expect("text");
    Server::start(
        "python3",
        "python3",
        &["-c", script, &port, top, version],
        address,
    )
}

fn go(directory: &Path) -> Server {
    let address = free_address();
    let source = directory.join("server.go");
    let binary = directory.join("server");
    let text = r#"package main
import ("io"; "net/http"; "os")
func main() {
    files := http.FileServer(http.Dir(os.Args[2]))
    http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
        switch {
        case r.Method == "POST": io.Copy(w, r.Body)
        case r.URL.Path == "/none": w.WriteHeader(204)
        case r.URL.Path == "/moved": http.Redirect(w, r, "/small.txt", 301)
        case r.URL.Path == "/close": w.Header().Set("Connection", "close"); io.WriteString(w, "closed")
        default: files.ServeHTTP(w, r)
        }
    }))
}
"#;
    std::fs::write(&source, text).expect("our own");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg(&source)
        .env("GOCACHE", std::env::temp_dir().join("pointsman-go-cache"))
        .env("GO111MODULE", "off")
        .output()
        .expect("go: apt-get install golang-go");
    assert!(built.status.success(), "{built:?}");
    let binary = binary.to_str().expect("text");
    let top = directory.to_str().expect("text");
    Server::start(binary, "golang-go", &[&address.to_string(), top], address)
}

/// What of a response must not differ. Dates do, and what belongs to one connection.
fn essence(message: &Message) -> (u16, Vec<String>, Vec<u8>) {
    let mut fields: Vec<String> = message
        .head
        .lines()
        .skip(1)
        .map(str::to_ascii_lowercase)
        .filter(|line| {
            let of_connection = ["date:", "connection:", "keep-alive:", "transfer-encoding:"];
            !of_connection.iter().any(|name| line.starts_with(name)) && !line.is_empty()
        })
        .collect();
    fields.sort();
    (message.status(), fields, message.body.clone())
}

fn requests() -> Vec<(&'static str, String)> {
    let get =
        |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    vec![
        ("GET", get("/small.txt", "")),
        ("GET", get("/large.bin", "")),
        ("GET", get("/empty.txt", "")),
        ("GET", get("/missing", "")),
        ("GET", get("/moved", "")),
        ("GET", get("/none", "")),
        ("GET", get("/close", "")),
        ("GET", get("/small.txt", "Accept-Encoding: gzip\r\n")),
        ("GET", get("/large.bin", "Range: bytes=5-10\r\n")),
        (
            "GET",
            get(
                "/small.txt",
                "If-Modified-Since: Fri, 31 Dec 2099 00:00:00 GMT\r\n",
            ),
        ),
        ("HEAD", get("/large.bin", "").replacen("GET", "HEAD", 1)),
        ("HEAD", get("/missing", "").replacen("GET", "HEAD", 1)),
        (
            "GET",
            get("/small.txt", "").replacen("HTTP/1.1", "HTTP/1.0", 1),
        ),
        (
            "POST",
            get("/small.txt", "Content-Length: 4\r\n").replacen("GET", "POST", 1) + "body",
        ),
    ]
}

fn ask(address: SocketAddr, method: &str, request: &str) -> Message {
    let mut wire = Wire::connect(address);
    wire.send(request);
    match method {
        "HEAD" => wire.response_head(),
        _ => wire.response(),
    }
}

fn differ_in_nothing(server: &Server, proxy: &Proxy) {
    let mut kept = Wire::connect(proxy.http());
    for round in 0..2 {
        for (method, request) in requests() {
            let direct = essence(&ask(server.address, method, &request));
            let through = essence(&ask(proxy.http(), method, &request));
            assert!(
                direct == through,
                "{round}, {request}: {:?} {:?}",
                direct.1,
                through.1
            );
            // The same on a connection that carries all of them.
            if request.contains("HTTP/1.0") {
                continue;
            }
            kept.send(&request);
            let again = match method {
                "HEAD" => kept.response_head(),
                _ => kept.response(),
            };
            let ends = again.field("connection") == Some("close");
            assert!(
                essence(&again) == direct,
                "{round}, kept: {request}: {:?}",
                again.head
            );
            if ends {
                kept = Wire::connect(proxy.http());
            }
        }
    }
}

fn through(server: &Server) -> Proxy {
    Options::new()
        .route("a.test", &[&server.address.to_string()])
        .start()
}

#[test]
fn nginx_is_the_same_through_the_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    site(directory.path());
    let server = nginx(directory.path());
    differ_in_nothing(&server, &through(&server));
}

#[test]
fn haproxy_is_the_same_through_the_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    site(directory.path());
    let behind = nginx(directory.path());
    let server = haproxy(directory.path(), behind.address);
    differ_in_nothing(&server, &through(&server));
}

#[test]
fn pythons_server_is_the_same_through_the_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    site(directory.path());
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let server = python(directory.path(), version);
        differ_in_nothing(&server, &through(&server));
    }
}

#[test]
fn gos_server_is_the_same_through_the_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    site(directory.path());
    let server = go(directory.path());
    differ_in_nothing(&server, &through(&server));
}

#[test]
fn curl_wrk_and_h2load_get_through() {
    let directory = tempfile::tempdir().expect("a directory");
    site(directory.path());
    let server = nginx(directory.path());
    let echo = python(directory.path(), "HTTP/1.1");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&server.address.to_string()])
        .route("echo.test", &[&echo.address.to_string()])
        .start();
    let http = proxy.http();
    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail", "--max-time", "20"])
            .args(args);
        let output = command.output().expect("curl: apt-get install curl");
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    };
    let url = |path: &str| format!("http://{http}{path}");
    // Two on one connection, then an upload that asks first.
    let both = curl(&["-H", "Host: a.test", &url("/small.txt"), &url("/small.txt")]);
    assert_eq!(both, b"a small file\na small file\n");
    let upload = directory.path().join("large.bin");
    let upload = format!("@{}", upload.display());
    for expect in ["Expect: 100-continue", "Expect:"] {
        let back = curl(&[
            "-H",
            "Host: echo.test",
            "-H",
            expect,
            "--data-binary",
            &upload,
            &url("/"),
        ]);
        assert!(back == pattern(LARGE), "{expect}: {} bytes", back.len());
    }
    load(&proxy, &url("/small.txt"));
}

/// The two that ask as fast as they can, on connections that they keep.
fn load(proxy: &Proxy, url: &str) {
    let wrk = Command::new("wrk")
        .args(["-t2", "-c20", "-d2s", "-H", "Host: a.test", url])
        .output()
        .expect("wrk: apt-get install wrk");
    let said = String::from_utf8_lossy(&wrk.stdout);
    assert!(
        wrk.status.success() && said.contains("requests in"),
        "{said}"
    );
    assert!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{said}"
    );
    let _ = std::io::stderr().write_all(said.as_bytes());
    let h2load = Command::new("h2load")
        .args([
            "--h1",
            "-n2000",
            "-c10",
            "-m8",
            &format!("--connect-to={}", proxy.http()),
        ])
        .arg("http://a.test/small.txt")
        .output()
        .expect("h2load: apt-get install nghttp2-client");
    let said = String::from_utf8_lossy(&h2load.stdout);
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored"),
        "{said}"
    );
    let reused = proxy.series("pointsman_upstream_connections_reused_total");
    assert!(reused.expect("a counter") > 1000.0, "{reused:?}");
}
