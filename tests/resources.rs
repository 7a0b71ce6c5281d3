//! When the machine runs short: descriptors, pipes, local ports, somebody to read the log.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::internals::config::KernelVersion;
use socket2::{Domain, Socket, Type};
use support::client::{self, Cut, Hello, Response};
use support::flow::{Flow, Received};
use support::http::Wire;
use support::netns::Namespace;
use support::process::Process;
use support::proxy::{Options, Proxy};
use support::{backend, wait_until};

const MIB: u64 = 1 << 20;
const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(HEAD).expect("the proxy reads");
    let response = Response::read(stream).expect("an answer");
    response.text().to_owned()
}

fn pauses_logged(proxy: &Proxy) -> usize {
    let said = proxy.stderr();
    said.lines().filter(|line| line.contains("pauses")).count()
}

/// Clients beyond what the limit allows wait in the backlog; those inside notice nothing.
#[test]
fn without_descriptors_clients_wait_and_nobody_is_turned_away() {
    const CLIENTS: usize = 400;
    let backend = backend::http("one");
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--head-deadline", "60s"])
        .file_limit(256)
        .start();
    let mut old: Vec<_> = (0..10).map(|_| client::connect(proxy.http())).collect();
    for stream in &mut old {
        assert_eq!(ask(stream), "one");
    }
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = client::connect(proxy.http());
            stream.write_all(HEAD).expect("the kernel takes it");
            stream
        })
        .collect();
    proxy.wait_for_line("pauses", client::PATIENCE);
    proxy.assert_rests();
    assert!(proxy.descriptors() <= 256);
    for stream in &mut old {
        assert_eq!(ask(stream), "one");
    }
    assert_eq!(pauses_logged(&proxy), 1);
    // Whoever is served makes room for the next.
    for stream in &mut clients {
        let response = Response::read(stream).expect("an answer");
        assert_eq!((response.status, response.text()), (200, "one"));
        stream
            .shutdown(std::net::Shutdown::Both)
            .expect("connected");
    }
    drop(clients);
    drop(old);
    proxy.wait_for_outcome("http", "relayed", 10 + CLIENTS as u64);
    assert_eq!(proxy.outcome("http", "out_of_resources"), 0);
    assert_eq!(ask(&mut client::connect(proxy.http())), "one");
}

/// Connections that wait for a request give way to clients and their backends, on whatever core they
/// are, to however many backends.
#[test]
fn without_descriptors_the_idle_pool_gives_way() {
    const CLIENTS: usize = 40;
    const BACKENDS: usize = 6;
    for cores in ["0", "0-1"] {
        let backends: Vec<_> = (0..BACKENDS).map(|_| backend::http("one")).collect();
        let mut options = Options::new().cores(cores).file_limit(256);
        for (n, backend) in backends.iter().enumerate() {
            options = options.route(&format!("w{n}.test"), &[&backend.member()]);
        }
        let proxy = options.start();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Wire::connect(proxy.http())).collect();
        for n in 0..BACKENDS {
            // All at once, so that each needs a connection of its own.
            for client in &mut clients {
                client.send(format!("GET / HTTP/1.1\r\nHost: w{n}.test\r\n\r\n"));
            }
            for client in &mut clients {
                let response = client.response();
                assert_eq!(response.status(), 200, "w{n}.test, cores {cores}");
            }
        }
        // As many connections to backends were made as descriptors do not allow to keep.
        let made: usize = backends.iter().map(backend::Backend::accepted).sum();
        assert!(made > 100, "{made}");
        let idle: u64 = proxy.per_core("backends_idle").iter().sum();
        assert!(idle > 0 && (2 * CLIENTS + idle as usize) < 200, "{idle}");
        drop(clients);
    }
}

/// Its body ends with the connection.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

fn download(bytes: u64) -> backend::Backend {
    backend::raw(move |mut stream| {
        if stream.read_exact(&mut [0; HEAD.len()]).is_ok() {
            let _ = stream.write_all(ANSWER);
            let _ = Flow::new(1).send(&mut stream, bytes);
        }
    })
}

fn downloads(http: SocketAddr, count: usize, bytes: u64) {
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(move || {
                let mut stream = client::connect(http);
                stream.write_all(HEAD).expect("the proxy reads");
                let mut answer = [0; ANSWER.len()];
                stream.read_exact(&mut answer).expect("an answer");
                assert_eq!(answer, ANSWER);
                // Slow enough that all are under way together and hold their pipes.
                let received = Flow::new(1).receive(&mut stream, |at| {
                    if at % MIB == 0 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
                let reset = false;
                assert_eq!(received, Received { bytes, reset });
            });
        }
    });
}

