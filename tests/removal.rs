//! A backend leaves its host while it has connections: nothing happens to them, or they end in time,
//! or at once, as the host's option `removal` says; and nobody else notices.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::backend::{self, Backend};
use support::client::{self, Hello};
use support::http::{Wire, scripted};
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::{assert_stays, wait_until};

const SOON: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(1);

/// A proxy with two cores that follows a Redis.
struct Rig {
    proxy: Proxy,
    redis: RedisServer,
}

impl Rig {
    /// With hosts as `(name, removal, backends)`.
    fn start(hosts: &[(&str, &str, &[&Backend])]) -> Rig {
        let redis = RedisServer::start();
        for (host, removal, backends) in hosts {
            // At random, so that each backend is met again and again, whoever has fewer connections.
            let options = format!("removal {removal} balance random");
            redis.run(&[&format!("HSET hostnames:{host}:options {options}")]);
            for backend in *backends {
                redis.run(&[&add(host, backend)]);
            }
        }
        let options = Options::new().cores("0-1").args(&["--redis", &redis.url()]);
        let proxy = options.args(&["--h2c", "yes"]).start();
        Rig { proxy, redis }
    }

    /// Gives a command and waits until every core has what comes of it.
    fn change(&self, commands: &[&str]) {
        let before = self.proxy.status()["sync"]["version"].as_u64();
        self.redis.run(commands);
        wait_until("the change is on every core", SOON, || {
            let newest = self.proxy.status()["sync"]["version"].as_u64();
            let versions = self.proxy.per_core("table_version");
            newest > before && versions.iter().all(|version| Some(*version) == newest)
        });
    }

    /// Live tunnels to a backend, at least one on each core.
    fn tunnels(&self, name: &str, backend: &str) -> Vec<Tunnel> {
        let mut tunnels: Vec<Tunnel> = Vec::new();
        let before = self.proxy.per_core("live");
        loop {
            tunnels.push(Tunnel::open(&self.proxy, name, backend));
            let live = self.proxy.per_core("live");
            if live.iter().zip(&before).all(|(live, before)| live > before) {
                return tunnels;
            }
        }
    }
}

fn add(host: &str, backend: &Backend) -> String {
    format!("SADD hostnames:{host}:backends {}", backend.member())
}

fn remove(host: &str, backend: &Backend) -> String {
    format!("SREM hostnames:{host}:backends {}", backend.member())
}

/// A connection of the TLS port to an echo.
struct Tunnel {
    stream: TcpStream,
}

impl Tunnel {
    /// Opens connections until one is with `backend`.
    fn open(proxy: &Proxy, name: &str, backend: &str) -> Tunnel {
        loop {
            let mut stream = client::connect(proxy.https());
            let hello = Hello::named(name).record();
            stream.write_all(&hello).expect("the proxy reads");
            let mut name = Vec::new();
            while name.last() != Some(&b'\n') {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("an echo says its name");
                name.push(byte[0]);
            }
            let mut back = vec![0; hello.len()];
            stream.read_exact(&mut back).expect("the hello comes back");
            if name.strip_suffix(b"\n") == Some(backend.as_bytes()) {
                return Tunnel { stream };
            }
        }
    }

    fn works(&mut self) -> bool {
        let mut back = [0; 4];
        let sent = self.stream.write_all(b"ping");
        sent.is_ok() && self.stream.read_exact(&mut back).is_ok() && &back == b"ping"
    }

