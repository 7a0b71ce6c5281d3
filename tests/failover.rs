//! Backends that fail in every way there is, and what a client notices of it: nothing, as long as
//! another backend can take its place.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::backend::{self, Backend};
use support::client::{self, Answer, Hello, INTERNAL_ERROR};
use support::http::{Wire, scripted};
use support::port::{refusing, silent};
use support::proxy::{Options, Proxy};
use support::{skipped, wait_until};

fn counter(proxy: &Proxy, name: &str) -> u64 {
    let value = proxy.series(&format!("pointsman_{name}"));
    value.expect("a counter") as u64
}

fn start(members: &[&str], args: &[&str]) -> Proxy {
    Options::new().route("a.test", members).args(args).start()
}

/// Takes what it is sent and closes without a byte, as a server does whose worker dies.
fn closing() -> Backend {
    backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.shutdown(Shutdown::Both);
    })
}

/// Accepts and keeps silent while `frozen`; otherwise a name is all it says.
fn freezing(name: &'static str, frozen: Arc<AtomicBool>) -> Backend {
    backend::raw(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        while frozen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            stream.set_nonblocking(true).expect("a socket");
            if let Ok(0) = stream.peek(&mut [0]) {
                return;
            }
        }
        let _ = stream.write_all(name.as_bytes());
    })
}

/// What the backend says to a hello for `a.test`, and after how long.
fn say_hello(proxy: &Proxy) -> (Vec<u8>, Duration) {
    let mut stream = client::connect(proxy.https());
    let began = Instant::now();
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    (said, began.elapsed())
}

#[test]
fn a_tls_backend_that_closes_without_an_answer_is_gone_round_and_then_kept_out() {
    let bad = closing();
    let good = backend::tls("good");
    let args = ["--balance", "round-robin"];
    let proxy = start(&[&bad.member(), &good.member()], &args);
    for _ in 0..20 {
        let response = client::tls_get(proxy.https(), "a.test", "/").expect("no error");
        assert_eq!(response.text(), "good");
    }
    let rounds = counter(&proxy, "upstream_retries_total{reason=\"unanswered\"}");
    assert!((3..=6).contains(&rounds), "{rounds}");
    assert!(counter(&proxy, "outlier_ejections_total") >= 1);
    proxy.wait_for_line("backend ejected", Duration::from_secs(1));
    proxy.wait_for_outcome("tls", "relayed", 20);
}

/// What every backend closes upon is the client's fault, and no backend's.
#[test]
fn a_hello_that_no_backend_answers_is_held_against_none() {
    let bad = [closing(), closing()];
    let proxy = start(&[&bad[0].member(), &bad[1].member()], &[]);
    for _ in 0..10 {
        let (said, _) = say_hello(&proxy);
        assert_eq!(said, b"");
    }
    assert_eq!(
        counter(&proxy, "upstream_retries_total{reason=\"unanswered\"}"),
        10
    );
    assert_eq!(counter(&proxy, "outlier_ejections_total"), 0);
    assert_eq!((bad[0].accepted(), bad[1].accepted()), (10, 10));
}

#[test]
fn early_data_is_never_sent_to_a_second_backend() {
    let bad = closing();
    let good = backend::echo("good");
    let first = format!("{} weight=9", bad.member());
    let proxy = start(&[&first, &good.member()], &["--balance", "first"]);
    let mut stream = client::connect(proxy.https());
    let mut bytes = Hello::named("a.test").record();
    // An application data record in the same segment (RFC 8446 section 4.2.10).
    bytes.extend_from_slice(&[23, 3, 3, 0, 4, 1, 2, 3, 4]);
    stream.write_all(&bytes).expect("the proxy listens");
    assert_eq!(Answer::read(&mut stream).bytes, b"");
    assert_eq!((bad.accepted(), good.accepted()), (1, 0));
    let (said, _) = say_hello_and_finish(&proxy);
    assert!(said.starts_with(b"good"), "{said:?}");
}

