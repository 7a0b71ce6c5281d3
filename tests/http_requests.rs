//! Requests of the rarer kinds, on the wire: upgrades with a body, trailers, and requests that may not
//! go on.

mod support;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::backend::{self, Backend};
use support::client::{Cut, send_cut};
use support::http::{Wire, reflecting};
use support::proxy::{Options, Proxy};

fn start(member: &str) -> Proxy {
    Options::new().route("a.test", &[member]).start()
}

/// Changes over to a protocol that first says which body came, and then sends back what it gets. For
/// `/early` it says 101 before it has read the body; for `/no` it does not change over.
fn switching() -> Backend {
    backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(head)) = wire.request_head() {
            let path = head.head.split(' ').nth(1).expect("a target").to_owned();
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            if path == "/early" {
                wire.send(switch);
            }
            let Ok(body) = wire.request_body(&head) else {
                return;
            };
            let asks =
                head.field("upgrade") == Some("tcp") && head.field("connection") == Some("upgrade");
            if path == "/no" || !asks {
                let body = [head.head.as_bytes(), &body].concat();
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                ));
                wire.send(body);
                continue;
            }
            if path != "/early" {
                wire.send(switch);
            }
            wire.send([b"got:", &body[..], b";"].concat());
            let early = wire.take_buffered();
            wire.send(early);
            let mut stream = wire.stream;
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..bytes]);
            }
            return;
        }
    })
}

const UPGRADE: &str =
    "POST /PATH HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";

/// What kubectl exec and docker attach send, and every other way to say a body: it is sent first, and
/// the tunnel begins behind it, for bytes that came with it, too.
#[test]
fn an_upgrade_with_a_body_becomes_a_tunnel_behind_it() {
    let backend = switching();
    let proxy = start(&backend.member());
    let large = "x".repeat(300_000);
    let chunks = |body: &str| {
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let length = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    for (body, framed) in [
        ("", "\r\n".to_owned()),
        ("", length("")),
        (r#"{"Tty":true}"#, length(r#"{"Tty":true}"#)),
        (&large, length(&large)),
        ("", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (r#"{"Tty":true}"#, chunks(r#"{"Tty":true}"#)),
        (&large, chunks(&large)),
    ] {
        for path in ["now", "early"] {
            let request = UPGRADE.replace("PATH", path) + &framed;
            let head = request.find("\r\n\r\n").expect("a head") + 4;
            for cut in [
                Cut::Whole,
                Cut::At(head.min(request.len() - 1)),
                Cut::At(head - 1),
            ] {
                let mut wire = Wire::connect(proxy.http());
                let mut stream = wire.stream.try_clone().expect("a descriptor");
                let eager = format!("{request}eager ");
                send_cut(&mut stream, eager.as_bytes(), cut);
                assert_eq!(
                    wire.response_head().status(),
                    101,
                    "{path} {cut:?} {framed:.60}"
                );
                wire.send("and late");
                wire.finish();
                let want = format!("got:{body};eager and late");
                assert!(
                    wire.rest() == want.as_bytes(),
                    "{path} {cut:?} {framed:.60}"
                );
            }
        }
    }
}

/// A client that goes within the body, and a backend that does, after its 101.
#[test]
fn an_upgrade_whose_body_never_ends_is_no_tunnel() {
    let backend = switching();
    let proxy = start(&backend.member());
    for path in ["now", "early"] {
        let mut wire = Wire::connect(proxy.http());
        wire.send(UPGRADE.replace("PATH", path) + "Content-Length: 9\r\n\r\npart");
        // The backend has it, and has answered early where it does.
        std::thread::sleep(Duration::from_millis(100));
        wire.finish();
        assert!(!wire.rest().starts_with(b"HTTP/1.1 101"));
    }
    proxy.wait_for_outcome("http", "body_cut_off", 2);
}

#[test]
fn behind_an_upgrade_with_a_body_that_is_refused_comes_another_request() {
    let backend = switching();
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        wire.send(
            UPGRADE.replace("PATH", "no")
                + "Content-Length: 4\r\n\r\nbody"
                + "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        );
        let answer = wire.response();
        assert!(
            answer
                .text()
                .ends_with("\r\nConnection: upgrade\r\n\r\nbody"),
            "{answer:?}"
        );
        assert_eq!(
            wire.response().text(),
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
        );
    }
    // To HTTP/2 it is none, whichever field says so.
    for upgrades in ["h2c\r\nUpgrade: tcp", "tcp\r\nUpgrade: h2c"] {
        wire.send(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {upgrades}\r\n\r\n"
        ));
        assert_eq!(
            wire.response().text(),
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
        );
    }
}

/// Behind a body nobody can be told who the client is, nor who may what.
#[test]
fn trailers_that_only_a_head_may_say_reach_no_backend() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = seen.clone();
    let backend = backend::raw(move |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            writer
                .lock()
                .expect("no panic")
                .extend_from_slice(&buffer[..bytes]);
        }
    });
    let proxy = start(&backend.member());
    let names = [
        "X-Forwarded-For",
        "x-forwarded-host",
        "X_Forwarded_For",
        "X-Real-IP",
        "X-Real_IP",
        "Forwarded",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Host",
        "Content-Length",
        "Proxy",
    ];
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "1\r\nx\r\n0\r\nX-Sum: 1\r\n";
    for name in names {
        let request = format!("{head}{body}{name}: evil\r\n\r\n");
        for cut in [Cut::Whole, Cut::At(head.len()), Cut::At(request.len() - 8)] {
            let mut wire = Wire::connect(proxy.http());
            let mut stream = wire.stream.try_clone().expect("a descriptor");
            send_cut(&mut stream, request.as_bytes(), cut);
            let answer = wire.response();
            assert_eq!(answer.status(), 400, "{name} {cut:?}");
            assert_eq!(answer.field("pointsman-outcome"), Some("trailer"), "{name}");
        }
    }
    let seen = seen.lock().expect("no panic");
    assert!(
        !seen.windows(4).any(|four| four == b"evil"),
        "{}",
        seen.escape_ascii()
    );
}

#[test]
fn a_request_that_may_not_go_on_is_answered_here() {
    let backend = reflecting("A");
    let proxy = start(&backend.member());
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..2 {
        wire.send("OPTIONS /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n");
        let answer = wire.response();
        assert_eq!((answer.status(), answer.text()), (200, ""));
        assert!(
            answer
                .field("allow")
                .is_some_and(|allow| allow.contains("GET"))
        );
        wire.send("TRACE /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nCookie: secret\r\nX: y\r\n\r\n");
        let answer = wire.response();
        assert_eq!(answer.field("content-type"), Some("message/http"));
        assert_eq!(
            answer.text(),
            "TRACE /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nX: y\r\n\r\n"
        );
    }
    assert_eq!(backend.accepted(), 0);
    for (method, came, goes) in [
        ("OPTIONS", 1, 0),
        ("TRACE", 7, 6),
        ("GET", 0, 0),
        ("POST", 5, 5),
    ] {
        wire.send(format!(
            "{method} /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {came}\r\n\r\n"
        ));
        let want =
            format!("A\n{method} /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {goes}\r\n\r\n");
        assert_eq!(wire.response().text(), want);
    }
    // A host that nobody knows is none that answers.
    wire.send("OPTIONS /x HTTP/1.1\r\nHost: b.test\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(wire.response().status(), 421);
}
