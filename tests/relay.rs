//! What the relay owes both sides whatever the other does: every byte in order, an end as it was
//! meant, bounded memory, and a fair turn.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use pointsman::internals::sys::Socket;
use socket2::SockRef;
use support::backend::{self, Backend};
use support::client::{self, Cut, Hello};
use support::flow::{Flow, Received};
use support::proxy::{Options, Proxy};

const MIB: u64 = 1 << 20;
/// What is relayed blindly is TLS; any hello will do.
static HEAD: LazyLock<Vec<u8>> = LazyLock::new(|| Hello::named("a.test").record());
const TO_BACKEND: u64 = 1;
const TO_CLIENT: u64 = 2;

/// A backend that reads the head and then does as `serve` says.
fn behind_head(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
    backend::raw(move |mut stream| {
        let mut head = vec![0; HEAD.len()];
        if stream.read_exact(&mut head).is_ok() {
            serve(stream);
        }
    })
}

fn start(backend: &Backend, args: &[&str]) -> Proxy {
    Options::new()
        .route("a.test", &[&backend.member()])
        .args(args)
        .start()
}

/// A client that has sent its head.
fn open(proxy: &Proxy) -> TcpStream {
    let mut stream = client::connect(proxy.https());
    stream.write_all(&HEAD).expect("the proxy reads");
    stream
}

fn reset(stream: TcpStream) {
    let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.expect("a socket option");
}

fn whole(bytes: u64) -> Received {
    Received {
        bytes,
        reset: false,
    }
}

/// Writes `message` and reads as much back; how long it took.
fn round_trip(stream: &mut TcpStream, message: &[u8]) -> Duration {
    let sent = Instant::now();
    stream.write_all(message).expect("the proxy reads");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert!(back == message);
    sent.elapsed()
}

/// A backend that sends back what it gets, without a greeting.
fn mirror() -> Backend {
    behind_head(|mut stream| {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..bytes]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_side_that_has_finished_still_receives() {
    const BYTES: u64 = 64 * MIB;
    let download = behind_head(|mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the client finishes");
        assert_eq!(rest, b"");
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BYTES);
    });
    let proxy = start(&download, &[]);
    let mut stream = open(&proxy);
    stream.shutdown(Shutdown::Write).expect("connected");
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
    assert_eq!(received, whole(BYTES));
    proxy.wait_for_outcome("tls", "relayed", 1);

    let (uploaded, upload_end) = mpsc::channel();
    let upload = behind_head(move |mut stream| {
        stream.shutdown(Shutdown::Write).expect("connected");
        let received = Flow::new(TO_BACKEND).receive(&mut stream, |_| {});
        uploaded.send(received).expect("the test waits");
    });
    let proxy = start(&upload, &[]);
    let mut stream = open(&proxy);
    assert_eq!(stream.read(&mut [0; 10]).expect("the backend finishes"), 0);
    let sent = Flow::new(TO_BACKEND).send(&mut stream, BYTES);
    sent.expect("the backend reads");
    stream.shutdown(Shutdown::Write).expect("connected");
    let received = upload_end.recv_timeout(client::PATIENCE);
    assert_eq!(received.expect("an end"), whole(BYTES));
    proxy.wait_for_outcome("tls", "relayed", 1);
}

#[test]
fn bytes_sent_before_an_early_close_arrive() {
    let (sender, ends) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        let received = Flow::new(TO_BACKEND).receive(&mut stream, |_| {});
        sender.send(received).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    for bytes in [1, 1000, 100_000] {
        let mut stream = open(&proxy);
        let sent = Flow::new(TO_BACKEND).send(&mut stream, bytes);
        sent.expect("the proxy reads");
        drop(stream);
        let received = ends.recv_timeout(client::PATIENCE);
        assert_eq!(received.expect("an end"), whole(bytes));
    }
    proxy.wait_for_outcome("tls", "relayed", 3);
}