    /// Waits for the end, which has to be a reset.
    fn wait_for_reset(&mut self) {
        let error = self.stream.read(&mut [0]).expect_err("no regular end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn kept_connections_go_on_and_new_ones_go_elsewhere() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let rig = Rig::start(&[("a.test", "keep", &[&first, &second])]);
    let mut live = rig.tunnels("a.test", "first");
    rig.change(&[&remove("a.test", &first)]);
    let accepted = first.accepted();
    for _ in 0..20 {
        Tunnel::open(&rig.proxy, "a.test", "second");
    }
    assert_eq!(first.accepted(), accepted);
    rig.change(&["DEL hostnames:a.test:backends"]);
    assert_stays("they work", Duration::from_millis(300), || {
        live.iter_mut().all(Tunnel::works)
    });
    assert_eq!(rig.proxy.outcome("tls", "backend_removed"), 0);
}

#[test]
fn drained_connections_go_on_for_their_time_and_end_then() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let backends: &[&Backend] = &[&first, &second];
    let rig = Rig::start(&[
        ("a.test", "drain=1s", backends),
        ("b.test", "drain=1s", backends),
    ]);
    let mut live = rig.tunnels("a.test", "first");
    let mut stays = rig.tunnels("a.test", "second");
    let mut of_another = rig.tunnels("b.test", "first");
    let began = Instant::now();
    rig.change(&[&remove("a.test", &first)]);
    let known = Instant::now();
    while began.elapsed() < DRAIN - Duration::from_millis(200) {
        assert!(live.iter_mut().all(Tunnel::works));
        std::thread::sleep(Duration::from_millis(20));
    }
    for tunnel in &mut live {
        tunnel.wait_for_reset();
    }
    assert!(began.elapsed() >= DRAIN);
    assert!(known.elapsed() <= DRAIN + Duration::from_millis(200));
    let count = live.len() as u64;
    rig.proxy.wait_for_outcome("tls", "backend_removed", count);
    assert!(stays.iter_mut().all(Tunnel::works));
    assert!(of_another.iter_mut().all(Tunnel::works));
}

#[test]
fn cut_connections_end_at_once_for_a_member_and_for_a_whole_host() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let backends: &[&Backend] = &[&first, &second];
    let rig = Rig::start(&[("a.test", "cut", backends), ("b.test", "cut", backends)]);
    let mut live = rig.tunnels("a.test", "first");
    let mut stays = rig.tunnels("a.test", "second");
    let mut of_another = rig.tunnels("b.test", "first");
    rig.change(&[&remove("a.test", &first)]);
    let known = Instant::now();
    live.iter_mut().for_each(Tunnel::wait_for_reset);
    assert!(known.elapsed() < Duration::from_millis(300));
    assert!(stays.iter_mut().all(Tunnel::works));
    rig.change(&["DEL hostnames:a.test:backends hostnames:a.test:options"]);
    stays.iter_mut().for_each(Tunnel::wait_for_reset);
    let count = (live.len() + stays.len()) as u64;
    rig.proxy.wait_for_outcome("tls", "backend_removed", count);
    assert!(of_another.iter_mut().all(Tunnel::works));
}

#[test]
fn many_are_cut_in_steps_and_none_is_left() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let rig = Rig::start(&[("a.test", "cut", &[&first])]);
    let mut live: Vec<Tunnel> = (0..400)
        .map(|_| Tunnel::open(&rig.proxy, "a.test", "first"))
        .collect();
    rig.change(&[&add("a.test", &second)]);
    rig.change(&[&remove("a.test", &first)]);
    live.iter_mut().for_each(Tunnel::wait_for_reset);
    rig.proxy.wait_for_outcome("tls", "backend_removed", 400);
}

#[test]
fn a_backend_that_comes_back_while_it_is_drained_keeps_its_connections() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let rig = Rig::start(&[("a.test", "drain=1s", &[&first, &second])]);
    let mut live = rig.tunnels("a.test", "first");
    for command in [&remove("a.test", &first), "DEL hostnames:a.test:backends"] {
        rig.change(&[command]);
        // A part of the drain.
        std::thread::sleep(Duration::from_millis(300));
        rig.change(&[&add("a.test", &first)]);
        assert_stays(command, DRAIN + Duration::from_millis(200), || {
            live.iter_mut().all(Tunnel::works)
        });
    }
    assert_eq!(rig.proxy.outcome("tls", "backend_removed"), 0);
}