/// As [`say_hello`], for a backend that echoes until the end of the stream.
fn say_hello_and_finish(proxy: &Proxy) -> (Vec<u8>, Duration) {
    let mut stream = client::connect(proxy.https());
    let began = Instant::now();
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    // The hello is to be with the backend before the end.
    std::thread::sleep(Duration::from_millis(100));
    stream.shutdown(Shutdown::Write).expect("connected");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    (said, began.elapsed())
}

#[test]
fn a_frozen_tls_backend_costs_its_clients_one_connect_deadline() {
    let frozen = Arc::new(AtomicBool::new(true));
    let bad = freezing("bad", frozen.clone());
    let good = freezing("good", Arc::default());
    let first = format!("{} weight=9", bad.member());
    let args = ["--balance", "first", "--connect-deadline", "400ms"];
    let proxy = start(&[&first, &good.member()], &args);
    for _ in 0..3 {
        let (said, took) = say_hello(&proxy);
        assert_eq!(said, b"good");
        assert!((350..1500).contains(&took.as_millis()), "{took:?}");
    }
    // Now it is kept out, and nobody waits any more.
    let (said, took) = say_hello(&proxy);
    assert_eq!(said, b"good");
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(bad.accepted(), 3);
    // It comes back by a trial.
    frozen.store(false, Ordering::Relaxed);
    wait_until("the backend is back", Duration::from_secs(10), || {
        say_hello(&proxy).0 == b"bad"
    });
    assert_eq!(counter(&proxy, "outlier_unejections_total"), 1);
    proxy.wait_for_line("backend is back", Duration::from_secs(1));
}

/// The only backend, however slow it is, is waited for: there is nothing better.
#[test]
fn the_last_backend_may_take_its_time() {
    let slow = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        // Longer than the connect deadline.
        std::thread::sleep(Duration::from_millis(900));
        let _ = stream.write_all(b"slow");
    });
    let proxy = start(&[&slow.member()], &["--connect-deadline", "200ms"]);
    assert_eq!(say_hello(&proxy).0, b"slow");
    // One that is refused by the other backend as well.
    let (_bound, refusing) = refusing();
    let proxy = start(
        &[&slow.member(), &refusing.to_string()],
        &["--connect-deadline", "200ms"],
    );
    for _ in 0..4 {
        assert_eq!(say_hello(&proxy).0, b"slow");
    }
}

/// Suspicion needs no timeout: half a second without the answer that is due is enough, and one answer
/// clears it.
#[test]
fn a_silent_backend_is_suspect_long_before_any_deadline() {
    let frozen = Arc::new(AtomicBool::new(true));
    let bad = freezing("bad", frozen.clone());
    let good = freezing("good", Arc::default());
    let args = ["--balance", "round-robin", "--connect-deadline", "30s"];
    let proxy = start(&[&bad.member(), &good.member()], &args);
    let hello = Hello::named("a.test").record();
    let open = || {
        let mut stream = client::connect(proxy.https());
        stream.write_all(&hello).expect("the proxy listens");
        stream
    };
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| open()).collect();
    // A backend that owes an answer is suspect after half a second.
    std::thread::sleep(Duration::from_millis(700));
    for _ in 0..20 {
        let (said, took) = say_hello(&proxy);
        assert_eq!(said, b"good");
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
    assert_eq!(bad.accepted(), 4);
    frozen.store(false, Ordering::Relaxed);
    for stream in &mut waiting {
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        assert!(said == "bad" || said == "good", "{said:?}");
    }
    let told: Vec<Vec<u8>> = (0..4).map(|_| say_hello(&proxy).0).collect();
    assert_eq!(told.iter().filter(|said| *said == b"bad").count(), 2);
    assert_eq!(counter(&proxy, "outlier_ejections_total"), 0);
}

