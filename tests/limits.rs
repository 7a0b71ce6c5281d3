//! Who is over a limit is turned away by name and nobody else notices; where no backend may be, none is.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::client::{self, Answer, Hello, PATIENCE, Response, http_get};
use support::dns::Dns;
use support::port::free_port;
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::{backend, wait_until};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const SOON: Duration = Duration::from_secs(5);

/// A connection of the TLS port to a backend that was reached; `None` when it was closed without a word.
fn hold(from: IpAddr, to: SocketAddr, preface: &[u8], name: &str) -> Option<TcpStream> {
    let mut stream = client::connect_from(from, to);
    let bytes = [preface, &Hello::named(name).record()].concat();
    let _ = stream.write_all(&bytes);
    let mut first = [0];
    match stream.read(&mut first) {
        Ok(1) => {
            assert_eq!(first, *b"o", "an alert is a word");
            Some(stream)
        }
        // Closed with the hello unread.
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("neither served nor closed: {error}"),
    }
}

fn ask(from: IpAddr, to: SocketAddr, host: &str) -> Response {
    let mut stream = client::connect_from(from, to);
    ask_on(&mut stream, host).expect("an answer")
}

fn ask_on(stream: &mut TcpStream, host: &str) -> std::io::Result<Response> {
    stream.write_all(&client::request(host))?;
    Response::read(stream)
}

fn outcome_of(response: &Response) -> &str {
    let mut lines = response.head.lines();
    lines
        .find_map(|line| line.strip_prefix("Pointsman-Outcome: "))
        .unwrap_or("served")
}

#[test]
fn connections_of_one_client_are_limited_on_both_ports_together() {
    let backend = backend::echo("o");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&["--max-connections-per-client", "3"])
        .start();
    let mut held: Vec<TcpStream> = (0..3)
        .map(|n| hold(ONE, proxy.https(), b"", "a.test").unwrap_or_else(|| panic!("the {n}th")))
        .collect();
    assert!(hold(ONE, proxy.https(), b"", "a.test").is_none());
    let refused = ask(ONE, proxy.http(), "a.test");
    assert_eq!(
        (refused.status, outcome_of(&refused)),
        (503, "client_connections")
    );
    assert_eq!(ask(OTHER, proxy.http(), "a.test").status, 200);
    let other = hold(OTHER, proxy.https(), b"", "a.test").expect("another client is served");
    proxy.wait_for_outcome("tls", "client_connections", 1);
    proxy.wait_for_outcome("http", "client_connections", 1);
    held.pop();
    wait_until("what has ended makes room", SOON, || {
        hold(ONE, proxy.https(), b"", "a.test").is_some()
    });
    assert_eq!(proxy.series("pointsman_limits_untracked_total"), Some(0.0));
    drop((held, other));
}

#[test]
fn new_connections_of_one_client_are_limited_in_a_second() {
    let backend = backend::http("served");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&["--max-rate-per-client", "5"])
        .start();
    let many = || {
        let began = Instant::now();
        let answers: Vec<Response> = (0..20).map(|_| ask(ONE, proxy.http(), "a.test")).collect();
        let served = answers.iter().filter(|one| one.status == 200).count();
        let refused: Vec<&Response> = answers.iter().filter(|one| one.status != 200).collect();
        for one in &refused {
            assert_eq!((one.status, outcome_of(one)), (429, "client_rate"));
            assert!(one.head.contains("\r\nRetry-After: 1"), "{}", one.head);
        }
        let paid_off = began.elapsed().as_secs_f64() * 5.0;
        let most = 5 + paid_off.ceil() as usize;
        assert!((5..=most).contains(&served), "{served} of {most}");
        refused.len() as u64
    };
    let refused = many();
    assert_eq!(ask(OTHER, proxy.http(), "a.test").status, 200);
    // A second pays everything off.
    std::thread::sleep(Duration::from_millis(1050));
    let refused = refused + many();
    proxy.wait_for_outcome("http", "client_rate", refused);
    // A second pays everything off.
    std::thread::sleep(Duration::from_millis(1050));
    // One connection may carry as many requests as it likes.
    let mut stream = client::connect_from(ONE, proxy.http());
    for _ in 0..20 {
        assert_eq!(
            ask_on(&mut stream, "a.test").expect("it is kept").status,
            200
        );
    }
}