#[test]
fn a_reset_is_passed_on_as_a_reset_though_the_other_side_is_silent() {
    let resetting = behind_head(reset);
    let proxy = start(&resetting, &[]);
    let mut stream = open(&proxy);
    let asked = Instant::now();
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
    assert!(received.reset && received.bytes == 0, "{received:?}");
    assert!(asked.elapsed() < Duration::from_secs(1));
    proxy.wait_for_outcome("tls", "backend_reset", 1);

    let (sender, ends) = mpsc::channel();
    let waiting = behind_head(move |mut stream| {
        let received = Flow::new(TO_BACKEND).receive(&mut stream, |_| {});
        sender.send(received).expect("the test waits");
    });
    let proxy = start(&waiting, &[]);
    let stream = open(&proxy);
    support::wait_until("the backend is reached", client::PATIENCE, || {
        waiting.accepted() == 1
    });
    reset(stream);
    let received = ends.recv_timeout(Duration::from_secs(2)).expect("an end");
    assert!(received.reset, "{received:?}");
    proxy.wait_for_outcome("tls", "client_reset", 1);
}

#[test]
fn a_reset_after_a_half_close_is_noticed() {
    let (sender, ends) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        assert_eq!(stream.read(&mut [0; 10]).expect("a half-close"), 0);
        // Only a write shows that the client is gone.
        let gone = Instant::now();
        while stream.write_all(b"x").is_ok() && gone.elapsed() < Duration::from_secs(10) {
            // Each write fails only after the reset that came of the one before.
            std::thread::sleep(Duration::from_millis(100));
        }
        sender.send(gone.elapsed()).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    let stream = open(&proxy);
    stream.shutdown(Shutdown::Write).expect("connected");
    // The end is to be passed on before the reset comes.
    std::thread::sleep(Duration::from_millis(200));
    reset(stream);
    let took = ends.recv_timeout(client::PATIENCE).expect("an end");
    assert!(took < Duration::from_secs(5), "{took:?}");
    proxy.wait_for_outcome("tls", "client_reset", 1);
}

/// The backend closes with a request unread, so its kernel sends a reset behind the answer.
#[test]
fn an_answer_arrives_whole_before_the_reset_behind_it() {
    const BYTES: u64 = 200_000;
    let backend = behind_head(|mut stream| {
        stream.peek(&mut [0; 1]).expect("more than the head");
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BYTES);
        // What is on its way must be with the proxy before the reset drops the rest.
        std::thread::sleep(Duration::from_millis(300));
    });
    let proxy = start(&backend, &[]);
    for slowness in [Duration::ZERO, Duration::from_millis(1500)] {
        let mut stream = open(&proxy);
        stream.write_all(b"unread").expect("the proxy reads");
        std::thread::sleep(slowness);
        let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
        assert_eq!(received.bytes, BYTES);
        assert!(received.reset);
    }
    proxy.wait_for_outcome("tls", "backend_reset", 2);
}

/// A client that pauses for longer than any timer of the kernel's or ours is short.
#[test]
fn a_reset_waits_for_a_client_that_pauses() {
    const BYTES: u64 = 3 * MIB;
    let (sender, sent) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BYTES);
        // As much as there is room for is to be with the proxy before the reset drops the rest.
        std::thread::sleep(Duration::from_millis(500));
        reset(stream);
        sender.send(()).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    let mut stream = client::connect(proxy.https());
    // So little that most of the answer stays in the proxy's socket.
    let small = SockRef::from(&stream).set_recv_buffer_size(16 * 1024);
    small.expect("a socket option");
    stream.write_all(&HEAD).expect("the proxy reads");
    sent.recv_timeout(client::PATIENCE).expect("a reset");
    // Longer than any wait for more that a proxy could give up.
    std::thread::sleep(Duration::from_secs(4));
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
    assert_eq!(received.bytes, BYTES);
    assert!(received.reset);
    proxy.wait_for_outcome("tls", "backend_reset", 1);
}

/// Sends until nothing more is taken; what of it has been acknowledged by the proxy's kernel.
fn send_until_full(stream: &TcpStream, flow: &Flow) -> u64 {
    let patience = Some(Duration::from_millis(700));
    stream.set_write_timeout(patience).expect("a socket option");
    let mut counted = Counted { stream, bytes: 0 };
    flow.send(&mut counted, u64::MAX).expect_err("it fills up");
    let written = counted.bytes;
    let descriptor = stream.try_clone().expect("a descriptor");
    let unacknowledged = Socket::from_accepted(descriptor.into()).unacknowledged_bytes();
    written - unacknowledged as u64
}

