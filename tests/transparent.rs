//! Backends that see the client's address as the source of their connection, over networks of the
//! tests' own: client, proxy and backend are machines that know each other by routes alone.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::client::Hello;
use support::netns::{Line, Namespace};
use support::nginx::Nginx;
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::wait_until;

const DOCS: &str = include_str!("../docs/client-address.md");

/// What leads the backends' answers to the proxy's sockets, as docs/client-address.md has it.
const RECIPE: [&str; 5] = [
    "nft 'add table inet pointsman; \
     add chain inet pointsman replies { type filter hook prerouting priority mangle; }; \
     add rule inet pointsman replies meta l4proto tcp socket transparent 1 meta mark set 1'",
    "ip rule add fwmark 1 lookup 100",
    "ip route add local 0.0.0.0/0 dev lo table 100",
    "ip -6 rule add fwmark 1 lookup 100",
    "ip -6 route add local ::/0 dev lo table 100",
];

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Asks over TLS as the machine `client` does, by curl; whether it succeeded, and what it said.
fn get(client: &Namespace, name: &str, proxy: SocketAddr) -> (bool, String) {
    let (port, ip) = (proxy.port(), proxy.ip());
    let ip = if ip.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip.to_string()
    };
    client.try_run(&format!(
        "curl -sSk --max-time 20 --resolve {name}:{port}:{ip} https://{name}:{port}/"
    ))
}

/// Listens on the proxy's addresses of the client's network.
fn options() -> Options {
    let listen = |ip| at(ip, 0).to_string();
    Options::new()
        .listen("--https", &listen(Namespace::v4(1, 1)))
        .listen("--https", &listen(Namespace::v6(1, 1)))
}

fn listener(proxy: &Proxy, ip: IpAddr) -> SocketAddr {
    let mut listeners = proxy.https_all().iter();
    *listeners
        .find(|address| address.ip() == ip)
        .expect("it listens there")
}

#[test]
fn the_backend_sees_the_clients_address_and_its_answers_come_back() {
    let line = Line::new();
    let (v4, v6) = (Namespace::v4(2, 2), Namespace::v6(2, 2));
    let (client_v4, client_v6) = (Namespace::v4(1, 2), Namespace::v6(1, 2));
    let nginx = line
        .backend
        .inside(|| Nginx::start(&[at(v4, 443), at(v6, 443)]));
    line.proxy.inside(|| {
        let (of_v4, of_v6) = (
            format!("{v4} source=client"),
            format!("[{v6}] source=client"),
        );
        let proxy = options()
            .args(&[
                "--connect-deadline",
                "1s",
                "--connect-attempts",
                "1",
                "--log",
                "debug",
            ])
            .route("four.test", &[&of_v4])
            .route("six.test", &[&of_v6])
            .route("both.test", &[&of_v4, &of_v6])
            .route("own.test", &[&v4.to_string()])
            .start();
        let (to_v4, to_v6) = (
            listener(&proxy, Namespace::v4(1, 1)),
            listener(&proxy, Namespace::v6(1, 1)),
        );

        // Without the recipe the backend's answers lead nowhere.
        assert!(!get(&line.client, "four.test", to_v4).0);
        proxy.wait_for_outcome("tls", "backend_timeout", 1);
        for step in RECIPE {
            let as_ipv4 = step.replace(" -6", "").replace("::/0", "0.0.0.0/0");
            assert!(
                DOCS.contains(&as_ipv4),
                "{as_ipv4} is not in docs/client-address.md"
            );
            line.proxy.run(step);
        }
        line.proxy.run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        for (name, listener, seen) in [
            ("four.test", to_v4, client_v4),
            ("six.test", to_v6, client_v6),
            // Of both backends the one of the client's family is taken.
            ("both.test", to_v4, client_v4),
            ("both.test", to_v6, client_v6),
            ("own.test", to_v6, Namespace::v4(2, 1)),
        ] {
            for _ in 0..4 {
                let said = get(&line.client, name, listener);
                assert_eq!(said, (true, format!("client={seen}\n")), "{name}");
                // It writes its log when it has answered.
                wait_until("nginx logs the client", Duration::from_secs(5), || {
                    nginx.logged_clients().pop() == Some(seen.to_string())
                });
            }
        }
        // Neither refused in silence nor connected to from another address.
        for (name, listener) in [("four.test", to_v6), ("six.test", to_v4)] {
            let (succeeded, said) = get(&line.client, name, listener);
            assert!(!succeeded && said.contains("internal error"), "{said}");
        }
        proxy.wait_for_outcome("tls", "source_family", 2);
        proxy.wait_for_line("source_family: ", Duration::from_secs(5));
        proxy.wait_for_outcome("tls", "relayed", 20);
        assert_eq!(nginx.logged_clients().len(), 20);
    });
}

