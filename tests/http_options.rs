//! What an operator says about a host besides its backends: redirects to https, 404, and a place of
//! their own for certificate authorities; in Redis and in static routes.

mod support;

use std::time::Duration;

use support::http::{Wire, reflecting};
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::wait_until;

fn status(proxy: &Proxy, host: &str, path: &str) -> (u16, String) {
    let answer = Wire::connect(proxy.http()).get(host, path);
    let said = answer.field("location").unwrap_or(answer.text());
    (answer.status(), said.to_owned())
}

fn check(proxy: &Proxy) {
    let challenge = "/.well-known/acme-challenge/x";
    let mut wire = Wire::connect(proxy.http());
    // A redirect keeps the connection, other hosts on it are served.
    for _ in 0..2 {
        let answer = wire.get("Site.test:80", "/a?b=c%20d\u{e9}");
        assert_eq!(answer.status(), 308);
        assert_eq!(
            answer.field("location"),
            Some("https://site.test/a?b=c%20d%C3%A9")
        );
        assert!(
            wire.get("site.test", challenge)
                .text()
                .starts_with("ACME\nGET /.well-known/")
        );
        assert!(wire.get("plain.test", "/").text().starts_with("PLAIN\n"));
    }
    let answer = wire.get("only.test", "/x");
    assert_eq!(answer.field("location"), Some("https://only.test/x"));
    wire.send("POST http://only.test HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    let answer = wire.response();
    assert_eq!(answer.field("location"), Some("https://only.test/"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(wire.rest(), b"");
    let mut wire = Wire::connect(proxy.http());
    let answer = wire.get("x.gone.test", "/");
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.field("pointsman-outcome"), Some("unknown_by_option"));
}

#[test]
fn options_in_static_routes() {
    let [acme, plain] = ["ACME", "PLAIN"].map(reflecting);
    let acme = format!("@acme={}", acme.member());
    let proxy = Options::new()
        .route("site.test", &["127.0.0.1:1", "@redirect=https", &acme])
        .route("only.test", &["@redirect=https"])
        .route("*.gone.test", &["@unknown=404"])
        .route("plain.test", &[&plain.member()])
        .start();
    check(&proxy);
    let (_, said) = Options::new()
        .route("a.test", &["@redirect=http"])
        .start_and_fail();
    assert!(said.contains("redirect=https"), "{said}");
}

#[test]
fn options_in_redis_are_followed_live() {
    let [acme, plain] = ["ACME", "PLAIN"].map(reflecting);
    let redis = RedisServer::start();
    redis.run(&[
        "SADD hostnames:site.test:backends 127.0.0.1:1",
        &format!(
            "HSET hostnames:site.test:options redirect https acme {}",
            acme.member()
        ),
        "HSET hostnames:only.test:options redirect https",
        "HSET hostnames:*.gone.test:options unknown 404",
        &format!("SADD hostnames:plain.test:backends {}", plain.member()),
    ]);
    let proxy = Options::new().args(&["--redis", &redis.url()]).start();
    check(&proxy);
    redis.run(&[
        "DEL hostnames:only.test:options",
        "HSET hostnames:plain.test:options redirect https",
    ]);
    wait_until("the changes", Duration::from_secs(5), || {
        status(&proxy, "only.test", "/").0 == 421 && status(&proxy, "plain.test", "/").0 == 308
    });
    redis.run(&["HDEL hostnames:plain.test:options redirect"]);
    wait_until("the option is gone", Duration::from_secs(5), || {
        status(&proxy, "plain.test", "/").0 == 200
    });
    redis.run(&["HSET hostnames:plain.test:options colour blue"]);
    proxy.wait_for_line("no option of a host", Duration::from_secs(5));
    assert_eq!(status(&proxy, "plain.test", "/").0, 200);
}
