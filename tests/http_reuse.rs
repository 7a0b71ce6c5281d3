//! Requests of many clients share connections to backends, and yet nobody ever sees what was meant
//! for another.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::backend::Backend;
use support::http::{Wire, reflecting, scripted};
use support::proxy::{Options, Proxy};
use support::{client, wait_until};

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn counter(proxy: &Proxy, name: &str) -> u64 {
    let value = proxy.series(&format!("pointsman_{name}"));
    value.expect("a counter") as u64
}

#[test]
fn clients_share_a_backend_connection() {
    let backend = reflecting("A");
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    for _ in 0..10 {
        let mut wire = Wire::connect(proxy.http());
        for _ in 0..3 {
            assert!(wire.get("a.test", "/").text().starts_with("A\n"));
        }
    }
    assert_eq!(backend.accepted(), 1);
    assert_eq!(counter(&proxy, "upstream_connections_reused_total"), 29);
    assert_eq!(counter(&proxy, "requests_total"), 30);
    assert_eq!(counter(&proxy, "responses_total{class=\"2xx\"}"), 30);
    proxy.wait_for_outcome("http", "relayed", 10);
    assert_eq!(proxy.per_core("backends_idle"), [1]);
}

/// Each answer is held against the very request it answers: by host, by number, by order.
#[test]
fn two_tenants_on_one_connection_never_meet() {
    let [a, b] = ["A", "B"].map(reflecting);
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&a.member()])
        .route("b.test", &[&b.member()])
        .start();
    let http = proxy.http();
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            scope.spawn(move || {
                let mut wire = Wire::connect(http);
                for round in 0..60usize {
                    let tenants: Vec<(&str, &str)> = (0..1 + (thread + round) % 7)
                        .map(|n| match (thread + round * n) % 2 {
                            0 => ("a.test", "A"),
                            _ => ("b.test", "B"),
                        })
                        .collect();
                    let mut batch = String::new();
                    for (n, (host, _)) in tenants.iter().enumerate() {
                        let body = "x".repeat((round * 997 * n) % 3000);
                        batch += &format!(
                            "POST /{thread}/{round}/{n} HTTP/1.1\r\nHost: \
                             {host}\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        );
                    }
                    wire.send(&batch);
                    // Some leave in the middle of what they asked for.
                    if (thread + round) % 13 == 0 {
                        wire = Wire::connect(http);
                        continue;
                    }
                    for (n, (host, who)) in tenants.iter().enumerate() {
                        let answer = wire.response();
                        let want = format!(
                            "{who}\nPOST /{thread}/{round}/{n} HTTP/1.1\r\nHost: {host}\r\n"
                        );
                        assert!(
                            answer.text().starts_with(&want),
                            "{want:?}: {}",
                            answer.text()
                        );
                    }
                }
            });
        }
    });
    assert!(counter(&proxy, "upstream_connections_reused_total") > 500);
    // Far fewer connections than requests.
    assert!(a.accepted() + b.accepted() < 400, "{}", a.accepted());
}