#[test]
fn requests_that_may_be_repeated_go_round_and_others_do_not() {
    let bad = closing();
    let good = scripted(|request, _| {
        Some(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{:4}",
                request.text().len()
            )
            .into(),
        )
    });
    let first = format!("{} weight=9", bad.member());
    let args = ["--balance", "first", "--eject-failures", "0"];
    let proxy = start(&[&first, &good.member()], &args);
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
        "DELETE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let mut wire = Wire::connect(proxy.http());
        wire.send(head);
        assert_eq!(wire.response().status(), 200, "{head}");
    }
    assert_eq!(
        counter(&proxy, "upstream_retries_total{reason=\"unanswered\"}"),
        3
    );
    let mut wire = Wire::connect(proxy.http());
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
    let answer = wire.response();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.field("pointsman-outcome"), Some("backend_closed"));
    assert_eq!(
        counter(&proxy, "upstream_retries_total{reason=\"unanswered\"}"),
        3
    );
}

/// A backend that wants to be introduced is, each in its own way, and once.
#[test]
fn each_backend_that_is_gone_round_to_is_introduced_to_the_client_once() {
    let bad = closing();
    let good = backend::raw(|mut stream| {
        let mut received = vec![0; 4096];
        let read = stream.read(&mut received).expect("a request");
        let lines = String::from_utf8_lossy(&received[..read]).into_owned();
        let headers = lines.matches("PROXY TCP4 127.0.0.1 ").count();
        let body = format!("{headers} {}", lines.contains("\r\nGET / HTTP/1.1\r\n"));
        let length = body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    });
    let first = format!("{} proxy=v1 weight=9", bad.member());
    let second = format!("{} proxy=v1", good.member());
    let args = ["--balance", "first", "--eject-failures", "0"];
    let proxy = start(&[&first, &second], &args);
    for _ in 0..3 {
        let response = client::http_get(proxy.http(), "a.test", "/").expect("an answer");
        assert_eq!(response.text(), "1 true");
    }
}

#[test]
fn no_address_is_tried_twice_for_one_client() {
    let (_bound, refusing) = refusing();
    let members = [refusing.to_string(), format!("{refusing} proxy=v1")];
    let proxy = start(&[&members[0], &members[1]], &["--eject-failures", "0"]);
    let (said, _) = say_hello(&proxy);
    assert_eq!(said.last(), Some(&INTERNAL_ERROR));
    assert_eq!(counter(&proxy, "upstream_connect_attempts_total"), 1);
}

#[test]
fn all_attempts_of_a_client_share_one_deadline() {
    let silent = [silent(), silent(), silent()];
    let members = silent.each_ref().map(|(_, address)| address.to_string());
    let args = ["--connect-deadline", "600ms", "--backend-deadline", "900ms"];
    let proxy = start(&members.each_ref().map(String::as_str), &args);
    let (said, took) = say_hello(&proxy);
    assert_eq!(said.last(), Some(&INTERNAL_ERROR));
    assert!((850..1500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(counter(&proxy, "upstream_connect_attempts_total"), 2);
    proxy.wait_for_outcome("tls", "backend_timeout", 1);
}

#[test]
fn when_all_are_ejected_all_are_used_and_it_is_counted() {
    let (_bound, one) = refusing();
    let (_also, other) = refusing();
    let proxy = start(
        &[&one.to_string(), &other.to_string()],
        &["--eject-time", "1m"],
    );
    for _ in 0..3 {
        assert_eq!(say_hello(&proxy).0.last(), Some(&INTERNAL_ERROR));
    }
    assert_eq!(counter(&proxy, "outlier_ejections_total"), 2);
    assert_eq!(counter(&proxy, "panic_mode_picks_total"), 0);
    for _ in 0..5 {
        assert_eq!(say_hello(&proxy).0.last(), Some(&INTERNAL_ERROR));
    }
    assert_eq!(counter(&proxy, "panic_mode_picks_total"), 5);
    // Both were tried each time.
    assert_eq!(counter(&proxy, "upstream_connect_attempts_total"), 16);
}

/// A backend of one connection at a time: the others wait for their turn, and one too many is told.
#[test]
fn a_full_backend_has_a_short_queue() {
    let slow = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        // The others come meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nserved");
    });
    let member = format!("{} max=1", slow.member());
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&member, "@queue=2"])
        .args(&["--queue-deadline", "2s"])
        .start();
    let served = AtomicUsize::new(0);
    let full = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..5 {
            let (proxy, served, full) = (&proxy, &served, &full);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20 * number));
                let mut wire = Wire::connect(proxy.http());
                let answer = wire.get("a.test", "/");
                match answer.status() {
                    200 => served.fetch_add(1, Ordering::Relaxed),
                    503 => {
                        let outcome = answer.field("pointsman-outcome");
                        assert_eq!(outcome, Some("backends_full"));
                        full.fetch_add(1, Ordering::Relaxed)
                    }
                    other => panic!("{other}"),
                };
            });
        }
    });
    let (served, full) = (served.into_inner(), full.into_inner());
    assert_eq!((served, full), (3, 2));
    assert_eq!(counter(&proxy, "upstream_queued_total"), 2);
    // Nobody waits longer than the deadline.
    let stuck = backend::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let member = format!("{} max=1", stuck.member());
    let proxy = start(&[&member], &["--queue-deadline", "300ms"]);
    let mut first = client::connect(proxy.https());
    let hello = Hello::named("a.test").record();
    first.write_all(&hello).expect("the proxy listens");
    wait_until("it is connected", Duration::from_secs(2), || {
        stuck.accepted() == 1
    });
    let (said, took) = say_hello(&proxy);
    assert_eq!(said.last(), Some(&INTERNAL_ERROR));
    assert!((250..1000).contains(&took.as_millis()), "{took:?}");
    proxy.wait_for_outcome("tls", "backends_full", 1);
}