/// Pipes get a share of the descriptors; what has none is copied, and no connection is refused.
#[test]
fn bulk_beyond_the_pipes_is_copied() {
    const BYTES: u64 = 8 * MIB;
    let backend = download(BYTES);
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .file_limit(256)
        .start();
    downloads(proxy.http(), 55, BYTES);
    proxy.wait_for_outcome("http", "relayed", 55);
    let counter = |name: &str| proxy.series(name).expect("a counter") as u64;
    assert!(counter("pointsman_relayed_bytes_total{method=\"splice\"}") > 0);
    assert_eq!(proxy.outcome("http", "out_of_resources"), 0);
    // The pipes that are kept for the next bulk leave room for as many connections again.
    let mut small: Vec<_> = (0..55).map(|_| client::connect(proxy.http())).collect();
    for stream in &mut small {
        stream.write_all(HEAD).expect("the proxy reads");
    }
    for stream in &mut small {
        stream.read_exact(&mut [0; 1000]).expect("an answer");
    }
    drop(small);
    assert_eq!(proxy.outcome("http", "out_of_resources"), 0);
}

/// Local ports rest for a minute after a client has closed first. When those that the kernel looks
/// at first were used up, each connect would look at all of them in vain, as it does where the kernel
/// is older or the mask says so; what that costs is printed.
#[test]
fn connecting_is_as_cheap_when_half_of_the_local_ports_are_taken() {
    const MEASURED: u64 = 400;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("it is Linux");
    let mask = std::env::var("POINTSMAN_KERNEL_MASK").unwrap_or(release.clone());
    let looks_at_every_port = [release, mask]
        .iter()
        .all(|kernel| KernelVersion::parse(kernel.trim()) >= Some(KernelVersion::new(6, 8)));
    let machine = Namespace::new("ports");
    // Nobody is given a port that rests, as it is towards other machines.
    machine.run("sysctl -qw net.ipv4.ip_local_port_range='10000 25999' net.ipv4.tcp_tw_reuse=0");
    machine.inside(|| {
        let backend = backend::echo("one");
        let proxy = Options::new()
            .cores("0")
            .route("a.test", &[&backend.member()])
            .start();
        let hello = Hello::named("a.test").record();
        let connect = |count: u64| {
            let before = proxy.processor_time();
            for _ in 0..count {
                let answer = client::exchange(proxy.https(), &hello, Cut::Whole);
                assert!(answer.echoed().is_some(), "{answer:?}");
            }
            proxy.processor_time() - before
        };
        let many_free = connect(MEASURED);
        connect(8000 - MEASURED);
        let few_free = connect(MEASURED);
        println!("{MEASURED} connections: {many_free:?}, then {few_free:?}");
        assert!(
            !looks_at_every_port || few_free < many_free * 2 + Duration::from_millis(30),
            "{MEASURED} connections cost {many_free:?} at first and {few_free:?} when half of the ports rest"
        );
    });
}

/// A proxy whose standard error is in the hands of the test.
struct Talking {
    child: Child,
    http: SocketAddr,
    stderr: BufReader<ChildStderr>,
}

