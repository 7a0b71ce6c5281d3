//! The right backend by name: exact names, wildcards, defaults, on one core and on two, over every
//! kind of address that a listener or a backend may have.

mod support;

use std::io::Write;
use std::time::Duration;

use support::backend::{self, Backend};
use support::client::{
    self, Cut, DECODE_ERROR, Hello, UNRECOGNIZED_NAME, exchange, http_get, request, tls_connect,
    tls_get,
};
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::{skipped, wait_until};

/// Who answers over TLS.
#[track_caller]
fn by_tls(proxy: &Proxy, name: &str) -> String {
    let response = tls_get(proxy.https(), name, "/").expect("an answer over TLS");
    response.text().to_owned()
}

/// Who answers over plain HTTP.
#[track_caller]
fn by_http(proxy: &Proxy, host: &str) -> String {
    let response = http_get(proxy.http(), host, "/").expect("an answer over HTTP");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().to_owned()
}

/// Two TLS and two HTTP backends under different names, and the proxy before them.
struct Two {
    proxy: Proxy,
    _backends: [Backend; 4],
}

fn two(cores: &str) -> Two {
    let backends = [
        backend::tls("tls A"),
        backend::tls("tls B"),
        backend::http("http A"),
        backend::http("http B"),
    ];
    let [tls_a, tls_b, http_a, http_b] = backends.each_ref().map(Backend::member);
    let proxy = Options::new()
        .cores(cores)
        .route("a.tls.test", &[&tls_a])
        .route("b.tls.test", &[&tls_b])
        .route("a.http.test", &[&http_a])
        .route("b.http.test", &[&http_b])
        .start();
    Two {
        proxy,
        _backends: backends,
    }
}

fn check_each_name(proxy: &Proxy) {
    for (name, who) in [
        ("a.tls.test", "tls A"),
        ("b.tls.test", "tls B"),
        ("A.TLS.test", "tls A"),
    ] {
        assert_eq!(by_tls(proxy, name), who, "{name}");
    }
    for (host, who) in [
        ("a.http.test", "http A"),
        ("b.http.test", "http B"),
        ("B.http.TEST", "http B"),
        ("a.http.test:8080", "http A"),
        ("b.http.test.", "http B"),
    ] {
        assert_eq!(by_http(proxy, host), who, "{host}");
    }
}

#[test]
fn each_name_reaches_its_own_backend_on_one_core() {
    let two = two("0");
    check_each_name(&two.proxy);
    two.proxy.wait_for_outcome("tls", "relayed", 3);
    two.proxy.wait_for_outcome("http", "relayed", 5);
}

#[test]
fn each_name_reaches_its_own_backend_on_two_cores() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return skipped("this machine has one processor");
    }
    let two = two("0-1");
    check_each_name(&two.proxy);
    // The kernel spreads connections by a hash of their ports: that 32 of them all land on one
    // core is as likely as 31 equal tosses of a coin.
    for (address, name, who) in [
        (two.proxy.https(), "a.tls.test", "tls A"),
        (two.proxy.https(), "b.tls.test", "tls B"),
    ] {
        let mut held: Vec<_> = (0..32)
            .map(|_| tls_connect(address, name).expect("a handshake"))
            .collect();
        let live = two.proxy.per_core("live");
        assert_eq!(live.iter().sum::<u64>(), 32, "{live:?}");
        assert!(live.iter().all(|live| *live > 0), "{live:?}");
        for stream in &mut held {
            write!(stream, "GET / HTTP/1.0\r\n\r\n").expect("a request");
            let response = client::Response::read(stream).expect("an answer");
            assert_eq!(response.text(), who);
        }
        drop(held);
        wait_until("the clients are gone", Duration::from_secs(5), || {
            two.proxy.live() == 0
        });
    }
}

#[test]
fn wildcards_cover_what_has_no_route_of_its_own() {
    let [exact, wide, narrow] = ["exact", "wide", "narrow"].map(backend::tls);
    let [web, all] = ["web", "all"].map(backend::http);
    let proxy = Options::new()
        .route("a.w.test", &[&exact.member()])
        .route("*.w.test", &[&wide.member()])
        .route("*.deep.w.test", &[&narrow.member()])
        .route("*.h.test", &[&all.member()])
        .route("www.h.test", &[&web.member()])
        .start();
    for (name, who) in [
        ("a.w.test", "exact"),
        ("b.w.test", "wide"),
        ("x.y.w.test", "wide"),
        ("b.a.w.test", "wide"),
        ("deep.w.test", "wide"),
        ("x.deep.w.test", "narrow"),
        ("x.y.deep.w.test", "narrow"),
    ] {
        assert_eq!(by_tls(&proxy, name), who, "{name}");
    }
    for (host, who) in [
        ("www.h.test", "web"),
        ("ww.h.test", "all"),
        ("a.www.h.test:80", "all"),
    ] {
        assert_eq!(by_http(&proxy, host), who, "{host}");
    }
    // A wildcard does not cover the bare domain, nor what merely ends alike.
    for name in ["w.test", "xw.test"] {
        let answer = exchange(proxy.https(), &Hello::named(name).record(), Cut::Whole);
        assert_eq!(answer.alert(), Some(UNRECOGNIZED_NAME), "{name}");
    }
    for host in ["h.test", "xh.test", "127.0.0.1"] {
        let answer = exchange(proxy.http(), &request(host), Cut::Whole);
        assert_eq!(answer.status(), Some(421), "{host}");
    }
}

