//! Every way in which HTTP/1 messages begin and end, bodies of any size in both directions,
//! deadlines, and tunnels.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::backend::{self, pattern};
use support::http::{Message, Wire, reflecting, scripted};
use support::proxy::{Options, Proxy};
use support::{client, wait_until};

fn start(member: &str, args: &[&str]) -> Proxy {
    Options::new().route("a.test", &[member]).args(args).start()
}

fn get(wire: &mut Wire, path: &str) -> Message {
    wire.get("a.test", path)
}

#[test]
fn responses_of_every_shape_are_followed_by_the_next() {
    let backend = scripted(|request, _| {
        let path = request.head.split(' ').nth(1).expect("a target").to_owned();
        Some(
            match path.as_str() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                "/chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: \
                    X\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX: y\r\n\r\n"
                }
                "/103" => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 \
                    Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"
                }
                "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "/lf" => "HTTP/1.1 200\nContent-Length: 1\n\nl",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            }
            .as_bytes()
            .to_vec(),
        )
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    for _ in 0..3 {
        assert_eq!(get(&mut wire, "/204").status(), 204);
        wire.send("GET /304 HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = wire.response_head();
        assert_eq!(
            (answer.status(), answer.field("content-length")),
            (304, Some("99"))
        );
        wire.send("HEAD /head HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = wire.response_head();
        assert_eq!(
            (answer.status(), answer.field("content-length")),
            (200, Some("99"))
        );
        assert_eq!(get(&mut wire, "/chunked").text(), "abcd");
        assert_eq!(get(&mut wire, "/103").status(), 103);
        assert_eq!(wire.response_head().status(), 102);
        assert_eq!(wire.response().text(), "3");
        assert_eq!(get(&mut wire, "/empty").text(), "");
        assert_eq!(get(&mut wire, "/lf").text(), "l");
    }
    assert_eq!(backend.accepted(), 1);
    // HTTP/1.0 has no interim responses.
    wire.send("GET /103 HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
    let answer = wire.response();
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (200, Some("keep-alive"))
    );
    wire.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let answer = wire.response();
    assert_eq!(
        (answer.text(), answer.field("connection")),
        ("ok", Some("close"))
    );
    assert_eq!(wire.rest(), b"");
    proxy.wait_for_outcome("http", "relayed", 1);
}

#[test]
fn a_response_without_length_ends_with_its_connection() {
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\n\r\nuntil ");
        std::thread::sleep(Duration::from_millis(50));
        wire.send("the end");
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    let answer = get(&mut wire, "/");
    assert_eq!(
        (answer.text(), answer.field("connection")),
        ("until the end", Some("close"))
    );
    proxy.wait_for_outcome("http", "relayed", 1);
}

#[test]
fn a_response_that_breaks_off_is_not_made_to_look_whole() {
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let request = wire.request().expect("a request").expect("a request");
        wire.send(match request.head.split(' ').nth(1) {
            Some("/length") => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
            Some("/chunked") => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
            }
            Some("/junk") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npartjunk",
            Some("/head") => "HTTP/1.1 200 OK\r\nContent-",
            _ => "SSH-2.0-OpenSSH\r\n\r\n",
        });
        // The client has what it can have of it before the end.
        std::thread::sleep(Duration::from_millis(100));
    });
    let proxy = start(&backend.member(), &[]);
    for path in ["/length", "/chunked"] {
        let mut wire = Wire::connect(proxy.http());
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(wire.response_head().status(), 200, "{path}");
        assert!(String::from_utf8_lossy(&wire.rest()).contains("part"));
    }
    proxy.wait_for_outcome("http", "backend_reset", 2);
    for (path, outcome) in [
        ("/junk", "response_invalid"),
        ("/ssh", "response_invalid"),
        ("/head", "backend_closed"),
    ] {
        let mut wire = Wire::connect(proxy.http());
        let answer = get(&mut wire, path);
        assert_eq!(answer.status(), 502, "{path}");
        assert_eq!(answer.field("pointsman-outcome"), Some(outcome), "{path}");
    }
}

