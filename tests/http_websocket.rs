//! A browser's WebSocket through the proxy to a server of the `websockets` library: small and large
//! messages, text and binary, each sent back as it came. The page is Chromium's, what it found is
//! read from its document.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use support::backend::Backend;
use support::http::scripted;
use support::port::free_address;
use support::proxy::Options;
use support::{client, skipped, wait_until};

const CHROMIUM: &str = "/usr/bin/chromium";
/// Debian's, whatever else is in the path: python3-websockets is installed for this one.
const PYTHON: &str = "/usr/bin/python3";

/// Sends back every message.
const SERVER: &str = r#"
import asyncio, sys, websockets
async def serve(socket, *_):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), max_size=None, compression=None):
        await asyncio.Future()
asyncio.run(main())
"#;

/// The image keeps the page from being loaded, and so from being looked at, until the page says that
/// it is done.
const PAGE: &str = r#"<!doctype html><body><img src="/loaded"><p id="said"></p><script>
const said = [], large = "0123456789abcdef".repeat(100000), bytes = new Uint8Array(5 << 20);
for (let at = 0; at < bytes.length; at++) bytes[at] = at * 7 + (at >> 8);
const messages = ["hello", "", large, bytes, "again"];
const socket = new WebSocket("ws://socket.test/chat");
socket.binaryType = "arraybuffer";
function done(how) {
  document.getElementById("said").textContent = said.concat(how).join(" ");
  fetch("/done");
}
function same(got, sent) {
  if (typeof sent === "string") return got === sent;
  const all = new Uint8Array(got);
  return all.length === sent.length && all.every((byte, at) => byte === sent[at]);
}
socket.onopen = () => socket.send(messages[0]);
socket.onmessage = event => {
  const sent = messages[said.length];
  said.push(same(event.data, sent) ? "same" : "different");
  if (said.length < messages.length) socket.send(messages[said.length]); else socket.close(1000, "enough");
};
socket.onclose = event => done("closed " + event.code + " " + event.wasClean);
</script></body>"#;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo_server() -> (Server, SocketAddr) {
    let address = free_address();
    let child = Command::new(PYTHON)
        .args(["-c", SERVER, &address.port().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .expect("python3: apt-get install python3-websockets");
    let server = Server(child);
    wait_until("websockets listens", client::PATIENCE, || {
        TcpStream::connect(address).is_ok()
    });
    (server, address)
}

fn site() -> Backend {
    let is_done = Arc::new((Mutex::new(false), Condvar::new()));
    scripted(move |request, _| {
        let (done, changed) = &*is_done;
        let path = request.head.split(' ').nth(1).expect("a target");
        let body = match path {
            "/" => PAGE,
            "/loaded" => {
                let done = done.lock().expect("no panic");
                let wait = changed.wait_timeout_while(done, Duration::from_secs(30), |done| !*done);
                drop(wait.expect("no panic"));
                ""
            }
            "/done" => {
                *done.lock().expect("no panic") = true;
                changed.notify_all();
                ""
            }
            _ => "",
        };
        let length = body.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\n";
        Some(format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes())
    })
}

#[test]
fn a_browsers_websocket_is_carried() {
    if !Path::new(CHROMIUM).exists() {
        return skipped("Chromium is not installed");
    }
    let (_server, socket) = echo_server();
    let site = site();
    let proxy = Options::new()
        .route("page.test", &[&site.member()])
        .route("socket.test", &[&socket.to_string()])
        .start();
    let profile = tempfile::tempdir().expect("a directory");
    let http = proxy.http();
    let output = Command::new("timeout")
        .args(["60", CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--disable-background-networking"])
        .args(["--no-first-run", "--disable-component-update"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!(
            "--host-resolver-rules=MAP page.test:80 {http}, MAP socket.test:80 {http}, MAP * ~NOTFOUND"
        ))
        .args(["--dump-dom", "http://page.test/"])
        .output()
        .expect("timeout is of coreutils");
    let document = String::from_utf8_lossy(&output.stdout);
    assert!(
        document.contains("<p id=\"said\">same same same same same closed 1000 true</p>"),
        "{document}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The tunnel splices what is large.
    let spliced = proxy.series("pointsman_relayed_bytes_total{method=\"splice\"}");
    assert!(spliced.expect("a counter") > 1e6, "{spliced:?}");
}
