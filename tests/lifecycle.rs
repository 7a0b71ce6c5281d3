//! Signals: what is dumped, how it drains, what is read again, and who may not start beside it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use support::client::{self, Answer, Response};
use support::proxy::{Options, Proxy};
use support::{backend, wait_until};

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// The histograms of an interval log by tag.
fn read_log(path: &Path) -> BTreeMap<String, Histogram<u64>> {
    let bytes = fs::read(path).expect("the log was written");
    let mut deserializer = Deserializer::new();
    let mut histograms = BTreeMap::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(line) = entry.expect("a line of the format") else {
            continue;
        };
        let encoded = base64::engine::general_purpose::STANDARD
            .decode(line.encoded_histogram())
            .expect("base64");
        let histogram = deserializer.deserialize(&mut encoded.as_slice());
        let tag = line.tag().expect("every line has a tag").to_string();
        histograms.insert(tag, histogram.expect("a histogram"));
    }
    histograms
}

fn dumps(directory: &Path) -> usize {
    let names = fs::read_dir(directory).expect("it exists");
    names
        .filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            let name = name.to_string_lossy().into_owned();
            name.starts_with("pointsman-") && name.ends_with(".hlog")
        })
        .count()
}

#[test]
fn dumps_under_load_are_whole_and_count_what_was_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let backend = backend::http("one");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&["--latency-dir", path.to_str().expect("plain text")])
        // Each request connects, so that every stage has as many.
        .args(&["--pool-per-backend", "0"])
        .start();
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (done, served) = (done.clone(), served.clone());
            let http = proxy.http();
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let response = client::http_get(http, "a.test", "/").expect("an answer");
                    assert_eq!(response.text(), "one");
                    // A dump that held a core up would show here.
                    assert!(asked.elapsed() < Duration::from_millis(500));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=5 {
            // An interval with something in it.
            std::thread::sleep(Duration::from_millis(150));
            proxy.signal("USR1");
            wait_until("a dump", client::PATIENCE, || dumps(path) >= number);
        }
        // Several at once: none is dangerous, some are merged.
        for _ in 0..20 {
            proxy.signal("USR1");
        }
        // All that come of them are to be written under load.
        std::thread::sleep(Duration::from_millis(300));
        done.store(true, Ordering::Relaxed);
    });
    let served = served.load(Ordering::Relaxed) as u64;
    assert!(served > 20, "{served}");
    proxy.wait_for_outcome("http", "relayed", served);
    let before = dumps(path);
    assert!((6..=25).contains(&before), "{before}");
    proxy.signal("USR1");
    wait_until("the last dump", client::PATIENCE, || dumps(path) > before);
    wait_until("its page", client::PATIENCE, || {
        let page = fs::read_to_string(path.join("latest.txt"));
        page.is_ok_and(|page| page.starts_with(&format!("pointsman dump {},", before + 1)))
    });
    dumps_add_up(path, &proxy, before + 1, served);
}

/// The last dump has everything, and the intervals of all dumps make it.
fn dumps_add_up(path: &Path, proxy: &Proxy, dumps: usize, served: u64) {
    let histograms = read_log(&path.join("latest.hlog"));
    for stage in [
        "head",
        "route",
        "connect",
        "first_byte",
        "lifetime",
        "request",
    ] {
        let total = &histograms[&format!("http.{stage}.total")];
        assert_eq!(total.len(), served, "{stage}");
        assert!(histograms.contains_key(&format!("http.{stage}")), "{stage}");
        assert_eq!(histograms[&format!("tls.{stage}.total")].len(), 0);
    }
    // The intervals of all dumps add up to the total.
    let pid = proxy.pid();
    let sum: u64 = (1..=dumps)
        .map(|sequence| read_log(&path.join(format!("pointsman-{pid}-{sequence}.hlog"))))
        .map(|histograms| histograms["http.lifetime"].len())
        .sum();
    assert_eq!(sum, served);
    let lifetime = &histograms["http.lifetime.total"];
    assert!(lifetime.min() > 1000, "nanoseconds");
    let partial = fs::read_dir(path).expect("it exists").any(|entry| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().contains("partial")
    });
    assert!(!partial);
}