struct Counted<'a> {
    stream: &'a TcpStream,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The client resets while its upload stands before a backend that does not read.
#[test]
fn an_upload_that_was_received_is_given_on_although_the_client_has_reset() {
    let (sender, ends) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        // The client has filled everything and reset by then.
        std::thread::sleep(Duration::from_secs(4));
        let received = Flow::new(TO_BACKEND).receive(&mut stream, |_| {});
        sender.send(received).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    let stream = open(&proxy);
    let acknowledged = send_until_full(&stream, &Flow::new(TO_BACKEND));
    reset(stream);
    let received = ends.recv_timeout(client::PATIENCE).expect("an end");
    assert!(received.bytes >= acknowledged, "{received:?}");
    assert!(received.reset);
    proxy.wait_for_outcome("tls", "client_reset", 1);
}

/// A backend of its own process, to be killed: sends `bytes` zeros and waits until they have left.
fn zeros_process(bytes: u64) -> (Child, u16) {
    const SCRIPT: &str = r#"
import fcntl, socket, struct, sys, termios, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
stream, _ = listener.accept()
stream.recv(int(sys.argv[2]))
stream.sendall(bytes(int(sys.argv[1])))
left = 1
while left:
    time.sleep(0.02)
    left = struct.unpack("i", fcntl.ioctl(stream, termios.TIOCOUTQ, bytes(4)))[0]
print("sent", flush=True)
time.sleep(60)
"#;
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT, &bytes.to_string(), &HEAD.len().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut line = [0; 6];
    let stdout = child.stdout.as_mut().expect("it is piped");
    let count = stdout.read(&mut line).expect("a port");
    let port = std::str::from_utf8(&line[..count]).expect("digits");
    let port = port.trim().parse().expect("a port");
    (child, port)
}

#[test]
fn what_a_killed_backend_had_sent_arrives() {
    const BYTES: u64 = 200_000;
    for unread in [false, true] {
        let (mut child, port) = zeros_process(BYTES);
        let proxy = Options::new()
            .route("a.test", &[&format!("127.0.0.1:{port}")])
            .start();
        let mut stream = open(&proxy);
        if unread {
            stream.write_all(b"unread").expect("the proxy reads");
        }
        let mut word = [0; 5];
        let stdout = child.stdout.as_mut().expect("it is piped");
        stdout.read_exact(&mut word).expect("it has sent");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        // The end, or the reset, is to be with the proxy before the client reads.
        std::thread::sleep(Duration::from_millis(300));
        let mut received = 0;
        let mut buffer = [0; 4096];
        let reset = loop {
            std::thread::sleep(Duration::from_millis(5));
            match stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => received += count as u64,
                Err(_) => break true,
            }
        };
        assert_eq!((received, reset), (BYTES, unread));
    }
}