#[test]
fn large_bodies_pass_whole_in_both_directions_and_are_spliced() {
    const BYTES: usize = 20 << 20;
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            assert!(request.body.is_empty() || request.body == pattern(BYTES));
            let body = pattern(BYTES);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
            wire.send(head);
            wire.send(body);
        }
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    let answer = get(&mut wire, "/");
    assert!(answer.body == pattern(BYTES));
    // Chunks as large as these are runs to be spliced, too.
    let chunked = |wire: &mut Wire, chunk: usize| {
        wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in pattern(BYTES).chunks(chunk) {
            wire.send(format!("{:x}\r\n", piece.len()));
            wire.send(piece);
            wire.send("\r\n");
        }
        wire.send("0\r\n\r\n");
        assert!(wire.response().body == pattern(BYTES));
    };
    chunked(&mut wire, 10_000);
    chunked(&mut wire, 5 << 20);
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {BYTES}\r\n\r\n"
    ));
    wire.send(pattern(BYTES));
    assert!(wire.response().body == pattern(BYTES));
    let spliced = proxy
        .series("pointsman_relayed_bytes_total{method=\"splice\"}")
        .expect("a counter");
    assert!(spliced > 4.0 * BYTES as f64, "{spliced}");
    drop(wire);
    proxy.wait_for_outcome("http", "relayed", 1);
}

/// `body` in chunks of these sizes, over and over; now and then a line is longer than it need be.
fn in_chunks(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = body;
    for (index, size) in sizes.iter().cycle().enumerate() {
        if rest.is_empty() {
            message.extend(b"0\r\n\r\n");
            return message;
        }
        let (chunk, behind) = rest.split_at(rest.len().min(*size));
        rest = behind;
        message.extend(match index % 5 {
            3 => format!("{:012X}\r\n", chunk.len()).into_bytes(),
            4 => format!("{:x};an=\"extension of some length\"\r\n", chunk.len()).into_bytes(),
            _ => format!("{:x}\r\n", chunk.len()).into_bytes(),
        });
        message.extend(chunk);
        message.extend(b"\r\n");
    }
    unreachable!("sizes are cycled")
}

#[test]
fn chunks_of_all_sizes_pass_whole_however_they_arrive() {
    const BYTES: usize = 12 << 20;
    let sizes: [&[usize]; 4] = [
        &[256 << 10],
        &[1 << 20, 1, 40_000, 3, 300_000],
        &[32_768, 32_767, 70_001],
        &[3 << 20, 20_000, 20_000, 20_000, 20_000],
    ];
    let backend = backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        let mut sizes = sizes.iter().cycle();
        while let Ok(Some(request)) = wire.request() {
            assert!(request.body == pattern(BYTES));
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            wire.send(in_chunks(&pattern(BYTES), sizes.next().expect("endless")));
        }
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    for sizes in sizes {
        // At once, in pieces that end within lines, and in pieces of a few pages with pauses.
        for (piece, pause_after) in [(usize::MAX, 0), (262_149, 0), (100_003, 40)] {
            wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
            let message = in_chunks(&pattern(BYTES), sizes);
            for (index, bytes) in message.chunks(piece).enumerate() {
                if pause_after > 0 && index % pause_after == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
                wire.send(bytes);
            }
            assert!(wire.response().body == pattern(BYTES), "{sizes:?} {piece}");
        }
    }
}

#[test]
fn large_chunks_are_not_copied_for_the_sake_of_their_lines() {
    const BYTES: usize = 64 << 20;
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(_)) = wire.request() {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            wire.send(in_chunks(&pattern(BYTES), &[256 << 10]));
        }
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    assert!(get(&mut wire, "/").body == pattern(BYTES));
    drop(wire);
    proxy.wait_for_outcome("http", "relayed", 1);
    let copied = proxy.series("pointsman_relayed_bytes_total{method=\"copy\"}");
    // A buffer of each would be a quarter of them.
    assert!(
        copied.expect("a counter") < BYTES as f64 / 10.0,
        "{copied:?}"
    );
}