#[test]
fn without_the_privilege_the_refusal_has_a_name() {
    let line = Line::new();
    let v4 = Namespace::v4(2, 2);
    let _nginx = line.backend.inside(|| Nginx::start(&[at(v4, 443)]));
    line.proxy.inside(|| {
        let proxy = options()
            .route("a.test", &[&format!("{v4} source=client")])
            .route("own.test", &[&v4.to_string()])
            .without_capabilities(&["net_admin", "net_raw"])
            .start();
        let listener = listener(&proxy, Namespace::v4(1, 1));
        assert!(!get(&line.client, "a.test", listener).0);
        proxy.wait_for_outcome("tls", "source_forbidden", 1);
        let warning = proxy.wait_for_line("source_forbidden: ", Duration::from_secs(5));
        assert!(warning.contains("CAP_NET_ADMIN"), "{warning}");
        assert!(get(&line.client, "own.test", listener).0);
    });
}

#[test]
fn a_client_address_that_cannot_travel_is_refused_by_name() {
    let line = Line::new();
    let v4 = Namespace::v4(2, 2);
    line.proxy.inside(|| {
        let proxy = Options::new()
            .route("a.test", &[&format!("{v4} source=client")])
            .start();
        let hello = support::client::Hello::named("a.test").record();
        let answer = support::client::exchange(proxy.https(), &hello, support::client::Cut::Whole);
        assert_eq!(answer.alert(), Some(80));
        proxy.wait_for_outcome("tls", "source_refused", 1);
    });
}

#[test]
fn an_ipv4_client_reaches_an_ipv6_backend_from_inside_the_prefix() {
    let line = Line::new();
    let v6 = Namespace::v6(2, 2);
    let nginx = line.backend.inside(|| Nginx::start(&[at(v6, 443)]));
    line.proxy
        .run("ip -6 route add local 2001:db8:46::/96 dev lo");
    line.proxy.inside(|| {
        // No privilege is needed for it.
        let proxy = options()
            .route(
                "a.test",
                &[&format!("[{v6}] source=nat46:2001:db8:46::/96")],
            )
            .without_capabilities(&["net_admin", "net_raw"])
            .start();
        let embedded = "2001:db8:46::a4d:102";
        let of_v6_clients = Namespace::v6(2, 1).to_string();
        for (ip, seen) in [
            (Namespace::v4(1, 1), embedded),
            (Namespace::v6(1, 1), of_v6_clients.as_str()),
        ] {
            let said = get(&line.client, "a.test", listener(&proxy, ip));
            assert_eq!(said, (true, format!("client={seen}\n")));
            assert_eq!(nginx.logged_clients().pop().as_deref(), Some(seen));
        }
        let own = proxy.series("pointsman_nat46_own_source_connects_total");
        assert_eq!(own, Some(1.0));
    });
}

/// What `pointsman check` says of the foreign sources, and whether it found nothing that fails.
fn check(proxy: &Namespace, arguments: &str) -> (bool, Vec<String>) {
    let binary = env!("CARGO_BIN_EXE_pointsman");
    let line = format!("{binary} check --cores 0 --https 127.0.0.1:8443 {arguments}");
    let (succeeded, said) = proxy.try_run(&line);
    let of_sources = said.lines().filter(|line| line.contains(" source="));
    (succeeded, of_sources.map(str::to_owned).collect())
}