/// Answers a request after a while.
fn slow_backend(pause: Duration) -> backend::Backend {
    backend::raw(move |mut stream| {
        if stream.read_exact(&mut [0; HEAD.len()]).is_ok() {
            std::thread::sleep(pause);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
            let _ = stream.write_all(answer);
        }
    })
}

#[test]
fn a_drain_under_load_serves_every_connection_to_its_end() {
    drain_under_load(Options::new());
}

/// As most run it: what shuts new connections out must need no capability.
#[test]
fn a_drain_without_privilege_serves_every_connection_to_its_end() {
    drain_under_load(Options::new().without_capabilities(&["all"]));
}

fn drain_under_load(options: Options) {
    let backend = slow_backend(Duration::from_millis(150));
    let mut proxy = options
        .cores("0-1")
        .drain("20s")
        .route("a.test", &[&backend.member()])
        .start();
    let http = proxy.http();
    // Connected and silent so far: the kernel has them, the proxy has not heard of them.
    let silent: Vec<TcpStream> = (0..20).map(|_| client::connect(http)).collect();
    let served = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let (served, refused) = (&served, &refused);
            scope.spawn(move || {
                loop {
                    let connected = TcpStream::connect_timeout(&http, Duration::from_secs(5));
                    let Ok(mut stream) = connected else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    stream
                        .set_read_timeout(Some(client::PATIENCE))
                        .expect("a socket option");
                    stream.write_all(HEAD).expect("a connection is not cut");
                    let response = Response::read(&mut stream).expect("an answer");
                    assert_eq!(response.text(), "whole");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_until("all are served", client::PATIENCE, || {
            served.load(Ordering::Relaxed) > 16
        });
        proxy.signal("TERM");
        scope.spawn(move || {
            // In the middle of the drain.
            std::thread::sleep(Duration::from_millis(600));
            for mut stream in silent {
                stream.write_all(HEAD).expect("a connection is not cut");
                let response = Response::read(&mut stream).expect("an answer");
                assert_eq!(response.text(), "whole");
            }
        });
    });
    assert!(served.load(Ordering::Relaxed) > 16);
    assert_eq!(refused.load(Ordering::Relaxed), 16);
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", proxy.stderr());
    let said = proxy.stderr();
    assert!(said.contains("cut=0"), "{said}");
    let all = served.load(Ordering::Relaxed) + 20;
    assert!(said.contains(&format!("http relayed {all}")), "{said}");
}

/// A client with an answer pending, and the proxy in front of a backend that never gives it.
fn with_an_open_connection(drain: &str) -> (Proxy, TcpStream, backend::Backend) {
    let backend = backend::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Options::new()
        .drain(drain)
        .route("a.test", &[&backend.member()])
        .start();
    let mut stream = client::connect(proxy.http());
    stream.write_all(HEAD).expect("the proxy reads");
    wait_until("it is relayed", client::PATIENCE, || {
        backend.accepted() == 1
    });
    (proxy, stream, backend)
}

#[test]
fn what_is_open_at_the_drain_deadline_is_cut_and_said() {
    let (mut proxy, mut stream, _backend) = with_an_open_connection("2s");
    let asked = Instant::now();
    proxy.signal("TERM");
    wait_until("no longer ready", client::PATIENCE, || {
        proxy.admin_page("/ready").contains("stopping")
    });
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    let took = asked.elapsed().as_millis();
    assert!((1800..5000).contains(&took), "{took} ms");
    assert_eq!(status.code(), Some(3));
    assert_eq!(Answer::read(&mut stream).bytes, b"");
    let said = proxy.stderr();
    assert!(said.contains("cut=1"), "{said}");
    assert!(said.contains("http cut_at_drain 1"), "{said}");
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (mut proxy, stream, _backend) = with_an_open_connection("60s");
        proxy.signal(first);
        proxy.wait_for_line("stopping", client::PATIENCE);
        let asked = Instant::now();
        proxy.signal(second);
        let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
        assert!(asked.elapsed() < Duration::from_secs(2));
        assert_eq!(status.code(), Some(3), "{}", proxy.stderr());
        drop(stream);
    }
}