#[test]
fn what_a_backend_says_unasked_reaches_nobody() {
    let evil = scripted(|_, _| {
        let two = [ok("mine"), ok("not yours")].concat();
        Some(two)
    });
    // The second response comes late, when the connection is already in the pool.
    let late = support::backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(_)) = wire.request() {
            wire.send(ok("mine"));
            // By then the connection is in the pool.
            std::thread::sleep(Duration::from_millis(100));
            wire.send(ok("not yours"));
        }
    });
    let proxy = Options::new()
        .route("evil.test", &[&evil.member()])
        .route("late.test", &[&late.member()])
        .start();
    for host in ["evil.test", "late.test"] {
        for _ in 0..4 {
            let mut wire = Wire::connect(proxy.http());
            assert_eq!(wire.get(host, "/").text(), "mine");
            // What comes unasked has come by then.
            std::thread::sleep(Duration::from_millis(150));
            assert_eq!(wire.get(host, "/").text(), "mine");
            // As above.
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    assert_eq!(counter(&proxy, "upstream_connections_reused_total"), 0);
}

/// The backend takes a second request on each connection and closes instead of answering it.
#[test]
fn a_request_that_meets_a_closed_connection_is_sent_again_where_that_is_no_harm() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let backend = scripted(move |request, number| {
        if number > 0 {
            count.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        Some(ok(request.head.lines().next().expect("a request line")))
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let mut wire = Wire::connect(proxy.http());
    assert_eq!(wire.get("a.test", "/1").text(), "GET /1 HTTP/1.1");
    assert_eq!(wire.get("a.test", "/2").text(), "GET /2 HTTP/1.1");
    assert_eq!(
        counter(
            &proxy,
            "upstream_retries_total{reason=\"stale_connection\"}"
        ),
        1
    );
    // A POST may have been acted upon.
    wire.send("POST /3 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    let answer = wire.response();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.field("pointsman-outcome"), Some("backend_closed"));
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    // A PUT is sent again, body and all; a retry is not retried.
    let mut wire = Wire::connect(proxy.http());
    assert_eq!(wire.get("a.test", "/4").status(), 200);
    wire.send("PUT /5 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(wire.response().text(), "PUT /5 HTTP/1.1");
}

#[test]
fn a_connection_that_its_backend_closed_is_not_used() {
    let backend = support::backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        if let Ok(Some(_)) = wire.request() {
            wire.send(ok("once"));
        }
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    for count in 1..=5 {
        let mut wire = Wire::connect(proxy.http());
        wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(wire.response().text(), "once");
        wait_until("it is seen closed", client::PATIENCE, || {
            std::thread::sleep(Duration::from_millis(30));
            backend.accepted() == count
        });
    }
    assert_eq!(counter(&proxy, "upstream_connections_reused_total"), 0);
    wait_until("it is swept", client::PATIENCE, || {
        proxy.per_core("backends_idle") == [0]
    });
}

#[test]
fn the_pool_has_bounds_and_a_deadline() {
    let backend = reflecting("A");
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--pool-per-backend", "2", "--pool-idle-deadline", "1500ms"])
        .start();
    let mut wires: Vec<Wire> = (0..5).map(|_| Wire::connect(proxy.http())).collect();
    for wire in &mut wires {
        wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nh");
    }
    wait_until("all are under way", client::PATIENCE, || {
        backend.accepted() == 5
    });
    for wire in &mut wires {
        wire.send("i");
        assert_eq!(wire.response().status(), 200);
    }
    assert_eq!(proxy.per_core("backends_idle"), [2]);
    wait_until("the deadline", client::PATIENCE, || {
        proxy.per_core("backends_idle") == [0]
    });
    // Clients are still there and served.
    assert_eq!(wires[4].get("a.test", "/").status(), 200);

    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--pool-per-backend", "0"])
        .start();
    let before = backend.accepted();
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        wire.get("a.test", "/");
    }
    assert_eq!(backend.accepted() - before, 3);
}

/// NTLM and Negotiate authenticate the connection, so a connection with them is its client's.
#[test]
fn credentials_of_a_connection_stay_with_their_client() {
    let connections = Arc::new(Mutex::new(0usize));
    let backend = support::backend::raw(move |stream| {
        let mut count = connections.lock().expect("no panic");
        *count += 1;
        let name = format!("connection {count}");
        drop(count);
        let mut wire = Wire::new(stream);
        while let Ok(Some(_)) = wire.request() {
            wire.send(ok(&name));
        }
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let login = "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: NTLM TlRMTVNTUAAB\r\n\r\n";
    let mut alice = Wire::connect(proxy.http());
    alice.send(login);
    assert_eq!(alice.response().text(), "connection 1");
    let mut bob = Wire::connect(proxy.http());
    assert_eq!(bob.get("a.test", "/").text(), "connection 2");
    assert_eq!(alice.get("a.test", "/").text(), "connection 1");
    drop(alice);
    assert_eq!(bob.get("a.test", "/").text(), "connection 2");
    let mut carol = Wire::connect(proxy.http());
    assert_eq!(carol.get("a.test", "/").text(), "connection 2");
}

#[test]
fn answers_that_end_with_their_connection_are_not_waited_behind() {
    let backend = scripted(|request, _| {
        if request.head.starts_with("GET /close ") {
            return Some(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nc".to_vec(),
            );
        }
        Some(ok("kept"))
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        // The backend's close is the backend's; the client's connection goes on.
        let answer = wire.get("a.test", "/close");
        assert_eq!((answer.text(), answer.field("connection")), ("c", None));
        assert_eq!(wire.get("a.test", "/").text(), "kept");
    }
}

/// What has come of the next requests is kept, what was answered is not.
#[test]
fn a_client_that_never_pauses_is_answered_in_order_and_costs_no_memory() {
    const REQUESTS: usize = 20_000;
    let backend = reflecting("A");
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--requests-per-connection-max", "1000000"])
        .start();
    let mut wire = Wire::connect(proxy.http());
    wire.get("a.test", "/");
    let before = proxy.resident_bytes();
    let mut sender = wire.stream.try_clone().expect("a descriptor");
    let thread = std::thread::spawn(move || {
        for number in 0..REQUESTS {
            let request = format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            std::io::Write::write_all(&mut sender, request.as_bytes()).expect("it is read");
        }
    });
    for number in 0..REQUESTS {
        let answer = wire.response();
        let want = format!("A\nGET /{number} HTTP/1.1\r\n");
        assert!(
            answer.text().starts_with(&want),
            "{want}: {}",
            answer.text()
        );
    }
    thread.join().expect("it has sent");
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown}");
}

/// Takes the head of each request for all of it and answers with its first line, a little later: a body
/// is the beginning of the next request.
fn leaves_bodies_unread() -> Backend {
    support::backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(head)) = wire.request_head() {
            std::thread::sleep(Duration::from_millis(20));
            wire.send(ok(head.head.lines().next().expect("a request line")));
        }
    })
}

const EVIL: &str = "GET /evil HTTP/1.1\r\nX: ";

fn post(host: &str, body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A body that was left unread is the beginning of a request, and that may only be its own client's,
/// at the host that it asked.
#[test]
fn a_body_left_unread_meets_nobody_elses_request() {
    let backend = leaves_bodies_unread();
    let member = backend.member();
    let proxy = Options::new()
        .route("plain.test", &[&member])
        .route("safe.test", &[&member, "@reuse=safe"])
        .route("never.test", &[&member, "@reuse=never"])
        .route("always.test", &[&member, "@reuse=always"])
        .route("other.test", &[&member])
        .start();
    let poison = |host: &str| {
        let mut evil = Wire::connect(proxy.http());
        evil.send(post(host, EVIL));
        assert_eq!(evil.response().text(), "POST / HTTP/1.1");
        evil
    };
    for host in ["plain.test", "safe.test", "never.test"] {
        let mut evil = poison(host);
        for asked in [host, "other.test", "always.test"] {
            let answer = Wire::connect(proxy.http()).get(asked, "/mine");
            assert_eq!(answer.text(), "GET /mine HTTP/1.1", "{host} {asked}");
        }
        // Another host of the same backend is another matter for the same client, too.
        let answer = evil.get("other.test", "/mine");
        assert_eq!(answer.text(), "GET /mine HTTP/1.1", "{host}");
        assert_eq!(evil.get(host, "/own").text(), "GET /evil HTTP/1.1");
    }
    // Who asks for it has it so, and nobody else.
    let _evil = poison("always.test");
    let answer = Wire::connect(proxy.http()).get("always.test", "/mine");
    assert_eq!(answer.text(), "GET /evil HTTP/1.1");
    let _evil = poison("always.test");
    for host in ["plain.test", "never.test"] {
        let answer = Wire::connect(proxy.http()).get(host, "/mine");
        assert_eq!(answer.text(), "GET /mine HTTP/1.1", "{host}");
    }
}

/// How many connections two clients need, one after the other, each with a POST and two GETs.
#[test]
fn the_option_says_who_shares_connections() {
    for (option, body, want) in [
        ("@reuse=always", "hi", 1),
        ("@reuse=safe", "hi", 2),
        ("@reuse=safe", "", 1),
        ("@reuse=never", "", 2),
    ] {
        let backend = reflecting("A");
        let proxy = Options::new()
            .route("a.test", &[&backend.member(), option])
            .start();
        let mut wires = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::connect(proxy.http());
            wire.send(post("a.test", body));
            assert_eq!(wire.response().status(), 200);
            for _ in 0..2 {
                assert_eq!(wire.get("a.test", "/").status(), 200);
            }
            wires.push(wire);
        }
        assert_eq!(backend.accepted(), want, "{option} {body:?}");
        assert_eq!(proxy.per_core("backends_idle"), [want as u64], "{option}");
        // What is a client's own goes with it.
        drop(wires);
        let left = if want == 1 { 1 } else { 0 };
        wait_until("they are closed", client::PATIENCE, || {
            proxy.per_core("backends_idle") == [left]
        });
    }
}

/// A connection that waits for its client is none in use, and gives way to one that is.
#[test]
fn what_waits_for_its_client_keeps_nobody_from_a_backend() {
    let backend = reflecting("A");
    let member = format!("{} max=1", backend.member());
    let proxy = Options::new().route("a.test", &[&member]).start();
    let mut wires = [(); 3].map(|()| Wire::connect(proxy.http()));
    for _ in 0..2 {
        for wire in &mut wires {
            wire.send(post("a.test", "hi"));
            assert_eq!(wire.response().status(), 200);
            assert_eq!(proxy.per_core("backends_idle"), [1]);
        }
    }
    assert_eq!(backend.accepted(), 6);
}

/// The backend closes what was idle for as long as it said.
#[test]
fn a_connection_is_given_up_before_its_backend_closes_it() {
    for (field, pauses_ms, want) in [
        ("Keep-Alive: timeout=1, max=100\r\n", [700, 700], 3),
        ("keep-alive: TIMEOUT = 1\r\n", [700, 700], 3),
        ("Keep-Alive: timeout=0\r\n", [0, 0], 3),
        ("Keep-Alive: timeout=3\r\n", [700, 700], 1),
        (
            "Keep-Alive: max=5\r\nKeep-Alive: timeout=x\r\n",
            [700, 700],
            1,
        ),
    ] {
        let backend = scripted(move |_, _| {
            let answer = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 2\r\n\r\nok");
            Some(answer.into_bytes())
        });
        let proxy = Options::new().route("a.test", &[&backend.member()]).start();
        let mut wire = Wire::connect(proxy.http());
        for (request, pause_ms) in [("", 0), ("hi", pauses_ms[0]), ("hi", pauses_ms[1])] {
            std::thread::sleep(Duration::from_millis(pause_ms));
            wire.send(post("a.test", request));
            let answer = wire.response();
            assert_eq!((answer.status(), answer.field("keep-alive")), (200, None));
        }
        assert_eq!(backend.accepted(), want, "{field}");
    }
}