#[test]
fn defaults_take_what_nobody_else_does_each_for_its_protocol() {
    let [tls_known, tls_default] = ["tls known", "tls default"].map(backend::tls);
    let [http_known, http_default] = ["http known", "http default"].map(backend::http);
    let proxy = Options::new()
        .route("known.test", &[&tls_known.member()])
        .route("known.http.test", &[&http_known.member()])
        .route("default:https", &[&tls_default.member()])
        .route("default:http", &[&http_default.member()])
        .start();
    for (name, who) in [
        ("known.test", "tls known"),
        ("unknown.test", "tls default"),
        // rustls sends no SNI for an address.
        ("127.0.0.1", "tls default"),
    ] {
        assert_eq!(by_tls(&proxy, name), who, "{name}");
    }
    for (host, who) in [
        ("known.http.test", "http known"),
        ("unknown.http.test", "http default"),
        ("127.0.0.1:80", "http default"),
        ("[::1]", "http default"),
    ] {
        assert_eq!(by_http(&proxy, host), who, "{host}");
    }
    // HTTP/1.0 may come without a name.
    let answer = exchange(proxy.http(), b"GET / HTTP/1.0\r\n\r\n", Cut::Whole);
    assert!(answer.bytes.ends_with(b"http default"), "{answer:?}");
    // A malformed head is refused all the same.
    let answer = exchange(proxy.http(), b"GET / HTTP/1.1\r\n\r\n", Cut::Whole);
    assert_eq!(answer.status(), Some(400));
    let answer = exchange(proxy.https(), &Hello::new().sni(b"").record(), Cut::Whole);
    assert_eq!(answer.alert(), Some(DECODE_ERROR));
}

#[test]
fn a_client_cannot_name_a_default_a_wildcard_or_a_key() {
    let inner = backend::echo("INNER");
    let proxy = Options::new()
        .route("default:https", &[&inner.member()])
        .route("default:http", &[&inner.member()])
        .route("*.x.test", &[&inner.member()])
        .start();
    // With defaults in force a name that is refused is told from one that falls through to them.
    for name in [
        "*.x.test",
        "*",
        "default:https",
        "hostnames:httpsDefault:backends",
        "a.x.test:443",
        "a.x.test\0",
        " a.x.test",
        "a..x.test",
    ] {
        let answer = exchange(proxy.https(), &Hello::named(name).record(), Cut::Whole);
        assert_eq!(answer.alert(), Some(DECODE_ERROR), "{name:?}");
        assert!(!answer.reset);
    }
    for host in [
        "*.x.test",
        "*",
        "default:http",
        "hostnames:httpDefault:backends",
        "a.x.test, b.x.test",
        "a.x.test/",
        "user@a.x.test",
        "a..x.test",
    ] {
        let answer = exchange(proxy.http(), &request(host), Cut::Whole);
        assert_eq!(answer.status(), Some(400), "{host:?}");
        assert!(!answer.reset);
    }
    assert_eq!(inner.accepted(), 0);
}

#[test]
fn the_words_for_defaults_are_no_hosts() {
    let known = backend::echo("KNOWN");
    let proxy = Options::new().route("a.test", &[&known.member()]).start();
    // They have the form of names, so they are names that nobody has.
    for name in ["httpDefault", "httpsDefault", "httpdefault", "default"] {
        let answer = exchange(proxy.https(), &Hello::named(name).record(), Cut::Whole);
        assert_eq!(answer.alert(), Some(UNRECOGNIZED_NAME), "{name}");
        let answer = exchange(proxy.http(), &request(name), Cut::Whole);
        assert_eq!(answer.status(), Some(421), "{name}");
    }
    drop(proxy);

    let default = backend::echo("DEFAULT");
    let proxy = Options::new()
        .route("default:https", &[&default.member()])
        .start();
    for name in ["httpDefault", "httpsDefault"] {
        // The default of TLS is none of HTTP.
        let answer = exchange(proxy.http(), &request(name), Cut::Whole);
        assert_eq!(answer.status(), Some(421), "{name}");
    }
    assert_eq!(default.accepted(), 0);
}