#[test]
fn the_lines_that_check_misses_are_all_that_it_takes() {
    let line = Line::new();
    let (v4, v6) = (Namespace::v4(2, 2), Namespace::v6(2, 2));
    let _nginx = line
        .backend
        .inside(|| Nginx::start(&[at(v4, 443), at(v6, 443)]));
    line.proxy.inside(|| {
        // One from each place that routes come from.
        let redis = RedisServer::start();
        redis.run_words(&[
            b"SADD",
            b"hostnames:other.test:backends",
            b"[fd77:2::2]:9 source=client",
        ]);
        let file = tempfile::NamedTempFile::new().unwrap();
        let prefixed = format!("[{v6}] source=nat46:2001:db8:46::/96");
        std::fs::write(&file, format!("[routes]\n\"prefix.test\" = \"{prefixed}\"\n")).unwrap();
        let transparent = format!("{v4} source=client");
        let arguments = format!(
            "--redis {} --routes {} --route 'a.test={transparent}'",
            redis.url(),
            file.path().display()
        );
        let (succeeded, found) = check(&line.proxy, &arguments);
        assert!(!succeeded, "{found:#?}");
        let missing: Vec<&str> = found
            .iter()
            .filter_map(|line| line.split_once("missing: ")?.1.rsplit_once("; run it"))
            .map(|(line, _)| line)
            .collect();
        assert_eq!(missing.len(), 6, "{found:#?}");
        for step in missing {
            line.proxy.run(step);
        }
        let (succeeded, found) = check(&line.proxy, &arguments);
        assert!(succeeded && found.len() == 7, "{found:#?}");
        assert!(found.iter().all(|line| line.starts_with("ok ")), "{found:#?}");

        let proxy = options()
            .args(&["--connect-deadline", "1s", "--connect-attempts", "1"])
            .route("a.test", &[&transparent])
            .route("prefix.test", &[&prefixed])
            .start();
        let listener = listener(&proxy, Namespace::v4(1, 1));
        assert!(get(&line.client, "a.test", listener).0);
        assert!(get(&line.client, "prefix.test", listener).0);

        // The one setting that undoes it is found, too.
        line.proxy.run("sysctl -qw net.ipv4.conf.v2.src_valid_mark=1 net.ipv4.conf.v2.rp_filter=1");
        assert!(!get(&line.client, "a.test", listener).0);
        let (succeeded, found) = check(&line.proxy, &arguments);
        let said = found.iter().any(|line| line.contains("sysctl -w net.ipv4.conf.v2.src_valid_mark=0"));
        assert!(!succeeded && said, "{found:#?}");

        let rightless = line.proxy.try_run(&format!(
            "setpriv --bounding-set -net_admin,-net_raw {} check --https 127.0.0.1:8443 {arguments}",
            env!("CARGO_BIN_EXE_pointsman")
        ));
        assert!(!rightless.0 && rightless.1.contains("grant CAP_NET_ADMIN"), "{}", rightless.1);
    });
}

/// A server that says whom it sees and holds the connection, until the test ends.
fn mirror(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            writeln!(stream, "{}", stream.peer_addr().unwrap()).unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
}

/// A connection of the client's, and whom the backend sees; `None` when there is none.
fn connect(proxy: SocketAddr, name: &str) -> (TcpStream, Option<SocketAddr>) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.write_all(&Hello::named(name).record()).unwrap();
    let mut line = String::new();
    // An alert is no text.
    let _ = BufReader::new(&stream).read_line(&mut line);
    (stream, line.trim().parse().ok())
}

#[test]
fn a_port_is_taken_towards_one_backend_and_not_towards_all() {
    let line = Line::new();
    let v4 = Namespace::v4(2, 2);
    let backends = [at(v4, 1001), at(v4, 1002)];
    line.backend.inside(|| backends.map(mirror));
    for step in RECIPE {
        line.proxy.run(step);
    }
    line.proxy.inside(|| {
        let [one, other] = backends.map(|backend| format!("{backend} source=client"));
        let proxy = options()
            .args(&["--lookup", "yes"])
            .route("one.test", &[&one])
            .route("other.test", &[&other])
            .start();
        let listener = listener(&proxy, Namespace::v4(1, 1));
        let seen = at(Namespace::v4(1, 2), 40000);
        // Only while the clients connect: the test's own connections need ports, too.
        let ports = |range: &str| {
            let setting = format!("sysctl -qw net.ipv4.ip_local_port_range='{range}'");
            line.proxy.run(&setting);
        };
        ports("40000 40000");
        let (held, third) = line.client.inside(|| {
            let held = ["one.test", "other.test"].map(|name| connect(listener, name));
            let third = connect(listener, "one.test").1;
            (held, third)
        });
        ports("32768 60999");
        assert_eq!(held.each_ref().map(|(_, seen)| *seen), [Some(seen); 2]);
        assert_eq!(third, None);
        proxy.wait_for_outcome("tls", "out_of_resources", 1);

        // One address and port, two clients' connections: the look-up does not guess.
        let ask = |query: &str| -> serde_json::Value {
            serde_json::from_str(&proxy.admin_page(&format!("/client?{query}"))).unwrap()
        };
        let matches = ask(&format!("backend={seen}"))["matches"].clone();
        assert_eq!(matches.as_array().map(Vec::len), Some(2), "{matches}");
        for ((stream, _), (name, backend)) in held
            .iter()
            .zip(["one.test", "other.test"].into_iter().zip(backends))
        {
            let answer = ask(&format!("backend={seen}&to={backend}"));
            assert_eq!(answer["name"], name, "{answer}");
            let client = stream.local_addr().unwrap().to_string();
            assert_eq!(answer["client"], client, "{answer}");
        }
        drop(held);
    });
}
