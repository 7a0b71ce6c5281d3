//! Two tenants on kept-alive connections never meet: clients that pipeline, change between tenants,
//! leave in the middle and finish early, backends that close, answer early and speak unasked, all at
//! once and for as long as `POINTSMAN_TENANTS_SECONDS` says. Every response is held against the
//! request it answers, every request against what its client sent.

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::backend::Backend;
use support::http::{Message, Wire};
use support::proxy::{Options, Proxy};
use support::tenant::{Ask, BODY_BYTES_MAX, Faults, SHAPES, Shape, tenant};

const HOSTS: [&str; 2] = ["a.test", "b.test"];
const CLIENTS: u64 = 24;

/// What the clients share.
struct Run {
    http: SocketAddr,
    end: Instant,
    numbers: AtomicU64,
    faults: Faults,
    /// Responses that were right, by shape, and those that a backend's close has cost.
    right: Mutex<HashMap<Shape, u64>>,
    lost: AtomicU64,
}

/// How a connection goes on behind a response.
#[derive(PartialEq, Eq)]
enum After {
    More,
    Closed,
    Nothing,
}

#[test]
fn two_tenants_never_meet() {
    let seconds = std::env::var("POINTSMAN_TENANTS_SECONDS").unwrap_or_else(|_| "10".to_owned());
    let seconds: u64 = seconds.parse().expect("a number of seconds");
    let faults = Faults::default();
    let [a, b] = HOSTS.map(|host| tenant(host, &faults));
    let proxy = start(&a, &b);
    let run = Run {
        http: proxy.http(),
        end: Instant::now() + Duration::from_secs(seconds),
        numbers: AtomicU64::new(0),
        faults,
        right: Mutex::default(),
        lost: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let run = &run;
            scope.spawn(move || live(run, client));
        }
    });
    assert_eq!(run.faults.first(), None);
    let right = run.right.lock().expect("no panic").clone();
    let total: u64 = right.values().sum();
    let lost = run.lost.load(Ordering::Relaxed);
    let reused = counter(&proxy, "upstream_connections_reused_total");
    let said = format!(
        "{total} requests answered right in {seconds} s, {lost} told of a backend's close, \
         {reused} on connections used before, {} sent again, {} MiB spliced: {right:?}\n",
        counter(
            &proxy,
            "upstream_retries_total{reason=\"stale_connection\"}"
        ),
        counter(&proxy, "relayed_bytes_total{method=\"splice\"}") >> 20,
    );
    let _ = std::io::stderr().write_all(said.as_bytes());
    for shape in SHAPES {
        assert!(right.contains_key(&shape), "{shape:?} never happened");
    }
    // Most are answered on connections that others have used, and few are lost.
    assert!(reused > total / 4, "{said}");
    assert!(lost < total / 20, "{said}");
    assert!(
        counter(
            &proxy,
            "upstream_retries_total{reason=\"stale_connection\"}"
        ) > 0,
        "{said}"
    );
    assert!(
        counter(&proxy, "relayed_bytes_total{method=\"splice\"}") > 0,
        "{said}"
    );
}

fn start(a: &Backend, b: &Backend) -> Proxy {
    Options::new()
        .cores("0-1")
        .route("a.test", &[&a.member()])
        .route("b.test", &[&b.member()])
        .args(&["--requests-per-connection-max", "50"])
        .args(&["--pool-per-backend", "8", "--pool-idle-deadline", "2s"])
        .start()
}

fn counter(proxy: &Proxy, name: &str) -> u64 {
    let value = proxy.series(&format!("pointsman_{name}"));
    value.expect("a counter") as u64
}

/// One client's life: burst after burst.
fn live(run: &Run, client: u64) {
    let mut dice = fastrand::Rng::with_seed(client);
    let mut wire = None;
    while Instant::now() < run.end && run.faults.is_empty() {
        let taken = wire.take();
        let at = taken.unwrap_or_else(|| Wire::connect(run.http));
        wire = burst(run, at, &mut dice);
    }
}