/// What each of some backends got of `count` requests on connections of their own.
fn spread(
    proxy: &Proxy,
    source: impl Fn(usize) -> [u8; 4],
    count: usize,
) -> HashMap<String, usize> {
    let mut spread = HashMap::new();
    for number in 0..count {
        let stream = client::connect_from(source(number).into(), proxy.http());
        let mut wire = Wire::new(stream);
        let answer = wire.get("a.test", "/");
        *spread.entry(answer.text().to_owned()).or_default() += 1;
    }
    spread
}

const LOCALHOST: fn(usize) -> [u8; 4] = |_| [127, 0, 0, 1];

#[test]
fn the_spread_of_each_choice_holds_across_cores() {
    let names = ["A", "B", "C"];
    let backends = names.map(backend::http);
    let members: Vec<String> = backends.iter().map(Backend::member).collect();
    let weighted = [
        format!("{} weight=1", members[0]),
        format!("{} weight=2", members[1]),
        format!("{} weight=3", members[2]),
    ];
    let proxy = |members: &[String], options: &[&str]| {
        let mut all: Vec<&str> = members.iter().map(String::as_str).collect();
        all.extend(options);
        Options::new()
            .cores("0-1")
            .route("a.test", &all)
            .args(&["--pool-per-backend", "0"])
            .start()
    };
    // By turns, shared by both cores: exact.
    let turns = spread(&proxy(&members, &["@balance=round-robin"]), LOCALHOST, 150);
    assert!(names.iter().all(|name| turns[*name] == 50), "{turns:?}");
    let turns = spread(&proxy(&weighted, &["@balance=round-robin"]), LOCALHOST, 300);
    for (name, want) in [("A", 50usize), ("B", 100), ("C", 150)] {
        assert!(turns[name].abs_diff(want) <= 2, "{turns:?}");
    }
    // By chance: 5 standard deviations of a binomial distribution.
    for (options, wants) in [
        (["@balance=random"], [50.0, 100.0, 150.0]),
        (["@balance=p2c"], [0.0; 3]),
    ] {
        let (members, wants) = match wants[0] {
            0.0 => (&members[..], [100.0; 3]),
            _ => (&weighted[..], wants),
        };
        let counts = spread(&proxy(members, &options), LOCALHOST, 300);
        for (name, want) in names.iter().zip(wants) {
            let deviation = f64::sqrt(want * (1.0 - want / 300.0));
            let got = counts[*name] as f64;
            assert!(
                (got - want).abs() < 5.0 * deviation,
                "{options:?} {counts:?}"
            );
        }
    }
    // By the client: always the same, and not all of them the same.
    let by_source = proxy(&members, &["@balance=source"]);
    let mut met = HashMap::new();
    for last in 1..=40u8 {
        let own = spread(&by_source, |_| [127, 0, 1, last], 3);
        assert_eq!(own.len(), 1, "127.0.1.{last}: {own:?}");
        *met.entry(own.into_keys().next().expect("one")).or_insert(0) += 1;
    }
    assert_eq!(met.len(), 3, "{met:?}");
}