#[test]
fn ipv6_is_served_on_both_sides() {
    let backend = backend::tls_at("[::1]:0", "six");
    let web = backend::http_at("[::1]:0", "web six");
    let proxy = Options::new()
        .listen("--https", "[::1]:0")
        .listen("--https", "127.0.0.1:0")
        .listen("--http", "[::1]:0")
        .route("a.test", &[&backend.member()])
        .route("[::1]", &[&web.member()])
        .start();
    assert_eq!(proxy.https_all().len(), 2);
    for address in proxy.https_all() {
        let response = tls_get(*address, "a.test", "/").expect("an answer");
        assert_eq!(response.text(), "six", "{address}");
    }
    assert!(proxy.http().is_ipv6());
    let port = proxy.http().port();
    for host in ["[::1]", &format!("[::1]:{port}"), "[0:0:0:0::1]"] {
        assert_eq!(by_http(&proxy, host), "web six", "{host}");
    }
}

#[test]
fn unix_sockets_are_backends() {
    let directory = tempfile::tempdir().expect("a directory");
    let tls = backend::tls_unix(&directory.path().join("tls"), "unix tls");
    let http = backend::http_unix(&directory.path().join("http"), "unix http");
    let proxy = Options::new()
        .route("a.test", &[&tls.member()])
        .route("b.test", &[&http.member()])
        .start();
    assert_eq!(by_tls(&proxy, "a.test"), "unix tls");
    assert_eq!(by_http(&proxy, "b.test"), "unix http");
}

#[test]
fn names_from_dns_are_backends() {
    let tls = backend::tls("by name");
    let http = backend::http("web by name");
    let member = |backend: &Backend| format!("localhost:{}", backend.address().port());
    let proxy = Options::new()
        .route("a.test", &[&member(&tls)])
        .route("b.test", &[&member(&http)])
        .start();
    // The name may be resolved a moment after the start.
    wait_until("localhost is resolved", Duration::from_secs(10), || {
        let response = http_get(proxy.http(), "b.test", "/").expect("an answer");
        response.status == 200 && response.text() == "web by name"
    });
    assert_eq!(by_tls(&proxy, "a.test"), "by name");
}

#[test]
fn members_of_a_route_share_its_connections() {
    let backends = ["one", "two", "three"].map(backend::http);
    let members = backends.each_ref().map(Backend::member);
    let members = members.each_ref().map(String::as_str);
    for balance in ["p2c", "round-robin", "random"] {
        let proxy = Options::new()
            .route("a.test", &members)
            .args(&["--balance", balance])
            .start();
        let answers: Vec<String> = (0..60).map(|_| by_http(&proxy, "a.test")).collect();
        for name in ["one", "two", "three"] {
            let taken = answers.iter().filter(|answer| *answer == name).count();
            // By chance alone fewer than 5 of 60 happen once in a million runs.
            let least = if balance == "round-robin" { 20 } else { 5 };
            assert!(taken >= least, "{balance}: {taken} of 60");
        }
    }
}

/// In Redis the defaults have keys like those of hosts, so here a client could try to name one.
#[test]
fn what_redis_calls_a_default_or_a_wildcard_is_no_name_of_a_client() {
    let [exact, wild, default] = ["EXACT", "WILD", "DEFAULT"].map(backend::echo);
    let redis = RedisServer::start();
    for (key, backend) in [
        ("a.test", &exact),
        ("*.w.test", &wild),
        ("httpsDefault", &default),
    ] {
        let member = backend.member();
        redis.run(&[&format!("SADD hostnames:{key}:backends {member}")]);
    }
    let proxy = Options::new().args(&["--redis", &redis.url()]).start();
    for (name, who) in [
        ("a.test", "EXACT"),
        ("b.w.test", "WILD"),
        // A name like any other, which nobody has.
        ("httpsDefault", "DEFAULT"),
    ] {
        let hello = Hello::named(name).record();
        let answer = exchange(proxy.https(), &hello, Cut::Whole);
        assert_eq!(answer.echoed(), Some((who, &hello[..])), "{name}");
    }
    for name in ["*.w.test", "a.test:backends", "hostnames:a.test:backends"] {
        let answer = exchange(proxy.https(), &Hello::named(name).record(), Cut::Whole);
        assert_eq!(answer.alert(), Some(DECODE_ERROR), "{name}");
    }
    // HTTP has no default here, so the name of the other's default must lead nowhere.
    for host in ["httpsDefault", "httpDefault", "httpsdefault"] {
        let answer = exchange(proxy.http(), &request(host), Cut::Whole);
        assert_eq!(answer.status(), Some(421), "{host}");
    }
    assert_eq!(default.accepted(), 1);
}