#[test]
fn behind_a_balancer_the_client_is_the_one_in_its_header() {
    let backend = backend::echo("o");
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&[
            "--proxy-from",
            "127.0.0.3",
            "--max-connections-per-client",
            "1",
        ])
        .start();
    let header = |client: &str| format!("PROXY TCP4 {client} 203.0.113.1 40000 443\r\n");
    let via = |client: &str| hold(OTHER, proxy.https(), header(client).as_bytes(), "a.test");
    let first = via("203.0.113.7").expect("the first is served");
    assert!(via("203.0.113.7").is_none());
    let second = via("203.0.113.8").expect("another client is served");
    let direct = hold(ONE, proxy.https(), b"", "a.test").expect("a direct client is served");
    assert!(hold(ONE, proxy.https(), b"", "a.test").is_none());
    let mut stream = client::connect_from(OTHER, proxy.http());
    let request = [header("203.0.113.7").as_bytes(), &client::request("a.test")].concat();
    stream.write_all(&request).expect("the proxy reads");
    let refused = Response::read(&mut stream).expect("an answer");
    assert_eq!(
        (refused.status, outcome_of(&refused)),
        (503, "client_connections")
    );
    // The balancer speaks for itself as often as it likes.
    let own: Vec<TcpStream> = (0..3)
        .map(|_| {
            let unknown = b"PROXY UNKNOWN\r\n";
            hold(OTHER, proxy.https(), unknown, "a.test").expect("it is no client")
        })
        .collect();
    proxy.wait_for_outcome("tls", "client_connections", 2);
    drop(first);
    wait_until("what has ended makes room", SOON, || {
        via("203.0.113.7").is_some()
    });
    drop((second, direct, own));
}

#[test]
fn who_is_exempt_has_no_limit_and_the_process_has_one() {
    let backend = backend::echo("o");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&[
            "--max-connections-per-client",
            "1",
            "--max-rate-per-client",
            "1",
        ])
        .args(&["--limit-exempt", "127.0.0.2/32", "--max-connections", "6"])
        .start();
    let mut held: Vec<TcpStream> = (0..6)
        .map(|_| hold(ONE, proxy.https(), b"", "a.test").expect("it is exempt"))
        .collect();
    assert!(hold(ONE, proxy.https(), b"", "a.test").is_none());
    let refused = ask(OTHER, proxy.http(), "a.test");
    assert_eq!(
        (refused.status, outcome_of(&refused)),
        (503, "too_many_connections")
    );
    held.truncate(5);
    // The rate is that of those who are not exempt; a second pays everything off.
    std::thread::sleep(Duration::from_millis(1050));
    let other = hold(OTHER, proxy.https(), b"", "a.test").expect("there is room again");
    assert!(hold(OTHER, proxy.https(), b"", "a.test").is_none());
    proxy.wait_for_outcome("tls", "too_many_connections", 1);
    proxy.wait_for_outcome("tls", "client_connections", 1);
    proxy.wait_for_outcome("http", "too_many_connections", 1);
    drop((held, other));
}

/// A request that stays under way until its body is sent.
fn begin_post(proxy: &Proxy, host: &str) -> TcpStream {
    let mut stream = client::connect(proxy.http());
    let head = "POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
    let head = format!("{head}Host: {host}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the proxy reads");
    let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).expect("the backend waits");
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{interim:?}");
    stream
}