/// Several requests in one go and their answers. Gives back the connection while it is good.
fn burst(run: &Run, mut wire: Wire, dice: &mut fastrand::Rng) -> Option<Wire> {
    let asks = asks(run, dice);
    let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
    let mut sender = wire.stream.try_clone().expect("a descriptor");
    let (leaves, finishes) = (dice.u8(..40) == 0, dice.u8(..16) == 0);
    let cut = dice.usize(..bytes.len());
    let pauses = dice.u8(..4) == 0;
    if leaves {
        let _ = sender.write_all(&bytes[..cut]);
        let linger = socket2::SockRef::from(&sender).set_linger(Some(Duration::ZERO));
        linger.expect("a socket option");
        return None;
    }
    std::thread::scope(|scope| {
        let has_large = bytes.len() > 16 << 10;
        let mut send = move || {
            // The proxy may have closed; what it said before is looked at below.
            let first = if pauses { cut } else { 0 };
            let _ = sender.write_all(&bytes[..first]);
            if pauses {
                std::thread::sleep(Duration::from_micros(500));
            }
            let _ = sender.write_all(&bytes[first..]);
            if finishes {
                let _ = sender.shutdown(std::net::Shutdown::Write);
            }
        };
        // Small requests fit into the sockets; large ones are read while they are written.
        if has_large {
            _ = scope.spawn(send);
        } else {
            send();
        }
        let goes_on = answers(run, &mut wire, &asks) && !finishes;
        if !goes_on {
            // Gets a sender out of its write.
            let _ = wire.stream.shutdown(std::net::Shutdown::Both);
        }
        goes_on
    })
    .then_some(wire)
}

fn asks(run: &Run, dice: &mut fastrand::Rng) -> Vec<Ask> {
    let mut asks: Vec<Ask> = Vec::new();
    let count = dice.usize(1..10);
    while asks.len() < count {
        let shape = match dice.u8(..8) {
            0..4 => Shape::Length,
            _ => SHAPES[dice.usize(..SHAPES.len())],
        };
        let mut bytes = |usual: u8| match dice.u8(..100) {
            0 => dice.usize(..BODY_BYTES_MAX),
            1..4 => dice.usize(..200_000),
            n if n < usual => 0,
            _ => dice.usize(..4_000),
        };
        let has_body = !matches!(shape, Shape::Head | Shape::Ignored);
        let body_bytes = if has_body { bytes(60) } else { 0 };
        let answer_bytes = bytes(10);
        asks.push(Ask {
            host: HOSTS[dice.usize(..2)].to_owned(),
            number: run.numbers.fetch_add(1, Ordering::Relaxed),
            shape,
            body_bytes,
            chunked: has_body && dice.bool() && body_bytes > 0,
            answer_bytes,
        });
        // Nothing is answered behind these.
        if matches!(shape, Shape::Early | Shape::UntilClose) {
            break;
        }
    }
    asks
}

/// Takes the answers in order; whether the connection goes on.
fn answers(run: &Run, wire: &mut Wire, asks: &[Ask]) -> bool {
    for ask in asks {
        match next(run, wire, ask) {
            After::More => {}
            After::Closed => {
                let rest = wire.rest();
                if !rest.is_empty() {
                    let rest = String::from_utf8_lossy(&rest[..rest.len().min(200)]).into_owned();
                    run.faults
                        .add(format!("behind the end, after {ask:?}: {rest:?}"));
                }
                return false;
            }
            After::Nothing => return false,
        }
    }
    true
}

fn next(run: &Run, wire: &mut Wire, ask: &Ask) -> After {
    loop {
        let answer = match wire.try_response(ask.shape == Shape::Head) {
            Ok(answer) => answer,
            Err(_) if ask.may_be_lost() => {
                run.lost.fetch_add(1, Ordering::Relaxed);
                return After::Nothing;
            }
            Err(error) => {
                run.faults.add(format!("{error}, not an answer to {ask:?}"));
                return After::Nothing;
            }
        };
        if answer.status() < 200 {
            if ask.shape != Shape::Interim {
                run.faults.add(format!("{:?} to {ask:?}", answer.head));
                return After::Nothing;
            }
            continue;
        }
        return judge(run, ask, &answer);
    }
}

fn judge(run: &Run, ask: &Ask, answer: &Message) -> After {
    let after = match answer.field("connection") {
        Some("close") => After::Closed,
        _ => After::More,
    };
    // What has a body may have been acted upon, so it is not sent twice.
    let has_body = ask.body_bytes > 0 || matches!(ask.shape, Shape::Ignored);
    if answer.status() == 502
        && has_body
        && answer.field("pointsman-outcome") == Some("backend_closed")
    {
        run.lost.fetch_add(1, Ordering::Relaxed);
        return After::Closed;
    }
    let status = match ask.shape {
        Shape::NotModified => 304,
        Shape::NoContent => 204,
        Shape::Early => 403,
        _ => 200,
    };
    let number = ask.number.to_string();
    let is_right = answer.status() == status
        && answer.field("x-number") == Some(&number)
        && answer.body == ask.answer();
    if !is_right {
        run.faults.add(format!(
            "{:?} with {} bytes to {ask:?}",
            answer.head,
            answer.body.len()
        ));
        return After::Nothing;
    }
    *run.right
        .lock()
        .expect("no panic")
        .entry(ask.shape)
        .or_insert(0) += 1;
    after
}