#[test]
fn without_connections_it_stops_cleanly() {
    for signal in ["TERM", "INT"] {
        let options = Options::new().route("a.test", &["127.0.0.1:1"]);
        let mut proxy = options.drain("60s").start();
        proxy.signal(signal);
        let status = proxy.wait_for_exit(Duration::from_secs(5));
        assert_eq!(status.expect("it ends").code(), Some(0));
    }
}

/// With SO_REUSEPORT alone it would silently take a share of the connections.
#[test]
fn a_second_instance_on_the_same_port_is_refused() {
    let backend = backend::http("one");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .start();
    let pid = proxy.pid();
    std::thread::scope(|scope| {
        for (flag, address) in [
            ("--http", proxy.http()),
            ("--https", proxy.https()),
            ("--admin", proxy.admin()),
        ] {
            let second = Options::new().route("a.test", &[&backend.member()]);
            scope.spawn(move || {
                let address = address.to_string();
                let second = match flag {
                    "--admin" => second.admin(&address),
                    _ => second.listen(flag, &address),
                };
                let (status, said) = second.start_and_fail();
                assert_eq!(status.code(), Some(1), "{said}");
                let last = said.lines().last().expect("it says why");
                assert!(last.contains(&address), "{said}");
                assert!(
                    last.contains(&format!("process {pid} (pointsman)")),
                    "{said}"
                );
            });
        }
    });
    for _ in 0..20 {
        let response = client::http_get(proxy.http(), "a.test", "/").expect("an answer");
        assert_eq!(response.text(), "one");
    }
}

/// As after a process that was killed: the kernel closes what its rings hold some time later.
#[test]
fn a_start_waits_for_a_port_that_is_about_to_be_free() {
    let backend = backend::http("one");
    for flag in ["--http", "--admin"] {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("it is bound");
        let release = std::thread::spawn(move || {
            // The proxy has met it taken by then.
            std::thread::sleep(Duration::from_millis(700));
            drop(holder);
        });
        let options = Options::new().route("a.test", &[&backend.member()]);
        let proxy = match flag {
            "--admin" => options.admin(&address.to_string()).start(),
            _ => options.listen(flag, &address.to_string()).start(),
        };
        release.join().expect("it only sleeps");
        let line = proxy.wait_for_line("the address is in use", Duration::ZERO);
        assert!(line.contains(&address.to_string()), "{line}");
    }
}

#[test]
fn the_routes_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing() {
    let (first, second) = (backend::http("first"), backend::http("second"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("routes.toml");
    let write = |text: String| fs::write(&file, text).expect("our own file");
    write(format!("[routes]\n\"a.test\" = [\"{}\"]\n", first.member()));
    let proxy = Options::new()
        .cores("0-1")
        .args(&["--routes", file.to_str().expect("plain text")])
        .start();
    let get = |host: &str| client::http_get(proxy.http(), host, "/").expect("an answer");
    assert_eq!(get("a.test").text(), "first");
    // A connection that is open takes the new route with its next request.
    let mut open = client::connect(proxy.http());
    open.write_all(HEAD).expect("the proxy reads");
    assert_eq!(
        Response::read(&mut open).expect("an answer").text(),
        "first"
    );

    write(format!(
        "[routes]\n\"a.test\" = [\"{}\"]\n",
        second.member()
    ));
    proxy.signal("HUP");
    wait_until("the new route", client::PATIENCE, || {
        get("a.test").text() == "second"
    });
    open.write_all(HEAD).expect("the proxy reads");
    assert_eq!(
        Response::read(&mut open).expect("an answer").text(),
        "second"
    );

    write(String::from(
        "[routes]\n\"a.test\" = [\"127.0.0.1:70000\"\n",
    ));
    proxy.signal("HUP");
    proxy.wait_for_line("routes.toml", client::PATIENCE);
    for _ in 0..20 {
        assert_eq!(get("a.test").text(), "second");
    }
    write(format!("[routes]\n\"b.test\" = [\"{}\"]\n", first.member()));
    proxy.signal("HUP");
    wait_until("the good one", client::PATIENCE, || {
        get("b.test").status == 200
    });
    assert_eq!(get("a.test").status, 421);
    let versions = proxy.per_core("table_version");
    assert_eq!(versions[0], versions[1]);
    open.shutdown(Shutdown::Both).expect("connected");
}

fn post(proxy: &Proxy, path: &str) -> Answer {
    let mut stream = client::connect(proxy.admin());
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it listens");
    Answer::read(&mut stream)
}

/// Whoever comes while the process ends is served or refused, and none is accepted and dropped.
#[test]
fn clients_that_come_while_a_core_has_panicked_are_served_or_refused() {
    let backend = backend::http("one");
    let mut proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .args(&["--debug-faults", "yes"])
        .start();
    let http = proxy.http();
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let connected = TcpStream::connect_timeout(&http, Duration::from_secs(10));
                    let mut stream = match connected {
                        Ok(stream) => stream,
                        Err(error) => {
                            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                            return;
                        }
                    };
                    let ask = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
                    stream.write_all(ask).expect("it is read");
                    let answer = Response::read(&mut stream).expect("an answer");
                    assert_eq!(answer.text(), "one");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_until("all are served", client::PATIENCE, || {
            served.load(Ordering::Relaxed) > 8
        });
        post(&proxy, "/debug/panic/0");
    });
    assert!(served.load(Ordering::Relaxed) > 8);
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert!(proxy.stderr().contains("asked to panic by a test"));
}