#[test]
fn a_host_has_the_limits_that_redis_says_now() {
    let plain = backend::http("served");
    let redis = RedisServer::start();
    let hosts = ["a.test", "b.test", "*.w.test"];
    for host in hosts {
        redis.run(&[&format!(
            "SADD hostnames:{host}:backends {}",
            plain.member()
        )]);
    }
    let set = |option: &str| {
        for host in hosts {
            redis.run(&[&format!("HSET hostnames:{host}:options {option}")]);
        }
    };
    set("max-connections 1");
    let proxy = Options::new()
        .cores("0-1")
        .args(&["--redis", &redis.url()])
        .start();
    let status = |host: &str| http_get(proxy.http(), host, "/").expect("an answer").status;
    // What was answered counts until the last of it is sent.
    let served_soon = |host: &str| {
        wait_until(&format!("{host} is served"), SOON, || status(host) == 200);
    };
    let mut of_a = begin_post(&proxy, "a.test");
    let refused = http_get(proxy.http(), "a.test", "/").expect("an answer");
    assert_eq!(outcome_of(&refused), "host_connections");
    // The same backends and options, and yet a count of its own.
    served_soon("b.test");
    // TLS connections count as well.
    assert!(client::tls_connect(proxy.https(), "a.test").is_err());
    proxy.wait_for_outcome("tls", "host_connections", 1);
    // Names below one wildcard share its limit.
    let of_w = begin_post(&proxy, "x.w.test");
    assert_eq!(status("y.w.test"), 503);
    served_soon("b.test");
    // Live, and what is under way counts on.
    set("max-connections 2");
    served_soon("a.test");
    of_a.write_all(b"body").expect("it is under way");
    let answer = Response::read(&mut of_a).expect("an answer");
    assert_eq!(answer.text(), "served 4");
    // A client between two requests does not count, whatever it keeps open.
    set("max-connections 1");
    drop(of_w);
    served_soon("z.w.test");
    for _ in 0..3 {
        served_soon("a.test");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ask_on(&mut of_a, "a.test").expect("it is kept").status, 200);
    }
    for host in hosts {
        redis.run(&[
            &format!("HDEL hostnames:{host}:options max-connections"),
            &format!("HSET hostnames:{host}:options max-rate 4"),
        ]);
    }
    wait_until("the rate is limited", SOON, || {
        let answers = (0..20).map(|_| http_get(proxy.http(), "a.test", "/").expect("an answer"));
        let over = answers.filter(|one| outcome_of(one) == "host_rate").count();
        (10..=16).contains(&over)
    });
    // A second pays everything off.
    std::thread::sleep(Duration::from_millis(1100));
    // Each request counts, on one connection as well.
    let mut stream = client::connect(proxy.http());
    let answers: Vec<u16> = (0..10)
        .map_while(|_| Some(ask_on(&mut stream, "b.test").ok()?.status))
        .collect();
    assert_eq!(answers.last(), Some(&503), "{answers:?}");
    assert!((5..=7).contains(&answers.len()), "{answers:?}");
    // Not as a hello, which a backend of plain HTTP would answer.
    assert!(client::tls_connect(proxy.https(), "b.test").is_err());
    proxy.wait_for_outcome("tls", "host_rate", 1);
}