impl Talking {
    fn start(member: &str) -> Talking {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["--http", "127.0.0.1:0", "--cores", "0", "--log", "debug"])
            .args(["--drain", "5s", "--route", &format!("a.test={member}")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy was built");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.starts_with("ready ") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended");
        }
        let http = line.trim().rsplit_once("http=").expect("an address").1;
        let http = http.parse().expect("an address");
        Talking {
            child,
            http,
            stderr,
        }
    }

    /// Each connection is a line in the log at this level.
    fn serve(&self, connections: usize) {
        for _ in 0..connections {
            let response = client::http_get(self.http, "a.test", "/").expect("an answer");
            assert_eq!(response.text(), "one");
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let backend = backend::http("one");
    let mut proxy = Talking::start(&backend.member());
    // A pipe takes 64 KiB, some 250 lines of these.
    proxy.serve(1500);
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let mut said = String::new();
    let _ = proxy.stderr.read_to_string(&mut said);
    assert!(said.lines().count() > 100);
}

#[test]
fn a_log_that_was_closed_stops_nothing() {
    let backend = backend::http("one");
    let mut proxy = Talking::start(&backend.member());
    proxy.serve(5);
    let sink = File::open("/dev/null").expect("there is one");
    drop(std::mem::replace(&mut proxy.stderr, closed_stderr(sink)));
    proxy.serve(300);
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
}

/// Something to have in the place of the reader that is dropped.
fn closed_stderr(sink: File) -> BufReader<ChildStderr> {
    let fd: std::os::fd::OwnedFd = sink.into();
    BufReader::new(ChildStderr::from(fd))
}

/// For an unprivileged user the kernel makes pipes of two pages once its user has many
/// (pipe(7), pipe-user-pages-soft). Root is exempt, so it becomes somebody else.
#[test]
fn an_unprivileged_user_with_too_many_pipe_pages_is_served() {
    const NOBODY: u32 = 65534;
    const BYTES: u64 = 4 * MIB;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| is_owned_by_root(&own));
    let backend = download(BYTES);
    // The binary may lie where nobody else can look.
    let directory = tempfile::tempdir().expect("a directory");
    let binary = directory.path().join("pointsman");
    std::fs::copy(env!("CARGO_BIN_EXE_pointsman"), &binary).expect("a copy");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).expect("our own");
    let mut command = Command::new(&binary);
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .args(["--http", "127.0.0.1:0", "--cores", "0"])
        .args(["--route", &format!("a.test={}", backend.member())]);
    let process = Process::start(command);
    let ready = process.wait_for_line(client::PATIENCE, |line| line.starts_with("ready "));
    let ready = ready.unwrap_or_else(|| panic!("it said:\n{}", process.said()));
    let http = ready.trim().rsplit_once("http=").expect("an address").1;
    // 64 pipes of 1 MiB are the default limit of 16,384 pages.
    downloads(http.parse().expect("an address"), 100, BYTES);
}

fn is_owned_by_root(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(metadata) == 0
}

/// Set where this test binary runs itself again in a network of its own.
const IN_OWN_NETWORK: &str = "TEST_IN_OWN_NETWORK";

/// The machine's local ports towards one backend are used up: told as such, and over when they are
/// free again.
#[test]
fn without_local_ports_clients_are_told_and_later_served() {
    if std::env::var_os(IN_OWN_NETWORK).is_some() {
        return use_up_local_ports();
    }
    let tests = std::env::current_exe().expect("it runs");
    let name = "without_local_ports_clients_are_told_and_later_served";
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let done = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c", script])
        .arg(tests)
        .arg(name)
        .env(IN_OWN_NETWORK, "yes")
        .output()
        .expect("util-linux is installed");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success(), "{said}");
}

fn use_up_local_ports() {
    const PORTS: usize = 61;
    const CLIENTS: u16 = 80;
    // Over TLS, where each client has a backend connection of its own.
    let backend = backend::echo("one");
    let hello = client::Hello::named("a.test").record();
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    std::fs::write(range, "40000 40060").expect("this network is ours");
    let open = |number: u16| {
        // Outside the range, so that the clients' ports are no part of it.
        let source = SocketAddr::from(([127, 0, 0, 2], 50_000 + number));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&source.into()).expect("a free port");
        socket.connect(&proxy.https().into()).expect("it listens");
        let mut stream: TcpStream = socket.into();
        let patience = Some(client::PATIENCE);
        stream.set_read_timeout(patience).expect("a socket option");
        stream.write_all(&hello).expect("the proxy reads");
        let mut first = [0];
        stream.read_exact(&mut first).expect("an answer");
        (stream, first[0] == b'o')
    };
    let clients: Vec<(TcpStream, bool)> = (0..CLIENTS).map(open).collect();
    let served = clients.iter().filter(|(_, served)| *served).count();
    let told = clients.iter().filter(|(_, served)| !*served).count();
    assert!((PORTS / 2..=PORTS).contains(&served), "{served}");
    assert_eq!(served + told, usize::from(CLIENTS));
    proxy.wait_for_outcome("tls", "out_of_resources", told as u64);
    drop(clients);
    // On loopback a port is used again a second after its connection (tcp_tw_reuse).
    let mut number = CLIENTS;
    wait_until("ports are free again", client::PATIENCE, || {
        number += 1;
        open(number).1
    });
}