/// The process ends for its supervisor; no client is left waiting on a core that is gone.
#[test]
fn a_core_that_panics_ends_the_process() {
    let backend = backend::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut proxy = Options::new()
        .cores("0-1")
        .drain("60s")
        .route("a.test", &[&backend.member()])
        .args(&["--debug-faults", "yes"])
        .start();
    let mut open: Vec<TcpStream> = (0..20).map(|_| client::connect(proxy.http())).collect();
    for stream in &mut open {
        stream.write_all(HEAD).expect("the proxy reads");
    }
    wait_until("they are relayed", client::PATIENCE, || {
        backend.accepted() == 20
    });
    let refused = post(&proxy, "/debug/panic/7");
    assert!(refused.bytes.starts_with(b"HTTP/1.1 404 "), "{refused:?}");
    let asked = Instant::now();
    post(&proxy, "/debug/panic/1");
    let status = proxy.wait_for_exit(client::PATIENCE).expect("it ends");
    assert!(asked.elapsed() < Duration::from_secs(4));
    assert_eq!(status.code(), Some(1), "{}", proxy.stderr());
    let said = proxy.stderr();
    let line = said.lines().find(|line| line.contains("a core failed"));
    assert!(line.is_some_and(|line| line.contains("core=1")), "{said}");
    for mut stream in open {
        assert_eq!(Answer::read(&mut stream).bytes, b"");
    }
}

#[test]
fn without_debug_faults_nobody_can_make_a_core_panic() {
    let proxy = Options::new().route("a.test", &["127.0.0.1:1"]).start();
    let refused = post(&proxy, "/debug/panic/0");
    assert!(refused.bytes.starts_with(b"HTTP/1.1 405 "), "{refused:?}");
    assert_eq!(proxy.live(), 0);
}

/// Whoever reads the log as JSON meets nothing else, from the first line to the last.
#[test]
fn a_log_of_json_is_json_in_every_line() {
    let json = ["--log-format", "json", "--log", "debug"];
    let mut proxy = Options::new()
        .route("a.test", &["127.0.0.1:9"])
        .args(&json)
        .args(&["--debug-faults", "yes"])
        .start();
    let admin = proxy.admin();
    let mut stream = std::net::TcpStream::connect(admin).expect("it listens");
    std::io::Write::write_all(
        &mut stream,
        format!("POST /debug/panic/0 HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )
    .expect("it reads");
    let ended = proxy.wait_for_exit(Duration::from_secs(10));
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    let refused = Options::new()
        .route("a.test", &["127.0.0.1:9"])
        .listen("--http", &admin.to_string())
        .args(&json)
        .args(&["--latency-dir", "/dev/null/no"])
        .start_and_fail();
    for said in [proxy.stderr(), refused.1] {
        assert!(!said.is_empty());
        for line in said.lines() {
            let parsed: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error}: {line}\nin\n{said}"));
            assert!(
                parsed["level"].is_string() && parsed["message"].is_string(),
                "{line}"
            );
        }
    }
}