#[test]
fn names_below_a_wildcard_follow_whatever_key_they_have() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let rig = Rig::start(&[
        ("*.test", "cut", &[&first]),
        ("httpsDefault", "keep", &[&first]),
    ]);
    let mut one = Tunnel::open(&rig.proxy, "one.test", "first");
    let mut two = Tunnel::open(&rig.proxy, "two.test", "first");
    let mut nameless = Tunnel::open(&rig.proxy, "other.example", "first");
    rig.change(&[&add("one.test", &second)]);
    one.wait_for_reset();
    assert!(two.works());
    // The default has the backend, too.
    rig.change(&["DEL hostnames:*.test:backends hostnames:*.test:options"]);
    assert_stays("both work", Duration::from_millis(200), || {
        two.works() && nameless.works()
    });
    rig.proxy.wait_for_outcome("tls", "backend_removed", 1);
}

#[test]
fn a_changed_option_counts_for_those_that_have_a_lease() {
    let first = backend::echo("first");
    let rig = Rig::start(&[("a.test", "drain=1h", &[&first])]);
    let mut live = rig.tunnels("a.test", "first");
    rig.change(&["HSET hostnames:a.test:options removal cut"]);
    assert!(live.iter_mut().all(Tunnel::works));
    rig.change(&["DEL hostnames:a.test:backends"]);
    live.iter_mut().for_each(Tunnel::wait_for_reset);
    let count = live.len() as u64;
    rig.proxy.wait_for_outcome("tls", "backend_removed", count);
}

/// A backend that answers `/begun` with half a response, `/never` not at all, and the rest with its
/// name.
fn half(name: &'static str) -> Backend {
    backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            if request.field("upgrade").is_some() {
                wire.send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
                );
                let mut stream = &wire.stream;
                let mut buffer = [0; 512];
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..bytes]).expect("it is read");
                }
                return;
            }
            match path {
                "/begun" => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf "),
                "/never" if name == "first" => {}
                _ => wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                    name.len()
                )),
            }
        }
    })
}

fn ask(rig: &Rig, request: &str) -> Wire {
    let mut wire = Wire::connect(rig.proxy.http());
    wire.send(format!("{request} HTTP/1.1\r\nHost: a.test\r\n"));
    wire
}

#[test]
fn requests_in_flight_are_cut_off_or_go_to_another_backend() {
    let (first, second) = (half("first"), half("second"));
    let rig = Rig::start(&[("a.test", "cut", &[&first])]);
    let mut begun = ask(&rig, "GET /begun");
    begun.send("\r\n");
    assert_eq!(begun.response_head().status(), 200);
    let mut again = ask(&rig, "GET /never");
    again.send("\r\n");
    let mut never = ask(&rig, "POST /never");
    never.send("Content-Length: 4\r\n\r\nbody");
    let mut upgraded = ask(&rig, "GET /upgrade");
    upgraded.send("Upgrade: x\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(upgraded.response_head().status(), 101);
    let mut kept = Wire::connect(rig.proxy.http());
    assert_eq!(kept.get("a.test", "/").text(), "first");
    wait_until("all requests are there", SOON, || first.accepted() >= 4);
    // Accepted is not yet sent: each is to be at the stage that its path names.
    std::thread::sleep(Duration::from_millis(100));
    rig.change(&[
        "MULTI",
        &add("a.test", &second),
        &remove("a.test", &first),
        "EXEC",
    ]);
    let mut tail = Vec::new();
    let error = begun.stream.read_to_end(&mut tail).expect_err("cut off");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(again.response().text(), "second");
    let refused = never.response();
    assert_eq!(refused.status(), 502);
    assert_eq!(refused.field("pointsman-outcome"), Some("backend_removed"));
    let error = upgraded.stream.read(&mut [0]).expect_err("no regular end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // Between two requests there is nothing to end.
    assert_eq!(kept.get("a.test", "/").text(), "second");
    rig.proxy.wait_for_outcome("http", "backend_removed", 3);
}

#[test]
fn a_drained_exchange_is_completed_in_its_time_and_a_tunnel_ends_after_it() {
    let slow = scripted(|_, _| {
        // Behind the removal and within the drain.
        std::thread::sleep(Duration::from_millis(500));
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec())
    });
    let upgrading = half("first");
    let rig = Rig::start(&[
        ("a.test", "drain=1s", &[&upgrading]),
        ("b.test", "drain=1s", &[&slow]),
    ]);
    let mut wire = Wire::connect(rig.proxy.http());
    wire.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    let mut upgraded = ask(&rig, "GET /upgrade");
    upgraded.send("Upgrade: x\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(upgraded.response_head().status(), 101);
    wait_until("the request is there", SOON, || slow.accepted() == 1);
    let began = Instant::now();
    rig.change(&["DEL hostnames:a.test:backends hostnames:b.test:backends"]);
    assert_eq!(wire.response().text(), "slow");
    upgraded.send("ping");
    let mut back = [0; 4];
    upgraded.stream.read_exact(&mut back).expect("it goes on");
    let error = upgraded.stream.read(&mut [0]).expect_err("no regular end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(began.elapsed() >= DRAIN);
    rig.proxy.wait_for_outcome("http", "backend_removed", 1);
}

#[test]
fn an_http2_tunnel_ends_like_any_other() {
    let first = backend::raw(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..bytes]).expect("it is read");
        }
    });
    let rig = Rig::start(&[("a.test", "cut", &[&first])]);
    // SETTINGS, and HEADERS of stream 1 with literal fields: GET, http, /, a.test.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 6];
    block.extend(b"a.test");
    bytes.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(&block);
    let mut stream = client::connect(rig.proxy.http());
    stream.write_all(&bytes).expect("the proxy reads");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("all of it comes back");
    assert_eq!(back, bytes);
    rig.change(&["DEL hostnames:a.test:backends"]);
    let error = stream.read(&mut [0]).expect_err("no regular end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    rig.proxy.wait_for_outcome("http", "backend_removed", 1);
}