/// splice(2) does not get past urgent data.
#[test]
fn urgent_data_neither_ends_a_large_body_nor_keeps_the_core_busy() {
    const BYTES: usize = 16 << 20;
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            assert!(request.body == pattern(BYTES));
            wire.send("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let proxy = start(&backend.member(), &[]);
    let mut stream = client::connect(proxy.http());
    let body = pattern(BYTES);
    for message in [body.clone(), in_chunks(&body, &[300_000])] {
        let length = match message.len() {
            BYTES => format!("Content-Length: {BYTES}"),
            _ => "Transfer-Encoding: chunked".to_owned(),
        };
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: a.test\r\n{length}\r\n\r\n"
        )
        .expect("it is read");
        let (before, behind) = message.split_at(BYTES / 2);
        let (near, rest) = behind.split_at(10_000);
        stream.write_all(before).expect("it is read");
        let urgent = SockRef::from(&stream).send_out_of_band(b"!");
        urgent.expect("it is read");
        stream.write_all(near).expect("it is read");
        // All that can be moved is to be moved: what then goes on is idle work.
        std::thread::sleep(Duration::from_millis(100));
        proxy.assert_rests();
        stream.write_all(rest).expect("it is read");
        let mut answer = vec![0; 14];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, b"HTTP/1.1 204 N");
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the rest of it");
            answer.push(byte[0]);
        }
    }
}