#[test]
fn a_slow_client_gets_the_whole_answer_before_its_end() {
    const BYTES: u64 = 48 * MIB;
    let backend = behind_head(|mut stream| {
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BYTES);
    });
    let proxy = start(&backend, &[]);
    let mut stream = open(&proxy);
    let mut pauses = 0;
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |bytes| {
        if bytes >= pauses * 4 * MIB {
            pauses += 1;
            // A client that is slow.
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(received, whole(BYTES));
    drop(stream);
    proxy.wait_for_outcome("tls", "relayed", 1);
}

/// Sends and receives `bytes` at once.
fn both_ways(stream: TcpStream, out: u64, back: u64, bytes: u64) -> Received {
    let mut sender = stream.try_clone().expect("a descriptor");
    let sending = std::thread::spawn(move || {
        let sent = Flow::new(out).send(&mut sender, bytes);
        sent.expect("the other side reads");
        sender.shutdown(Shutdown::Write).expect("connected");
    });
    let mut stream = stream;
    let received = Flow::new(back).receive(&mut stream, |_| {});
    sending.join().expect("all is sent");
    received
}

#[test]
fn a_gib_each_way_on_four_connections_at_once() {
    const BYTES: u64 = 256 * MIB;
    let (sender, ends) = mpsc::channel();
    let backend = behind_head(move |stream| {
        let received = both_ways(stream, TO_CLIENT, TO_BACKEND, BYTES);
        sender.send(received).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let stream = open(&proxy);
            scope.spawn(move || {
                let received = both_ways(stream, TO_BACKEND, TO_CLIENT, BYTES);
                assert_eq!(received, whole(BYTES));
            });
        }
    });
    for _ in 0..4 {
        let received = ends.recv_timeout(client::PATIENCE).expect("an end");
        assert_eq!(received, whole(BYTES));
    }
    proxy.wait_for_outcome("tls", "relayed", 4);
    let counter = |name: &str| proxy.series(name).expect("a counter") as u64;
    let up = counter("pointsman_received_bytes_total{side=\"client\"}");
    let down = counter("pointsman_received_bytes_total{side=\"backend\"}");
    assert_eq!(up, 4 * (BYTES + HEAD.len() as u64));
    assert_eq!(down, 4 * BYTES);
    assert!(counter("pointsman_relayed_bytes_total{method=\"splice\"}") > BYTES);
}

#[test]
fn bulk_is_spliced_and_what_is_small_is_copied_again() {
    const BULK: u64 = 64 * MIB;
    const SMALL: usize = 10_000;
    const SMALL_COUNT: usize = 300;
    let backend = behind_head(|mut stream| {
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BULK);
        let mut message = vec![0; SMALL];
        while stream.read_exact(&mut message).is_ok() {
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let proxy = start(&backend, &[]);
    let mut stream = open(&proxy);
    let mut bulk = (&mut stream).take(BULK);
    let received = Flow::new(TO_CLIENT).receive(&mut bulk, |_| {});
    assert_eq!(received, whole(BULK));
    let pipes_out = || proxy.per_core("pipes_out").iter().sum::<u64>();
    support::wait_until("pipes go back", client::PATIENCE, || pipes_out() == 0);
    let message = vec![7; SMALL];
    for _ in 0..SMALL_COUNT {
        round_trip(&mut stream, &message);
    }
    drop(stream);
    proxy.wait_for_outcome("tls", "relayed", 1);
    let counter = |name: &str| proxy.series(name).expect("a counter") as u64;
    let spliced = counter("pointsman_relayed_bytes_total{method=\"splice\"}");
    let copied = counter("pointsman_relayed_bytes_total{method=\"copy\"}");
    // A few small ones in a row are what it takes to go back.
    let few = 5 * SMALL as u64;
    assert!((BULK / 2..=BULK + few).contains(&spliced), "{spliced}");
    assert!(copied >= (2 * SMALL_COUNT * SMALL) as u64 - few, "{copied}");
}

#[test]
fn without_pipes_bulk_is_copied() {
    const BULK: u64 = 32 * MIB;
    let backend = behind_head(|mut stream| {
        let _ = Flow::new(TO_CLIENT).send(&mut stream, BULK);
    });
    let proxy = start(&backend, &["--pipes-per-core", "0"]);
    let mut stream = open(&proxy);
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
    assert_eq!(received, whole(BULK));
    drop(stream);
    proxy.wait_for_outcome("tls", "relayed", 1);
    let counter = |name: &str| proxy.series(name).expect("a counter") as u64;
    assert_eq!(
        counter("pointsman_relayed_bytes_total{method=\"splice\"}"),
        0
    );
    assert!(counter("pointsman_pipe_shortages_total") > 0);
}

/// Sends until the other side is gone.
fn flood(mut stream: TcpStream) {
    let noise = vec![0x5a; 256 * 1024];
    while stream.write_all(&noise).is_ok() {}
}

#[test]
fn clients_that_never_read_cost_little_and_disturb_nobody() {
    const STALLED: usize = 40;
    let flooding = behind_head(flood);
    let mirror = mirror();
    let proxy = Options::new()
        .route("a.test", &[&flooding.member()])
        .route("b.test", &[&mirror.member()])
        .start();
    let before = proxy.resident_bytes();
    let stalled: Vec<TcpStream> = (0..STALLED).map(|_| open(&proxy)).collect();
    let mut neighbour = to_b_test(proxy.https());
    // All of them are to stand before it is measured.
    std::thread::sleep(Duration::from_millis(500));
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        slowest = slowest.max(round_trip(&mut neighbour, b"small"));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(slowest < Duration::from_millis(300), "{slowest:?}");
    // Each holds at most one read of the core's buffer, 64 KiB; the rest is the kernel's.
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < STALLED * 128 * 1024 + 4 * MIB as usize, "{grown}");
    proxy.assert_rests();
    drop(stalled);
}

/// A client of the neighbour's route that has sent its head.
fn to_b_test(https: SocketAddr) -> TcpStream {
    let mut stream = client::connect(https);
    let head = Hello::named("b.test").record();
    stream.write_all(&head).expect("the proxy reads");
    stream
}

#[test]
fn bulk_does_not_starve_small_exchanges_of_the_same_core() {
    let flooding = behind_head(flood);
    let small = backend::echo("small");
    let proxy = Options::new()
        .route("a.test", &[&flooding.member()])
        .route("b.test", &[&small.member()])
        .start();
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut stream = open(&proxy);
            let done = done.clone();
            scope.spawn(move || {
                let mut buffer = vec![0; 256 * 1024];
                while !done.load(Ordering::Relaxed) {
                    stream.read_exact(&mut buffer).expect("the flood goes on");
                }
            });
        }
        let mut stream = to_b_test(proxy.https());
        let mut greeting = vec![0; HEAD.len() + "small\n".len()];
        stream.read_exact(&mut greeting).expect("a greeting");
        let mut waits: Vec<Duration> = (0..300)
            .map(|_| round_trip(&mut stream, b"a small exchange"))
            .collect();
        done.store(true, Ordering::Relaxed);
        waits.sort_unstable();
        let (median, nearly_all) = (waits[150], waits[294]);
        assert!(median < Duration::from_millis(50), "{median:?}");
        assert!(nearly_all < Duration::from_millis(300), "{nearly_all:?}");
    });
}

