//! Answers that come before an upload has ended: a client that sends on to its end and reads then
//! gets them whole, whoever gave them and whatever became of the backend.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::backend::{self, Backend};
use support::client::{self, Answer, Hello};
use support::http::Wire;
use support::port::refusing;
use support::proxy::Options;

/// Far more than lies in the sockets between.
const UPLOAD_BYTES: usize = 3 << 20;
/// A page that does not fit into the sockets of a client that reads nothing.
const LARGE_PAGE_BYTES: usize = 12 << 20;

/// What becomes of the backend's connection behind its early answer.
#[derive(Clone, Copy)]
enum Then {
    ReadsOn,
    StopsReading,
    Closes,
}

fn refuses_uploads(body_bytes: usize, then: Then) -> Backend {
    backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        let Ok(Some(_)) = wire.request_head() else {
            return;
        };
        let head = format!(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: {body_bytes}\r\nConnection: close\r\n\r\n"
        );
        let answer = [head.as_bytes(), &vec![b'y'; body_bytes]].concat();
        if wire.stream.write_all(&answer).is_err() {
            return;
        }
        match then {
            Then::ReadsOn => {
                let _ = wire.stream.shutdown(Shutdown::Write);
                wire.rest();
            }
            // Longer than the client takes for its upload.
            Then::StopsReading => std::thread::sleep(Duration::from_secs(3)),
            Then::Closes => {}
        }
    })
}

/// Sends `head` and then an upload as steadily as a client behind a fast line does, and only then reads.
fn upload(mut stream: TcpStream, head: &[u8]) -> Answer {
    stream.write_all(head).expect("the head is taken");
    let piece = vec![b'x'; 16 * 1024];
    for number in 0..UPLOAD_BYTES / piece.len() {
        if let Err(error) = stream.write_all(&piece) {
            panic!("after {number} pieces: {error}");
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    stream.shutdown(Shutdown::Write).expect("an end");
    Answer::read(&mut stream)
}

#[test]
fn an_answer_before_the_end_of_an_upload_arrives() {
    let (_bound, closed) = refusing();
    let reads = refuses_uploads(9, Then::ReadsOn);
    let stops = refuses_uploads(9, Then::StopsReading);
    let closes = refuses_uploads(9, Then::Closes);
    let large = refuses_uploads(LARGE_PAGE_BYTES, Then::ReadsOn);
    let unreadable = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request_head();
        wire.send("220 smtp.test ESMTP\r\n\r\n");
    });
    let proxy = Options::new()
        .route("reads.test", &[&reads.member()])
        .route("stops.test", &[&stops.member()])
        .route("closes.test", &[&closes.member()])
        .route("large.test", &[&large.member()])
        .route("unreadable.test", &[&unreadable.member()])
        .route("down.test", &[&closed.to_string()])
        .route("moved.test", &["@redirect=https"])
        .start();
    let length = format!("Content-Length: {UPLOAD_BYTES}");
    std::thread::scope(|scope| {
        for (host, framing, status) in [
            ("reads.test", &*length, 413),
            (
                "reads.test",
                "Transfer-Encoding: chunked\r\n\r\nno chunk",
                400,
            ),
            ("stops.test", &*length, 413),
            ("closes.test", &*length, 413),
            ("large.test", &*length, 413),
            ("unreadable.test", &*length, 502),
            ("down.test", &*length, 502),
            ("moved.test", &*length, 308),
            ("nobody.test", &*length, 421),
            ("a..b", &*length, 400),
        ] {
            let proxy = &proxy;
            scope.spawn(move || {
                let head = format!("POST /up HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n");
                let answer = upload(client::connect(proxy.http()), head.as_bytes());
                assert_eq!(answer.status(), Some(status), "{host} {framing}");
                assert!(!answer.reset, "{host} {framing}");
                let least = if host == "large.test" {
                    LARGE_PAGE_BYTES
                } else {
                    0
                };
                assert!(answer.bytes.len() > least, "{host}: {}", answer.bytes.len());
            });
        }
        scope.spawn(|| {
            let hello = Hello::named("nobody.test").record();
            let answer = upload(client::connect(proxy.https()), &hello);
            assert!(answer.alert().is_some() && !answer.reset, "{answer:?}");
        });
    });
}

/// A client that was told and does nothing more is let go soon, and costs nothing meanwhile.
#[test]
fn a_client_that_was_told_is_not_held_for_long() {
    let proxy = Options::new().route("a.test", &["127.0.0.1:9"]).start();
    let mut stream = client::connect(proxy.http());
    let head = "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it is taken");
    let began = Instant::now();
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("an answer and its end");
    assert!(bytes.starts_with(b"HTTP/1.1 421 "));
    proxy.assert_rests();
    proxy.wait_for_outcome("http", "unknown_name", 1);
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_secs(5),
        "{took:?}"
    );
    drop(stream);
}