#[test]
fn a_backup_waits_for_the_others_to_fail() {
    let (main, backup) = (backend::http("main"), backend::http("backup"));
    let address = main.member();
    let spare = format!("{} backup", backup.member());
    let args = ["--eject-time", "300ms", "--pool-per-backend", "0"];
    let proxy = start(&[&address, &spare], &args);
    let get = || {
        let response = client::http_get(proxy.http(), "a.test", "/");
        response.expect("no error").text().to_owned()
    };
    assert!((0..20).all(|_| get() == "main"));
    drop(main);
    assert!((0..20).all(|_| get() == "backup"));
    assert!(counter(&proxy, "outlier_ejections_total") >= 1);
    let _main = backend::http_at(&address, "main");
    wait_until("the main one is back", Duration::from_secs(10), || {
        get() == "main"
    });
    assert!((0..20).all(|_| get() == "main"));
}

/// What is waited for is the backend's first byte, whatever the client does meanwhile: a client that
/// goes on must not have its backend taken for silent for as long as it stays.
#[test]
fn a_client_that_goes_on_behind_its_hello_keeps_nobody_from_its_backend() {
    let answering = |name: &'static str| {
        backend::raw(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            std::thread::sleep(Duration::from_millis(30));
            let _ = stream.write_all(name.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    let backends = [answering("a"), answering("b")];
    let members = [backends[0].member(), backends[1].member()];
    let record = &[20, 3, 3, 0, 1, 1];
    let hello = Hello::named("a.test").record();
    for goes_on in ["in one piece", "a little later", "by its end of stream"] {
        let args = ["--balance", "round-robin"];
        let proxy = start(&[&members[0], &members[1]], &args);
        let open = |bytes: &[u8]| {
            let mut stream = client::connect(proxy.https());
            stream.write_all(bytes).expect("the proxy listens");
            stream
        };
        let first_byte = |stream: &mut TcpStream| {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            byte
        };
        let mut staying = match goes_on {
            "in one piece" => open(&[hello.as_slice(), record].concat()),
            _ => open(&hello),
        };
        std::thread::sleep(Duration::from_millis(10));
        match goes_on {
            "a little later" => staying.write_all(record).expect("connected"),
            "by its end of stream" => {
                staying.shutdown(Shutdown::Write).expect("connected");
            }
            _ => {}
        }
        let of_staying = first_byte(&mut staying);
        // After half a second without an answer it would be suspect.
        std::thread::sleep(Duration::from_millis(600));
        let others = (0..8).map(|_| first_byte(&mut open(&hello)));
        let alike = others.filter(|byte| *byte == of_staying).count();
        assert_eq!(alike, 4, "{goes_on}");
    }
}

/// After a cold start all are slow, and the first that answers is the first that was asked: it has not
/// failed, and nor have those that were asked later.
#[test]
fn a_slow_first_byte_is_no_failure_where_nobody_is_quicker() {
    let slow = |name: &'static str| {
        backend::raw(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            // Longer than two first-byte deadlines, after which all have been asked.
            std::thread::sleep(Duration::from_millis(1500));
            let _ = stream.write_all(name.as_bytes());
        })
    };
    let backends = [slow("a"), slow("b"), slow("c")];
    let members: Vec<String> = backends.iter().map(Backend::member).collect();
    let first = format!("{} weight=9", members[0]);
    let args = ["--balance", "first", "--first-byte-deadline", "400ms"];
    let proxy = start(&[&first, &members[1], &members[2]], &args);
    let (said, took) = say_hello(&proxy);
    assert_eq!(said, b"a");
    assert!((1400..2200).contains(&took.as_millis()), "{took:?}");
    let asked: Vec<usize> = backends.iter().map(Backend::accepted).collect();
    assert_eq!(asked, [1, 1, 1]);
    assert_eq!(counter(&proxy, "outlier_ejections_total"), 0);
    let page = proxy.admin_page("/backends");
    assert_eq!(page.matches("\"condition\": \"up\"").count(), 3, "{page}");
}