#[test]
fn a_thousand_connections_at_once() {
    let backend = backend::http("one");
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&backend.member()])
        .start();
    let http = proxy.http();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(move || {
                let mut streams: Vec<_> = (0..100).map(|_| client::connect(http)).collect();
                for stream in &mut streams {
                    stream
                        .write_all(&client::request("a.test"))
                        .expect("the proxy reads");
                }
                for stream in &mut streams {
                    let response = client::Response::read(stream).expect("an answer");
                    assert_eq!(response.text(), "one");
                }
            });
        }
    });
    proxy.wait_for_outcome("http", "relayed", 1000);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let flooding = behind_head(flood);
    let proxy = Options::new()
        .cores("0-1")
        .route("a.test", &[&flooding.member()])
        .start();
    for round in 0..300 {
        // Before a byte, within the head, right behind it, and while it is served.
        let mut stream = client::connect(proxy.https());
        match round % 4 {
            0 => {}
            1 => stream.write_all(&HEAD[..9]).expect("the proxy reads"),
            2 => stream.write_all(&HEAD).expect("the proxy reads"),
            _ => {
                stream.write_all(&HEAD).expect("the proxy reads");
                stream.read_exact(&mut [0; 1000]).expect("the flood");
            }
        }
        reset(stream);
    }
    let mut last = open(&proxy);
    last.read_exact(&mut [0; 1000]).expect("the flood");
}

