//! Connections of which one side has finished sending: it may still read, and it may have left.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::backend::{self, Backend, pattern};
use support::client::{self, Answer, Hello};
use support::http::{Wire, scripted};
use support::proxy::{Options, Proxy};

/// Ends of connections that are kept open and not read from.
type Held = Arc<Mutex<Vec<TcpStream>>>;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: t.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn hello(stream: &mut TcpStream) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).expect("a record");
    let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut record).expect("a hello");
}

fn request(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        head.extend(byte);
    }
}

fn open_tls(proxy: &Proxy, name: &str) -> TcpStream {
    let mut stream = client::connect(proxy.https());
    stream
        .write_all(&Hello::named(name).record())
        .expect("it is read");
    stream
}

/// A client that takes little without reading.
fn connect_small(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let small = socket.set_recv_buffer_size(bytes);
    small.expect("a socket option");
    socket.connect(&address.into()).expect("the proxy listens");
    let stream = TcpStream::from(socket);
    let patience = stream.set_read_timeout(Some(client::PATIENCE));
    patience.expect("a socket option");
    stream
}

fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("it is open");
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket option");
}

fn read_some(stream: &mut TcpStream) {
    assert!(stream.read(&mut [0; 1024]).expect("bytes") > 0);
}

/// A backend whose connections are `begun`, and then kept open in silence.
fn silent(begin: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> (Backend, Held) {
    let held = Held::default();
    let keep = held.clone();
    let backend = backend::raw(move |mut stream| {
        begin(&mut stream);
        keep.lock().expect("no panic").push(stream);
    });
    (backend, held)
}

/// The newest of so many.
fn take(held: &Held, count: usize) -> TcpStream {
    let is_there = || held.lock().expect("no panic").len() == count;
    support::wait_until("connections", client::PATIENCE, is_there);
    let newest = held.lock().expect("no panic").pop();
    newest.expect("one at least")
}

/// io_uring's poll reports the peer's end unasked, whatever is waited for.
#[test]
fn who_has_finished_and_does_not_read_costs_nothing() {
    let flood = |stream: &mut TcpStream| while stream.write_all(&[b'z'; 65536]).is_ok() {};
    let tls = backend::raw(move |mut stream| {
        hello(&mut stream);
        flood(&mut stream);
    });
    let http = backend::raw(move |mut stream| {
        request(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n";
        stream.write_all(head).expect("it is read");
        flood(&mut stream);
    });
    let (sink, held) = silent(|stream| {
        hello(stream);
        stream.write_all(b"hi").expect("it is read");
        finish(stream);
    });
    let proxy = Options::new()
        .route("tls.test", &[&tls.member()])
        .route("a.test", &[&http.member()])
        .route("sink.test", &[&sink.member()])
        .start();
    let tls_client = open_tls(&proxy, "tls.test");
    finish(&tls_client);
    let mut http_client = Wire::connect(proxy.http());
    http_client.send(GET);
    http_client.finish();
    let mut sender = open_tls(&proxy, "sink.test");
    read_some(&mut sender);
    let short = Some(Duration::from_millis(300));
    sender.set_write_timeout(short).expect("a socket option");
    while sender.write_all(&[b'u'; 65536]).is_ok() {}
    support::wait_until("it rests", client::PATIENCE, || {
        let before = proxy.processor_time();
        // What it does not spend is only seen over a span.
        std::thread::sleep(Duration::from_millis(500));
        proxy.processor_time() - before <= Duration::from_millis(20)
    });
    drop((tls_client, http_client, sender));
    held.lock().expect("no panic").clear();
}

/// The wait for a failure outlives the end before it.
#[test]
fn a_reset_behind_an_end_is_noticed() {
    let (backend, held) = silent(|stream| {
        hello(stream);
        stream.write_all(b"x").expect("it is read");
    });
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let mut client = open_tls(&proxy, "a.test");
    read_some(&mut client);
    let first = take(&held, 1);
    finish(&client);
    let mut other = open_tls(&proxy, "a.test");
    read_some(&mut other);
    let second = take(&held, 1);
    finish(&second);
    // The wait is begun a second after the end.
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(proxy.live(), 2);
    reset(client);
    reset(second);
    proxy.wait_for_outcome("tls", "client_reset", 1);
    proxy.wait_for_outcome("tls", "backend_reset", 1);
    // It has its end already.
    assert!(!Answer::read(&mut other).reset);
    drop(first);
}

/// What the one side sees whose end never came: a reset, unless it has left.
#[test]
fn who_has_finished_waits_for_so_long_without_a_byte() {
    let (tls, tls_held) = silent(|stream| {
        hello(stream);
        stream.write_all(b"x").expect("it is read");
    });
    let (poll, poll_held) = silent(request);
    let (events, events_held) = silent(|stream| {
        request(stream);
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
        stream.write_all(answer).expect("it is read");
    });
    let (tunnel, tunnel_held) = silent(|stream| {
        request(stream);
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).expect("it is read");
    });
    let proxy = Options::new()
        .route("a.test", &[&tls.member()])
        .route("p.test", &[&poll.member()])
        .route("e.test", &[&events.member()])
        .route("t.test", &[&tunnel.member()])
        .args(&["--half-closed-deadline", "700ms"])
        .start();
    let begun = Instant::now();
    let mut tls_client = open_tls(&proxy, "a.test");
    read_some(&mut tls_client);
    let silent_backend = take(&tls_held, 1);
    finish(&tls_client);
    let mut quiet_client = open_tls(&proxy, "a.test");
    read_some(&mut quiet_client);
    let mut waiting_backend = take(&tls_held, 1);
    finish(&waiting_backend);
    let leave = |text: &str, is_answered: bool| {
        let mut stream = client::connect(proxy.http());
        stream.write_all(text.as_bytes()).expect("it is read");
        if is_answered {
            read_some(&mut stream);
        } else {
            support::wait_until("a backend", client::PATIENCE, || poll.accepted() > 0);
        }
    };
    leave("GET / HTTP/1.1\r\nHost: p.test\r\n\r\n", false);
    leave("GET / HTTP/1.1\r\nHost: e.test\r\n\r\n", true);
    leave(UPGRADE, true);
    let mut reader = Wire::connect(proxy.http());
    reader.send("GET / HTTP/1.1\r\nHost: p.test\r\n\r\n");
    reader.finish();
    assert_eq!(reader.response().status(), 504);
    proxy.wait_for_outcome("tls", "half_closed_timeout", 2);
    // A client that has left answers its 504 with a reset, which comes too late to count.
    proxy.wait_for_outcome("http", "half_closed_timeout", 4);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
    assert!(Answer::read(&mut tls_client).reset);
    assert!(!Answer::read(&mut quiet_client).reset);
    assert!(Answer::read(&mut waiting_backend).reset);
    drop(silent_backend);
    for held in [poll_held, events_held, tunnel_held] {
        held.lock().expect("no panic").clear();
    }
}

#[test]
fn who_has_finished_and_reads_gets_the_whole_answer() {
    let backend = backend::raw(|mut stream| {
        request(&mut stream);
        // Slowly, so that the end of the client is seen before the answer and between its bytes.
        std::thread::sleep(Duration::from_millis(400));
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(head).expect("it is read");
        for byte in b"hello" {
            // As above.
            std::thread::sleep(Duration::from_millis(400));
            stream.write_all(&[*byte]).expect("it is read");
        }
    });
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--half-closed-deadline", "1s"])
        .start();
    let clients = [GET.to_owned(), format!("{GET}{GET}")].map(|requests| {
        let mut wire = Wire::connect(proxy.http());
        wire.send(requests);
        wire.finish();
        wire
    });
    for mut wire in clients {
        assert_eq!(wire.response().text(), "hello");
    }
}

#[test]
fn a_request_ends_with_its_client_where_that_is_wanted() {
    let (sender, ends) = mpsc::channel();
    let backend = backend::raw(move |mut stream| {
        request(&mut stream);
        let _ = stream.read(&mut [0]);
        let _ = sender.send(Instant::now());
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let start = |global: &str, host: &[&str]| {
        let member = backend.member();
        let members = [&[member.as_str()], host].concat();
        let options = Options::new().route("a.test", &members);
        options.args(&["--client-finished", global]).start()
    };
    for (global, host) in [("abort", &[][..]), ("wait", &["@client-finished=abort"])] {
        let proxy = start(global, host);
        for (number, text) in [GET.to_owned(), format!("{GET}{GET}")].iter().enumerate() {
            let mut wire = Wire::connect(proxy.http());
            wire.send(text);
            // The backend has it, and what is behind it has come.
            std::thread::sleep(Duration::from_millis(100));
            let finished = Instant::now();
            wire.finish();
            let ended = ends.recv_timeout(client::PATIENCE).expect("an end");
            assert!(ended - finished < Duration::from_secs(2));
            proxy.wait_for_outcome("http", "client_finished", number as u64 + 1);
        }
    }
    let answering = scripted(|_, _| {
        // The client has finished by then.
        std::thread::sleep(Duration::from_millis(200));
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let proxy = Options::new()
        .route("a.test", &[&answering.member(), "@client-finished=wait"])
        .args(&["--client-finished", "abort"])
        .start();
    let mut wire = Wire::connect(proxy.http());
    wire.send(GET);
    wire.finish();
    assert_eq!(wire.response().text(), "ok");
}

/// splice(2) returns 0 at an urgent mark once the end of the stream is in.
#[test]
fn bytes_between_urgent_data_and_the_end_are_given_on() {
    const BYTES: usize = 12 << 20;
    const BEHIND: usize = 100_000;
    fn send(stream: &mut TcpStream) {
        let large = SockRef::from(&*stream).set_send_buffer_size(8 << 20);
        large.expect("a socket option");
        let bytes = pattern(BYTES);
        let (bulk, behind) = bytes.split_at(BYTES - BEHIND);
        stream.write_all(bulk).expect("it is read");
        let urgent = SockRef::from(&*stream).send_out_of_band(b"!");
        urgent.expect("it is read");
        stream.write_all(behind).expect("it is read");
        finish(stream);
    }
    let tls = backend::raw(move |mut stream| {
        hello(&mut stream);
        send(&mut stream);
    });
    let http = backend::raw(move |mut stream| {
        request(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        stream.write_all(head).expect("it is read");
        send(&mut stream);
    });
    let proxy = Options::new()
        .route("a.test", &[&http.member()])
        .route("tls.test", &[&tls.member()])
        .start();
    let hello = Hello::named("tls.test").record();
    for (address, words, head) in [
        (proxy.https(), &hello[..], &b""[..]),
        (proxy.http(), GET.as_bytes(), b"\r\n\r\n"),
    ] {
        let mut stream = connect_small(address, 256 << 10);
        stream.write_all(words).expect("it is read");
        let mut bytes = vec![0; BYTES / 2];
        stream.read_exact(&mut bytes).expect("half of it");
        // So slowly that the end is in before the mark is reached.
        std::thread::sleep(Duration::from_millis(300));
        stream.read_to_end(&mut bytes).expect("the rest");
        let at = bytes
            .windows(head.len().max(1))
            .position(|part| part == head);
        let body = &bytes[at.map_or(0, |at| at + head.len())..];
        assert_eq!(body.len(), BYTES);
        assert!(body == pattern(BYTES));
    }
}

/// Whatever is still waited for once a connection is over, no deadline is exceeded by it.
#[test]
fn a_reset_is_not_held_back_for_longer_than_the_deadlines() {
    let backend = backend::raw(|mut stream| {
        hello(&mut stream);
        stream.write_all(&pattern(400_000)).expect("it is read");
        // What is on its way must be with the proxy before the reset drops the rest.
        std::thread::sleep(Duration::from_millis(300));
        reset(stream);
    });
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--idle-deadline", "1s"])
        .start();
    let mut client = connect_small(proxy.https(), 8 << 10);
    client
        .write_all(&Hello::named("a.test").record())
        .expect("it is read");
    proxy.wait_for_outcome("tls", "backend_reset", 1);
    drop(client);
}