/// Case C15: twenty thousand connects from one address, as fast as they go.
#[test]
fn a_flood_from_one_client_is_turned_away_while_another_is_served() {
    const FLOOD: usize = 20_000;
    const MAX: usize = 10;
    let backend = backend::echo("o");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&["--max-connections-per-client", &MAX.to_string()])
        .start();
    let held: Vec<TcpStream> = (0..MAX)
        .map(|_| hold(ONE, proxy.https(), b"", "a.test").expect("within the limit"))
        .collect();
    let hello = Hello::named("a.test").record();
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let mut flooding: Vec<_> = (0..4)
            .map(|n| {
                let (proxy, hello) = (&proxy, &hello);
                scope.spawn(move || {
                    for _ in 0..FLOOD / 4 {
                        let (to, bytes) = match n % 2 {
                            0 => (proxy.https(), &hello[..]),
                            _ => (proxy.http(), &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..]),
                        };
                        let mut stream = client::connect_from(ONE, to);
                        let _ = stream.write_all(bytes);
                        let answer = Answer::read(&mut stream);
                        match n % 2 {
                            0 => assert_eq!(answer.bytes, b""),
                            _ => assert_eq!(answer.status(), Some(503)),
                        }
                    }
                })
            })
            .collect();
        while !flooding.is_empty() {
            let began = Instant::now();
            let mut stream = hold(OTHER, proxy.https(), b"", "a.test").expect("it is served");
            stream.shutdown(Shutdown::Write).expect("it is open");
            assert!(!Answer::read(&mut stream).reset);
            slowest = slowest.max(began.elapsed());
            flooding.retain(|thread| !thread.is_finished());
        }
    });
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    proxy.wait_for_outcome("tls", "client_connections", FLOOD as u64 / 2);
    proxy.wait_for_outcome("http", "client_connections", FLOOD as u64 / 2);
    assert_eq!(proxy.live(), MAX as u64);
    assert!(proxy.descriptors() < 200, "{}", proxy.descriptors());
    drop(held);
}

#[test]
fn members_where_no_backend_may_be_are_skipped() {
    let backend = backend::http("served");
    let redis = RedisServer::start();
    redis.run(&[
        &format!(
            "SADD hostnames:a.test:backends 169.254.169.254 {}",
            backend.member()
        ),
        "SADD hostnames:b.test:backends [fe80::1]:80",
    ]);
    let proxy = Options::new().args(&["--redis", &redis.url()]).start();
    for _ in 0..10 {
        let answer = http_get(proxy.http(), "a.test", "/").expect("an answer");
        assert_eq!(answer.text(), "served");
    }
    let line = proxy.wait_for_line("169.254.169.254 is link-local", PATIENCE);
    assert!(line.contains("--backend-allow"), "{line}");
    assert_eq!(proxy.series("pointsman_redis_rejected_members"), Some(2.0));
    let answer = http_get(proxy.http(), "b.test", "/").expect("an answer");
    assert_eq!(outcome_of(&answer), "no_address");
    drop(proxy);
    // With a list it alone counts.
    let proxy = Options::new()
        .args(&["--redis", &redis.url(), "--backend-allow", "10.0.0.0/8"])
        .start();
    let answer = http_get(proxy.http(), "a.test", "/").expect("an answer");
    assert_eq!(outcome_of(&answer), "no_address");
    proxy.wait_for_line("127.0.0.1 is in no network", PATIENCE);
}