#[test]
fn idle_connections_to_a_backend_without_a_route_are_closed_whatever_the_option() {
    let (first, second) = (backend::http("first"), backend::http("second"));
    let rig = Rig::start(&[
        ("a.test", "keep", &[&first]),
        ("b.test", "keep", &[&first, &second]),
    ]);
    let idle = || rig.proxy.per_core("backends_idle").iter().sum::<u64>();
    let mut wire = Wire::connect(rig.proxy.http());
    assert_eq!(wire.get("a.test", "/").text(), "first");
    assert_eq!(idle(), 1);
    rig.change(&["DEL hostnames:a.test:backends"]);
    assert_stays("another host has it", Duration::from_millis(1500), || {
        idle() == 1
    });
    rig.change(&[&remove("b.test", &first)]);
    wait_until("it is closed", SOON, || idle() == 0);
    assert_eq!(wire.get("b.test", "/").text(), "second");
}

#[test]
fn static_routes_that_change_are_followed_the_same_way() {
    let (first, second) = (backend::echo("first"), backend::echo("second"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("routes.toml");
    let write = |members: &[&Backend]| {
        let members: Vec<String> = members
            .iter()
            .map(|one| format!("\"{}\"", one.member()))
            .collect();
        let list = members.join(", ");
        let text =
            format!("[routes]\n\"a.test\" = [\"@removal=cut\", \"@balance=random\", {list}]\n");
        fs::write(&file, text).expect("a writable file");
    };
    write(&[&first, &second]);
    let proxy = Options::new()
        .args(&["--routes", file.to_str().expect("plain text")])
        .start();
    let mut gone = Tunnel::open(&proxy, "a.test", "first");
    let mut stays = Tunnel::open(&proxy, "a.test", "second");
    write(&[&second]);
    proxy.signal("HUP");
    gone.wait_for_reset();
    assert!(stays.works());
    proxy.wait_for_outcome("tls", "backend_removed", 1);
}

#[test]
fn what_a_removed_backend_has_sent_is_given_to_the_client_first() {
    let first = backend::raw(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(&backend::pattern(200_000));
        let _ = stream.read(&mut buffer);
    });
    let rig = Rig::start(&[("a.test", "cut", &[&first])]);
    let mut stream = client::connect(rig.proxy.https());
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy reads");
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin).expect("the answer begins");
    // The proxy waits for the client, with the rest of it in sockets and pipes.
    std::thread::sleep(Duration::from_millis(200));
    rig.change(&["DEL hostnames:a.test:backends"]);
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).expect_err("no regular end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(begin.len() + rest.len(), 200_000);
}