#[test]
fn a_body_waits_for_the_backends_word_where_the_client_asks_for_it() {
    let backend = backend::raw(|stream| {
        let mut bytes = Vec::new();
        let mut stream = stream;
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).expect("text").to_ascii_lowercase();
        assert!(head.contains("expect: 100-continue"), "{head}");
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .expect("it is read");
        let mut body = [0; 4];
        stream.read_exact(&mut body).expect("a body");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            .expect("it is read");
        stream.write_all(&body).expect("it is read");
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    wire.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(wire.response_head().status(), 100);
    wire.send("body");
    assert_eq!(wire.response().text(), "body");
}

#[test]
fn every_wait_for_a_message_has_an_end() {
    let backend = scripted(|request, _| {
        if request.head.starts_with("GET /never ") {
            // Longer than any deadline here.
            std::thread::sleep(Duration::from_secs(4));
            return None;
        }
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let proxy = start(
        &backend.member(),
        &[
            "--head-deadline",
            "700ms",
            "--body-deadline",
            "600ms",
            "--response-deadline",
            "800ms",
            "--keep-alive-deadline",
            "500ms",
        ],
    );
    let timed = |sent: &str| {
        let mut wire = Wire::connect(proxy.http());
        assert_eq!(get(&mut wire, "/").status(), 200);
        wire.send(sent);
        let began = Instant::now();
        let rest = String::from_utf8(wire.rest()).expect("text");
        let took = began.elapsed();
        assert!(
            took > Duration::from_millis(400) && took < Duration::from_millis(2500),
            "{took:?}"
        );
        rest
    };
    assert_eq!(timed(""), "");
    proxy.wait_for_outcome("http", "keep_alive_timeout", 1);
    let answer = timed("GET / HTTP/1.1\r\nHost: a");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    proxy.wait_for_outcome("http", "head_timeout", 1);
    let answer = timed("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nslow");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    proxy.wait_for_outcome("http", "body_timeout", 1);
    let answer = timed("GET /never HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    proxy.wait_for_outcome("http", "response_timeout", 1);

    // A byte now and then is not progress.
    let mut wire = Wire::connect(proxy.http());
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\n");
    let began = Instant::now();
    while wire.stream.write_all(b"x").is_ok() && began.elapsed() < Duration::from_secs(3) {
        // Several within the deadline.
        std::thread::sleep(Duration::from_millis(100));
    }
    proxy.wait_for_outcome("http", "body_timeout", 2);
    // A body that comes steadily may take much longer than the deadline.
    let mut wire = Wire::connect(proxy.http());
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000\r\n\r\n");
    for _ in 0..10 {
        wire.send([b'x'; 1000]);
        // Ten of them last longer than the deadline.
        std::thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(wire.response().text(), "ok");
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\npart");
    wire.finish();
    assert_eq!(wire.rest(), b"");
    proxy.wait_for_outcome("http", "body_cut_off", 1);
}

#[test]
fn a_websocket_is_a_tunnel_after_101_and_only_then() {
    let backend = backend::raw(|stream| {
        let mut wire = Wire::new(stream);
        let request = wire.request().expect("a request").expect("a request");
        if request.field("upgrade") != Some("websocket")
            || request.field("connection") != Some("upgrade")
        {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return;
        }
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: \
            Upgrade\r\n\r\nhello",
        );
        let mut stream = wire.stream;
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..bytes]).expect("it is read");
        }
    });
    let proxy = start(
        &backend.member(),
        &[
            "--keep-alive-deadline",
            "300ms",
            "--response-deadline",
            "300ms",
        ],
    );
    let ask = "GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: keep-alive, \
        Upgrade\r\n\r\n";
    let mut wire = Wire::connect(proxy.http());
    // Eager clients send behind their head.
    wire.send(format!("{ask}early"));
    let answer = wire.response_head();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    let mut have = wire.take_buffered();
    let mut stream = wire.stream.try_clone().expect("a descriptor");
    while have.len() < 10 {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the tunnel");
        have.push(byte[0]);
    }
    assert_eq!(have, b"helloearly");
    // Longer than any deadline of requests.
    std::thread::sleep(Duration::from_millis(800));
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("the tunnel");
    let mut back = [0; 18];
    stream.read_exact(&mut back).expect("the tunnel");
    assert_eq!(&back, b"GET / HTTP/1.1\r\n\r\n");
    drop((wire, stream));
    proxy.wait_for_outcome("http", "relayed", 1);

    // A 101 that nobody asked for is refused, and h2c is not asked for.
    let eager =
        scripted(|_, _| Some(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()));
    let proxy = start(&eager.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    assert_eq!(get(&mut wire, "/").status(), 502);
    let plain = reflecting("A");
    let proxy = start(&plain.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    wire.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: h2c\r\nHTTP2-Settings: \
        AAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    );
    let got = wire.response();
    assert_eq!(got.text(), "A\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

#[test]
fn backends_are_told_about_the_client_where_the_operator_wants_it() {
    let backend = reflecting("A");
    let spoofed = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.1.1.1\r\nX-Real-IP: \
        10.1.1.1\r\nForwarded: for=10.1.1.1\r\n\r\n";
    let seen = |args: &[&str]| {
        let proxy = start(&backend.member(), args);
        let mut wire = Wire::connect(proxy.http());
        wire.send(spoofed);
        let text = wire.response().text().to_owned();
        let head = text.split_once('\n').expect("a name").1.to_owned();
        (
            Message {
                head,
                body: Vec::new(),
            },
            proxy.http().port(),
        )
    };
    let list = "x-forwarded-for,x-forwarded-proto,x-forwarded-port,x-real-ip,forwarded";
    let (plain, _) = seen(&["--forwarded", list]);
    assert_eq!(plain.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(plain.fields("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(
        plain.fields("forwarded"),
        ["for=127.0.0.1;host=\"a.test\";proto=http"]
    );
    let (trusted, port) = seen(&["--forwarded", list, "--trusted-from", "127.0.0.0/8"]);
    assert_eq!(trusted.fields("x-forwarded-for"), ["10.1.1.1, 127.0.0.1"]);
    assert_eq!(trusted.fields("x-real-ip"), ["10.1.1.1"]);
    assert_eq!(trusted.fields("x-forwarded-port"), [port.to_string()]);
    assert_eq!(trusted.fields("x-forwarded-proto"), ["http"]);
    let (off, _) = seen(&[]);
    assert_eq!(off.fields("x-forwarded-for"), ["10.1.1.1"]);
}

#[test]
fn answers_of_the_proxy_are_as_the_operator_wants_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("404.html");
    // Larger than a socket takes at once.
    let html = format!("<p>{}</p>", "not here ".repeat(20_000));
    std::fs::write(&page, &html).expect("our own file");
    let backend = reflecting("A");
    let page = format!("404={}", page.display());
    let proxy = start(
        &backend.member(),
        &[
            "--unknown-host",
            "404",
            "--error-page",
            &page,
            "--outcome-header",
            "no",
        ],
    );
    let mut wire = Wire::connect(proxy.http());
    let answer = wire.get("b.test", "/");
    assert_eq!(answer.status(), 404);
    assert!(answer.text() == html);
    assert_eq!(
        answer.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer.field("pointsman-outcome"), None);
    proxy.wait_for_outcome("http", "unknown_name", 1);
}

#[test]
fn a_connection_ends_after_its_requests_and_when_the_proxy_stops() {
    let backend = reflecting("A");
    let mut proxy = start(&backend.member(), &["--requests-per-connection-max", "3"]);
    let mut wire = Wire::connect(proxy.http());
    for n in 1..=3 {
        let answer = get(&mut wire, "/");
        assert_eq!(answer.field("connection"), (n == 3).then_some("close"));
    }
    assert_eq!(wire.rest(), b"");
    let mut idle = Wire::connect(proxy.http());
    get(&mut idle, "/");
    proxy.signal("TERM");
    let began = Instant::now();
    assert_eq!(idle.rest(), b"");
    assert!(
        began.elapsed() < Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
    let status = proxy.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[test]
fn a_client_that_leaves_is_noticed_and_its_backend_told() {
    let (sender, told) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let backend = backend::raw(move |stream| {
        let mut wire = Wire::new(stream);
        let _ = wire.request();
        wire.rest();
        let _ = sender.lock().expect("no panic").send(());
    });
    let proxy = start(&backend.member(), &[]);
    let mut wire = Wire::connect(proxy.http());
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    wait_until("it is under way", client::PATIENCE, || {
        backend.accepted() == 1
    });
    let linger = socket2::SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO));
    linger.expect("a socket option");
    drop(wire);
    told.recv_timeout(Duration::from_secs(5))
        .expect("the backend is let go");
    proxy.wait_for_outcome("http", "client_reset", 1);
}

/// curl speaks HTTP/2 with prior knowledge; the backend sees the connection as it is.
#[test]
fn http2_without_tls_is_one_tunnel_where_the_operator_allows_it() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let writer = seen.clone();
    let backend = backend::raw(move |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            writer
                .lock()
                .expect("no panic")
                .extend_from_slice(&buffer[..bytes]);
            if writer.lock().expect("no panic").len() > 60 {
                return;
            }
        }
    });
    for (allowed, reaches) in [("yes", true), ("no", false)] {
        let proxy = start(&backend.member(), &["--h2c", allowed]);
        let url = format!("http://{}/", proxy.http());
        let curl = std::process::Command::new("curl")
            .args([
                "-s",
                "--max-time",
                "5",
                "--http2-prior-knowledge",
                "-H",
                "Host: a.test",
                &url,
            ])
            .output()
            .expect("curl: apt-get install curl");
        assert!(!curl.status.success(), "the backend speaks no HTTP/2");
        let outcome = if reaches { "relayed" } else { "http2_preface" };
        wait_until("its outcome", client::PATIENCE, || {
            proxy.outcome("http", outcome) + proxy.outcome("http", "backend_reset") == 1
        });
    }
    let seen = seen.lock().expect("no panic");
    assert!(seen.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    assert_eq!(backend.accepted(), 1);
}