#[test]
fn static_routes_where_no_backend_may_be_are_refused_at_start() {
    let (status, said) = Options::new()
        .route("a.test", &["127.0.0.1:1", "169.254.169.254:80"])
        .start_and_fail();
    assert_eq!(status.code(), Some(2));
    assert!(
        said.contains("--route: a.test=169.254.169.254:80: no backend may be at"),
        "{said}"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("routes.toml");
    std::fs::write(&file, "[routes]\n\"a.test\" = \"10.1.0.1\"\n").expect("a file");
    let file = file.to_str().expect("an ASCII path");
    let (_, said) = Options::new()
        .args(&["--routes", file, "--backend-allow", "10.2.0.0/16"])
        .start_and_fail();
    assert!(said.contains("10.1.0.1 is in no network"), "{said}");
}

/// Case C16: a route that points at the proxy's own listener.
#[test]
fn a_route_to_the_proxy_itself_is_skipped() {
    let backend = backend::http("served");
    let redis = RedisServer::start();
    let port = free_port();
    let dns = Dns::start("127.0.0.1");
    redis.run(&[
        &format!(
            "SADD hostnames:a.test:backends 127.0.0.1:{port} {}",
            backend.member()
        ),
        &format!("SADD hostnames:b.test:backends 127.0.0.7:{port}"),
        &format!("SADD hostnames:c.test:backends app.test:{port}"),
    ]);
    let start = |port: u16| {
        Options::new()
            .listen("--http", &format!("0.0.0.0:{port}"))
            .args(&["--dns-server", &dns.address.to_string()])
    };
    let proxy = start(port).args(&["--redis", &redis.url()]).start();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..10 {
        let answer = http_get(to, "a.test", "/").expect("an answer");
        assert_eq!(answer.text(), "served");
    }
    for host in ["b.test", "c.test"] {
        let answer = http_get(to, host, "/").expect("an answer");
        assert_eq!(outcome_of(&answer), "no_address", "{host}");
    }
    proxy.wait_for_line("is where this proxy listens", PATIENCE);
    assert_eq!(proxy.series("pointsman_redis_rejected_members"), Some(2.0));
    drop(proxy);
    // Where nothing was closed yet, or the port would not be free again at once.
    let port = free_port();
    let itself = format!("127.0.0.1:{port}");
    let (_, said) = start(port).route("a.test", &[&itself]).start_and_fail();
    assert!(said.contains("is where this proxy listens"), "{said}");
}

#[test]
fn dns_answers_where_no_backend_may_be_are_skipped() {
    let backend = backend::http("served");
    let dns = Dns::start("169.254.169.254");
    let member = format!("app.test:{}", backend.address().port());
    let proxy = Options::new()
        .route("a.test", &[&member])
        .args(&["--dns-server", &dns.address.to_string()])
        .args(&["--dns-ttl-min", "100ms"])
        .start();
    let ask = || http_get(proxy.http(), "a.test", "/").expect("an answer");
    proxy.wait_for_line("addresses of a backend name are skipped", PATIENCE);
    let answer = ask();
    assert_eq!((answer.status, outcome_of(&answer)), (502, "no_address"));
    assert_eq!(proxy.series("pointsman_dns_names_denied"), Some(1.0));
    *dns.answer.lock().unwrap() = Some(Ipv4Addr::LOCALHOST.into());
    wait_until("another answer", SOON, || ask().text() == "served");
    assert_eq!(proxy.series("pointsman_dns_names_denied"), Some(0.0));
}

/// After 101, and from the beginning of an HTTP/2 connection, it is one connection of its host, its
/// backend and its client for as long as it lives.
#[test]
fn a_tunnel_counts_wherever_a_request_does_until_it_ends() {
    let backend = backend::raw(|mut stream| {
        let mut head = [0; 1024];
        let read = stream.read(&mut head).unwrap_or(0);
        let answer: &[u8] = if head[..read].starts_with(b"PRI") {
            b"settings"
        } else {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
        };
        let _ = stream.write_all(answer);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let upgrade = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let mut h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS with END_STREAM and END_HEADERS: GET, https, / and a literal :authority of 6 bytes.
    h2.extend_from_slice(b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x87\x84\x41\x06a.test");
    let member = backend.member();
    let full = format!("{member} max=2");
    for (members, args) in [
        (vec![member.as_str(), "@max-connections=2"], vec![]),
        (vec![full.as_str()], vec!["--queue", "0"]),
        (
            vec![member.as_str()],
            vec!["--max-connections-per-client", "2"],
        ),
    ] {
        let proxy = Options::new()
            .cores("0-1")
            .route("a.test", &members)
            .args(&["--h2c", "yes"])
            .args(&args)
            .start();
        for (first, is_tunnel) in [(upgrade.as_slice(), &b"HTTP/1.1 101"[..]), (&h2, b"sett")] {
            let open = || {
                let mut stream = client::connect(proxy.http());
                let _ = stream.write_all(first);
                let mut said = [0; 12];
                let read = stream.read(&mut said).unwrap_or(0);
                said[..read].starts_with(is_tunnel).then_some(stream)
            };
            let held: Vec<TcpStream> = (0..6).filter_map(|_| open()).collect();
            assert_eq!(held.len(), 2, "{members:?} {args:?}");
            drop(held);
            wait_until("what has ended makes room", SOON, || open().is_some());
            wait_until("all have ended", SOON, || proxy.live() == 0);
        }
    }
}