/// Also while the next one is still being connected to.
#[test]
fn a_late_answer_is_taken_whatever_is_tried_meanwhile() {
    let slow = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        // While the next one is being connected to.
        std::thread::sleep(Duration::from_millis(800));
        let _ = stream.write_all(b"slow");
    });
    let closing_late = backend::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        // Accepts, and closes before the first one answers.
        std::thread::sleep(Duration::from_millis(500));
    });
    let (_held, silent) = silent();
    let first = format!("{} weight=9", slow.member());
    for second in [silent.to_string(), closing_late.member()] {
        let args = ["--balance", "first", "--first-byte-deadline", "200ms"];
        let proxy = start(&[&first, &second], &args);
        let (said, took) = say_hello(&proxy);
        assert_eq!(said, b"slow");
        assert!((700..1600).contains(&took.as_millis()), "{took:?}");
    }
}

/// A reset between accept and the first byte is a matter of microseconds, so that strace makes it.
#[test]
fn a_backend_that_accepts_and_does_not_take_the_head_is_gone_round() {
    let hello = Hello::named("a.test").record();
    let mut early = hello.clone();
    early.extend_from_slice(&[23, 3, 3, 0, 4, 1, 2, 3, 4]);
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n";
    let mut h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    h2.extend_from_slice(b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x87\x84\x41\x06a.test");
    for option in ["", " proxy=v1", " proxy=v2"] {
        let answering = || {
            backend::raw(|mut stream| {
                if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            })
        };
        let (failing, good) = (answering(), answering());
        let first = format!("{}{option} weight=9", failing.member());
        let second = format!("{}{option}", good.member());
        let args = [
            "--balance",
            "first",
            "--eject-failures",
            "0",
            "--h2c",
            "yes",
        ];
        let proxy = start(&[&first, &second], &args);
        for (what, is_tls, bytes) in [
            ("a hello", true, hello.as_slice()),
            // Of which nobody has had a byte.
            ("early data", true, &early),
            ("a request", false, &client::request("a.test")),
            ("a body that is still to come", false, post.as_bytes()),
            ("HTTP/2", false, &h2),
        ] {
            let Some(_strace) = failing_once(&proxy) else {
                return skipped("strace: apt-get install strace, or it may not trace here");
            };
            let reached = good.accepted();
            let address = if is_tls { proxy.https() } else { proxy.http() };
            let mut stream = client::connect(address);
            stream.write_all(bytes).expect("the proxy listens");
            let mut said = [0; 12];
            stream.read_exact(&mut said).expect("an answer");
            assert_eq!(&said, b"HTTP/1.1 200", "{what}{option}");
            assert_eq!(good.accepted(), reached + 1, "{what}{option}");
        }
        wait_until("all have ended", Duration::from_secs(5), || {
            proxy.live() == 0
        });
    }
}

/// Ends with the test, or before.
struct Strace(std::process::Child);

impl Drop for Strace {
    fn drop(&mut self) {
        // Interrupted, it lets go of the proxy; killed, it might leave it stopped.
        let pid = self.0.id().to_string();
        let _ = std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status();
        let _ = self.0.wait();
    }
}

/// Lets the first thing fail that each thread of the proxy sends; `None` where that cannot be done.
fn failing_once(proxy: &Proxy) -> Option<Strace> {
    let strace = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto"])
        .args(["-e", "inject=sendto:error=ECONNRESET:when=1"])
        .args(["-p", &proxy.pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    let mut strace = Strace(strace);
    let is_traced = |thread: std::fs::DirEntry| {
        let status = std::fs::read_to_string(thread.path().join("status"));
        status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    };
    let tasks = format!("/proc/{}/task", proxy.pid());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let mut threads = std::fs::read_dir(&tasks).ok()?.flatten();
        if threads.all(is_traced) {
            return Some(strace);
        }
        if strace.0.try_wait().ok()?.is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
