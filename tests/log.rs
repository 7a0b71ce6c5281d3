//! What the log says of connections and of those that failed: every line is JSON where that was asked
//! for, and says what was so.

mod support;

use serde_json::Value;
use support::client::{self, Cut, Hello, PATIENCE, exchange};
use support::http::{Wire, scripted};
use support::port::refusing;
use support::proxy::{Options, Proxy};
use support::{backend, wait_until};

const BODY_BYTES: usize = 20_000;

/// Every line that was written so far.
fn lines(proxy: &Proxy) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    proxy.stderr().lines().map(parse).collect()
}

fn connections(proxy: &Proxy, count: usize) -> Vec<Value> {
    let is_it = |line: &Value| line["target"] == "pointsman::connection";
    let all = || lines(proxy).into_iter().filter(is_it).collect::<Vec<_>>();
    wait_until("a line for each connection", PATIENCE, || {
        all().len() == count
    });
    all()
}

/// A backend whose tunnel has as many bytes as the bodies here.
fn switching() -> backend::Backend {
    backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        );
        wire.send(vec![b'x'; BODY_BYTES]);
        let _ = wire.rest();
    })
}

#[test]
fn a_connection_has_its_name_its_backend_and_its_bytes() {
    let large = scripted(|_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        Some([head.as_bytes(), &vec![b'x'; BODY_BYTES]].concat())
    });
    let switching = switching();
    let (_held, away) = refusing();
    let proxy = Options::new()
        .route("large.test", &[&large.member()])
        .route("tunnel.test", &[&switching.member()])
        .route("away.test", &[&away.to_string()])
        .args(&["--log", "debug", "--log-format", "json"])
        .start();
    let is_large = |line: &Value, side: &str| {
        let bytes = line[side].as_u64().expect("a number");
        (BODY_BYTES as u64..BODY_BYTES as u64 + 500).contains(&bytes)
    };

    let mut wire = Wire::connect(proxy.http());
    wire.get("large.test", "/");
    drop(wire);
    let line = connections(&proxy, 1).remove(0);
    assert_eq!(
        (&line["server.address"], &line["backend"]),
        (&"large.test".into(), &large.member().into())
    );
    assert_eq!(
        (&line["requests"], &line["attempts"]),
        (&1.into(), &1.into())
    );
    assert!(is_large(&line, "to_client_bytes"), "{line}");
    assert!(
        (1..200).contains(&line["to_backend_bytes"].as_u64().expect("a number")),
        "{line}"
    );

    // What was of the request before says nothing of the next.
    for (seen, host, status, backend, attempts) in [
        (1, "away.test", 502, away.to_string(), 1),
        (2, "nobody.test", 421, "-".to_owned(), 0),
    ] {
        let mut wire = Wire::connect(proxy.http());
        wire.get("large.test", "/");
        assert_eq!(wire.get(host, "/").status(), status);
        drop(wire);
        let line = connections(&proxy, seen + 1).remove(seen);
        assert_eq!(
            (&line["server.address"], &line["backend"]),
            (&host.into(), &backend.into()),
            "{line}"
        );
        assert_eq!(
            (&line["requests"], &line["attempts"]),
            (&2.into(), &attempts.into()),
            "{line}"
        );
        assert!(is_large(&line, "to_client_bytes"), "{line}");
    }

    let mut wire = Wire::connect(proxy.http());
    wire.send("GET / HTTP/1.1\r\nHost: tunnel.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    assert_eq!(wire.response_head().status(), 101);
    wire.send(vec![b'y'; BODY_BYTES]);
    wire.finish();
    assert_eq!(wire.rest().len(), BODY_BYTES);
    drop(wire);
    let line = connections(&proxy, 4).remove(3);
    assert_eq!(line["server.address"], "tunnel.test");
    assert!(
        is_large(&line, "to_client_bytes") && is_large(&line, "to_backend_bytes"),
        "{line}"
    );
}

/// Whoever is called at night has the host and the backend without another level.
#[test]
fn a_failure_names_its_host_and_its_backend_at_the_usual_level() {
    let (_held, away) = refusing();
    let away = away.to_string();
    let closing = backend::raw(|stream| {
        let _ = Wire::new(stream).request_head();
    });
    let broken = scripted(|_, _| Some(b"SSH-2.0-x\r\n\r\n".to_vec()));
    let proxy = Options::new()
        .route("away.test", &[&away])
        .route("closing.test", &[&closing.member()])
        .route("broken.test", &[&broken.member()])
        .args(&["--log-format", "json"])
        .start();
    let failures = || {
        let all = lines(&proxy).into_iter();
        all.filter(|line| line["server.address"].is_string())
            .collect::<Vec<_>>()
    };
    let mut count = 0;
    let mut expect = |host: &str, backend: &str, outcome: &str| {
        count += 1;
        wait_until("a line", PATIENCE, || failures().len() == count);
        let line = failures().pop().expect("a line");
        assert_eq!(
            (&line["server.address"], &line["backend"]),
            (&host.into(), &backend.into()),
            "{line}"
        );
        let message = line["message"].as_str().expect("words");
        assert!(message.starts_with(&format!("{outcome}: ")), "{line}");
        assert_eq!(line["level"], "WARN");
        assert!(line["attempts"].is_u64(), "{line}");
    };
    for (host, backend, outcome) in [
        ("away.test", &away, "backend_unreachable"),
        ("closing.test", &closing.member(), "backend_closed"),
        ("broken.test", &broken.member(), "response_invalid"),
    ] {
        assert_eq!(Wire::connect(proxy.http()).get(host, "/").status(), 502);
        expect(host, backend, outcome);
    }
    let hello = Hello::named("away.test").record();
    let answer = exchange(proxy.https(), &hello, Cut::Whole);
    assert_eq!(answer.alert(), Some(client::INTERNAL_ERROR));
    expect("away.test", &away, "backend_unreachable");
    // What is the client's own doing is not said here.
    assert_eq!(
        Wire::connect(proxy.http()).get("nobody.test", "/").status(),
        421
    );
    // A flood of failures does not become a flood of lines.
    for _ in 0..60 {
        assert_eq!(
            Wire::connect(proxy.http()).get("away.test", "/").status(),
            502
        );
    }
    proxy.wait_for_outcome("http", "backend_unreachable", 61);
    assert!(failures().len() <= count + 50, "{}", failures().len());
}

#[test]
fn a_table_that_was_never_read_serves_nobody() {
    let (_held, away) = refusing();
    let proxy = Options::new()
        .route("a.test", &["127.0.0.1:9"])
        .args(&[
            "--redis",
            &format!("redis://{away}"),
            "--log-format",
            "json",
        ])
        .start();
    let line = proxy.wait_for_line("connection to Redis lost", PATIENCE);
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["serving"], "nothing yet");
    assert!(line["retry_in_s"].is_f64(), "{line}");
    assert!(line["server.port"].is_u64(), "{line}");
}