#[test]
fn heads_that_come_byte_by_byte_are_routed() {
    let backend = backend::echo("slow");
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let hello = Hello::named("a.test").record();
    for (address, bytes) in [
        (proxy.http(), &client::request("a.test")),
        (proxy.https(), &hello),
    ] {
        let mut stream = client::connect(address);
        for byte in bytes {
            client::send_cut(&mut stream, &[*byte], Cut::Whole);
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.shutdown(Shutdown::Write).expect("connected");
        let answer = client::Answer::read(&mut stream);
        assert_eq!(answer.echoed(), Some(("slow", &bytes[..])));
    }
}

#[test]
fn a_tunnel_outlives_the_head_deadline_and_ends_with_the_idle_one() {
    let backend = mirror();
    let args = ["--head-deadline", "500ms", "--idle-deadline", "2s"];
    let proxy = start(&backend, &args);
    let mut stream = open(&proxy);
    round_trip(&mut stream, b"first");
    // Twice: longer than the head deadline, shorter than the idle one, and longer than it together.
    std::thread::sleep(Duration::from_millis(1200));
    round_trip(&mut stream, b"after the head deadline");
    // The second time.
    std::thread::sleep(Duration::from_millis(1200));
    round_trip(&mut stream, b"longer than the idle deadline in all");
    let idle = Instant::now();
    let received = Flow::new(TO_CLIENT).receive(&mut stream, |_| {});
    assert_eq!(received.bytes, 0);
    let took = idle.elapsed().as_millis();
    assert!((1700..4000).contains(&took), "{took} ms");
    proxy.wait_for_outcome("tls", "idle_timeout", 1);
}

/// A backend that acknowledges late makes a sender hold its second small piece back for 40 ms, unless
/// it was told not to (RFC 896).
#[test]
fn small_pieces_do_not_wait_for_acknowledgements() {
    let (sender, gaps) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        let mut piece = || {
            let late = SockRef::from(&stream).set_tcp_quickack(false);
            late.expect("a socket option");
            stream.read_exact(&mut [0]).expect("a piece");
            Instant::now()
        };
        piece();
        let second = piece();
        let _ = sender.send(piece() - second);
    });
    let proxy = start(&backend, &[]);
    let gap = || {
        let mut stream = open(&proxy);
        for piece in b"123" {
            stream.write_all(&[*piece]).expect("the proxy reads");
            std::thread::sleep(Duration::from_millis(5));
        }
        gaps.recv_timeout(client::PATIENCE).expect("they arrive")
    };
    let shortest = (0..5).map(|_| gap()).min().expect("five");
    assert!(shortest < Duration::from_millis(30), "{shortest:?}");
}

/// A read ends before urgent data, with more behind it of which the kernel does not tell again.
#[test]
fn bytes_behind_urgent_data_are_not_forgotten() {
    let mirror = mirror();
    let proxy = start(&mirror, &[]);
    let mut stream = open(&proxy);
    for _ in 0..20 {
        round_trip(&mut stream, b"small");
    }
    let sent = Instant::now();
    SockRef::from(&stream)
        .send_out_of_band(b"before!")
        .expect("the proxy reads");
    stream.write_all(b"behind").expect("the proxy reads");
    // The byte that was urgent is not part of the stream (RFC 6093, section 3.4).
    let mut back = [0; 12];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"beforebehind");
    assert!(
        sent.elapsed() < Duration::from_secs(4),
        "{:?}",
        sent.elapsed()
    );
    round_trip(&mut stream, b"goes on");
}

/// splice(2) does not get past it at all.
#[test]
fn bytes_behind_urgent_data_in_bulk_are_given_on() {
    const BYTES: u64 = 16 * MIB;
    let (sender, ends) = mpsc::channel();
    let backend = behind_head(move |mut stream| {
        let received = Flow::new(TO_BACKEND).receive(&mut stream, |_| {});
        sender.send(received).expect("the test waits");
    });
    let proxy = start(&backend, &[]);
    let mut stream = open(&proxy);
    let flow = Flow::new(TO_BACKEND);
    let mut all = Vec::new();
    flow.send(&mut all, BYTES).expect("memory");
    let (before, behind) = all.split_at(all.len() / 2);
    let (near, rest) = behind.split_at(10_000);
    stream.write_all(before).expect("the proxy reads");
    let urgent = SockRef::from(&stream).send_out_of_band(b"!");
    urgent.expect("the proxy reads");
    stream.write_all(near).expect("the proxy reads");
    // All that can be moved is to be moved: what then goes on is idle work.
    std::thread::sleep(Duration::from_millis(100));
    proxy.assert_rests();
    stream.write_all(rest).expect("the proxy reads");
    drop(stream);
    let received = ends.recv_timeout(client::PATIENCE).expect("an end");
    assert_eq!(received, whole(BYTES));
}
