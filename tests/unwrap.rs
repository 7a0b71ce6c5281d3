//! The receiving end beside a server that knows nothing of proxies: on a machine of its own, in
//! front of a real server whose log shows the clients, behind a real Pointsman that names them.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::netns::{Line, Namespace};
use support::nginx::Nginx;
use support::proxy::{Options, Proxy};
use support::wait_until;

const DOCS: &str = include_str!("../docs/client-address.md");

const SERVERS: [&str; 2] = ["127.0.0.1:443", "[::1]:443"];

/// Runs the lines that `pointsman check` misses for this receiving end, and checks that it misses
/// nothing then.
fn prepare(machine: &Namespace, servers: &[&str]) {
    let mut arguments = String::from("--proxy-from 10.77.2.1");
    for server in servers {
        arguments.push_str(&format!(" --to '{server}'"));
    }
    let check = format!(
        "{} check --cores 0 --listen 127.0.0.1:8443 {arguments}",
        env!("CARGO_BIN_EXE_pointsman")
    );
    let (succeeded, said) = machine.try_run(&check);
    assert!(!succeeded, "{said}");
    let missing: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once("missing: ")?.1.rsplit_once("; run it"))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(
        missing.len(),
        4,
        "a rule and a route for each family: {said}"
    );
    for step in missing {
        let is_usual = *servers == SERVERS;
        assert!(
            !is_usual || DOCS.contains(step),
            "{step} is not in docs/client-address.md"
        );
        machine.run(step);
    }
    machine.run(&check);
}

/// A receiving end on the backend's machine that believes the proxy's, in front of `servers`.
fn unwrap(servers: &[&str]) -> Proxy {
    let listen = |ip| SocketAddr::new(ip, 0).to_string();
    let options = Options::new()
        .listen("--listen", &listen(Namespace::v4(2, 2)))
        .listen("--listen", &listen(Namespace::v6(2, 2)))
        .args(&[
            "unwrap",
            "--proxy-from",
            "10.77.2.1",
            "--proxy-from",
            "fd77:2::1",
        ]);
    let with_server = |options: Options, server: &&str| options.args(&["--to", *server]);
    servers.iter().fold(options, with_server).start()
}

/// How many connections of the receiving end ended so.
fn ended(unwrap: &Proxy, outcome: &str) -> u64 {
    let series = format!("pointsman_connections_total{{protocol=\"tcp\",outcome=\"{outcome}\"}}");
    unwrap.series(&series).unwrap_or_default() as u64
}

#[test]
fn a_plain_server_logs_the_client_that_the_proxy_saw() {
    logs_the_client(SERVERS);
}

#[test]
fn so_does_one_that_listens_on_the_machines_own_addresses() {
    logs_the_client(["10.77.2.2:443", "[fd77:2::2]:443"]);
}

fn logs_the_client(servers: [&str; 2]) {
    let line = Line::new();
    prepare(&line.backend, &servers);
    let addresses = servers.map(|server| server.parse().unwrap());
    let nginx = line.backend.inside(|| Nginx::start(&addresses));
    line.backend.inside(|| {
        let unwrap = unwrap(&servers);
        let [over_v4, over_v6] = [unwrap.listen_all()[0], unwrap.listen_all()[1]];
        line.proxy.inside(|| {
            let proxy = Options::new()
                .listen("--https", "10.77.1.1:0")
                .listen("--https", "[fd77:1::1]:0")
                .route("one.test", &[&format!("{over_v4} proxy=v1")])
                .route("two.test", &[&format!("{over_v4} proxy=v2")])
                .route("six.test", &[&format!("{over_v6} proxy=v2")])
                .start();
            for (listener, seen) in [("10.77.1.1", "10.77.1.2"), ("fd77:1::1", "fd77:1::2")] {
                let ip: IpAddr = listener.parse().unwrap();
                let mut listeners = proxy.https_all().iter();
                let port = listeners.find(|address| address.ip() == ip).unwrap().port();
                let ip = listener.contains(':').then(|| format!("[{listener}]"));
                let ip = ip.as_deref().unwrap_or(listener);
                for name in ["one.test", "two.test", "six.test"] {
                    let said = line.client.try_run(&format!(
                        "curl -sSk --max-time 20 --resolve {name}:{port}:{ip} https://{name}:{port}/"
                    ));
                    assert_eq!(said, (true, format!("client={seen}\n")), "{name}");
                    assert_eq!(nginx.logged_clients().pop().as_deref(), Some(seen));
                }
            }
        });
        assert_eq!(nginx.logged_clients().len(), 6);
        wait_until("all are counted", Duration::from_secs(5), || {
            ended(&unwrap, "relayed") == 6
        });
    });
}

#[test]
fn whoever_is_not_listed_is_refused_whatever_it_says() {
    let line = Line::new();
    prepare(&line.backend, &SERVERS);
    line.backend.inside(|| {
        let server = TcpListener::bind("127.0.0.1:443").unwrap();
        server.set_nonblocking(true).unwrap();
        let unwrap = unwrap(&SERVERS[..1]);
        for bytes in [
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello"[..],
            b"hello",
        ] {
            let mut stream = TcpStream::connect(unwrap.listen_all()[0]).unwrap();
            stream.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // Closed or reset, and not a byte.
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"");
        }
        wait_until("both are refused", Duration::from_secs(5), || {
            ended(&unwrap, "proxy_untrusted") == 2
        });
        let from_proxy = |bytes: &'static [u8]| {
            let address = unwrap.listen_all()[0];
            line.proxy.inside(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(bytes).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
        };
        from_proxy(b"hello, no header at all");
        // The server is of one family, the client of the other.
        from_proxy(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        wait_until("these are refused, too", Duration::from_secs(5), || {
            ended(&unwrap, "proxy_missing") == 1 && ended(&unwrap, "source_family") == 1
        });
        assert!(server.accept().is_err(), "the server heard of one of them");
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_and_sees_the_client() {
    let line = Line::new();
    prepare(&line.backend, &SERVERS);
    line.backend.inside(|| {
        let server = TcpListener::bind("127.0.0.1:443").unwrap();
        let unwrap = unwrap(&SERVERS[..1]);
        let address = unwrap.listen_all()[0];
        let greeter = std::thread::spawn(move || {
            let (mut stream, peer) = server.accept().unwrap();
            writeln!(stream, "220 hello {}", peer.ip()).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said
        });
        let greeting = line.proxy.inside(|| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
                .unwrap();
            let mut greeting = [0; 20];
            stream.read_exact(&mut greeting).unwrap();
            stream.write_all(b"QUIT\r\n").unwrap();
            greeting
        });
        assert_eq!(&greeting, b"220 hello 192.0.2.1\n");
        assert_eq!(greeter.join().unwrap(), "QUIT\r\n");
    });
}

#[test]
fn a_check_of_the_proxys_own_reaches_the_server_as_the_proxys() {
    let line = Line::new();
    prepare(&line.backend, &SERVERS);
    line.backend.inside(|| {
        let server = TcpListener::bind("127.0.0.1:443").unwrap();
        let unwrap = unwrap(&SERVERS[..1]);
        let address = unwrap.listen_all()[0];
        let _held = line.proxy.inside(|| {
            let mut stream = TcpStream::connect(address).unwrap();
            // Version 2, LOCAL, no address family.
            let header = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
            stream.write_all(header).unwrap();
            stream
        });
        let (_stream, peer) = server.accept().unwrap();
        assert_eq!(peer.ip(), Namespace::v4(2, 1));
    });
}
