//! The redis-sync thread with a real redis-server: the table soon has what Redis has, in whatever way
//! Redis goes away and comes back.

mod support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pointsman::internals::config::SyncSettings;
use pointsman::internals::host::Host;
use pointsman::internals::protocol::Protocol;
use pointsman::internals::sync::{self, ChangeDetection, RedisState};
use support::dns::Dns;
use support::port::free_port;
use support::redis::RedisServer;
use support::sync_rig::{LATER, Rig, SOON, logged, seed, settings, static_routes, try_redis};

#[test]
fn the_table_follows_every_kind_of_change() {
    let server = RedisServer::start();
    server.run(&[
        "SADD hostnames:a.test:backends 10.0.0.1 10.0.0.2:8443",
        "SADD hostnames:*.b.test:backends [::1]:443",
        "SADD hostnames:httpsDefault:backends 10.0.0.9",
        "SADD hostnames:a.test:visits 1",
    ]);
    let rig = Rig::start(settings(server.url()));
    assert_eq!(rig.members("A.Test."), "10.0.0.1 10.0.0.2:8443");
    assert_eq!(rig.members("x.y.b.test"), "[::1]:443");
    assert_eq!(rig.members("b.test"), "");
    assert_eq!(rig.members("default:https"), "10.0.0.9");
    assert_eq!(rig.members("default:http"), "");
    let status = rig.handle.status();
    assert_eq!(
        (status.redis, status.mode, status.hosts),
        (RedisState::Live, Some(ChangeDetection::Tracking), 2)
    );

    server.run(&["SADD hostnames:a.test:backends unix:/run/a.sock"]);
    rig.expect(SOON, "a.test", "10.0.0.1 10.0.0.2:8443 unix:/run/a.sock");
    server.run(&["SREM hostnames:a.test:backends 10.0.0.1 unix:/run/a.sock"]);
    rig.expect(SOON, "a.test", "10.0.0.2:8443");
    server.run(&["RENAME hostnames:a.test:backends hostnames:c.test:backends"]);
    rig.expect(SOON, "a.test", "");
    rig.expect(SOON, "c.test", "10.0.0.2:8443");
    server.run(&[
        "MULTI",
        "DEL hostnames:c.test:backends",
        "SADD hostnames:httpDefault:backends 10.0.0.8:81",
        "EXEC",
    ]);
    rig.expect(SOON, "c.test", "");
    rig.expect(SOON, "default:http", "10.0.0.8:81");
    server.run(&["SREM hostnames:httpsDefault:backends 10.0.0.9"]);
    rig.expect(SOON, "default:https", "");

    server.run(&[
        "SADD hostnames:t.test:backends 10.0.0.1",
        "PEXPIRE hostnames:t.test:backends 400",
    ]);
    let set = Instant::now();
    rig.expect(SOON, "t.test", "10.0.0.1");
    rig.expect(SOON, "t.test", "");
    let lasted = set.elapsed();
    assert!(
        (380..=600).contains(&lasted.as_millis()),
        "expired after {lasted:?}"
    );
    server.run(&[
        "SADD hostnames:t.test:backends 10.0.0.1",
        "PEXPIRE hostnames:t.test:backends 300",
        "PERSIST hostnames:t.test:backends",
    ]);
    rig.expect(SOON, "t.test", "10.0.0.1");
    // Longer than the TTL that was removed.
    support::assert_stays("it is there", Duration::from_millis(400), || {
        rig.members("t.test") == "10.0.0.1"
    });

    // The host has two keys; their members add up.
    server.run(&["SADD hostnames:T.Test:backends 10.0.0.2"]);
    rig.expect(SOON, "t.test", "10.0.0.1 10.0.0.2");
    server.run(&["SREM hostnames:t.test:backends 10.0.0.1"]);
    rig.expect(SOON, "t.test", "10.0.0.2");
    rig.handle.stop();
}

#[test]
fn the_last_of_two_quick_updates_wins() {
    let server = RedisServer::start();
    let rig = Rig::start(settings(server.url()));
    let key = "hostnames:a.test:backends";
    for n in 0..1000 {
        let last = format!("10.1.{}.{}", n / 250, n % 250);
        server.run(&[
            &format!("DEL {key}"),
            &format!("SADD {key} 10.9.9.9"),
            &format!("DEL {key}"),
            &format!("SADD {key} {last}"),
        ]);
        if n % 50 == 49 {
            rig.expect(SOON, "a.test", &last);
        }
    }
    rig.handle.stop();
}

/// Changes come while answers wait to be filed: an older answer must not replace a newer one.
#[test]
fn what_changes_while_the_table_is_read_is_not_undone() {
    const HOSTS: usize = 20_000;
    let server = RedisServer::start();
    seed(&server, 0..HOSTS);
    let rig = Rig::start_unready(settings(server.url()));
    let mut changed = HashMap::new();
    while rig.handle.status().redis != RedisState::Live {
        let batch: Vec<usize> = (0..5).map(|_| fastrand::usize(..HOSTS)).collect();
        let mut commands = Vec::new();
        for n in &batch {
            let member = format!("10.1.{}.{}:80", changed.len() % 250, n % 250);
            commands.push(format!("DEL hostnames:h{n}.test:backends"));
            commands.push(format!("SADD hostnames:h{n}.test:backends {member}"));
            changed.insert(*n, member);
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        server.run(&commands);
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(
        changed.len() > 500,
        "only {} while it was read",
        changed.len()
    );
    for (n, member) in &changed {
        rig.expect(SOON, &format!("h{n}.test"), member);
    }
    rig.wait(SOON, "every host", |rig| rig.handle.status().hosts == HOSTS);
}

#[test]
fn killed_and_restarted_with_other_data() {
    let mut server = RedisServer::start();
    seed(&server, 0..8);
    let rig = Rig::start(settings(format!("unix://{}", server.socket().display())));
    server.kill();
    rig.expect_state(LATER, RedisState::Lost);
    assert_eq!(rig.members("h3.test"), "10.0.0.3:80");
    server.restart();
    server.run(&[
        "SADD hostnames:h3.test:backends 10.7.7.7",
        "SADD hostnames:new.test:backends 10.7.7.8",
    ]);
    rig.expect(LATER, "h3.test", "10.7.7.7");
    rig.expect(LATER, "new.test", "10.7.7.8");
    rig.expect(LATER, "h4.test", "");
    rig.handle.stop();
}

#[test]
fn frozen_redis_is_noticed_and_comes_back() {
    let server = RedisServer::start();
    seed(&server, 0..3);
    let rig = Rig::start(settings(server.url()));
    rig.expect_state(SOON, RedisState::Live);
    server.freeze();
    rig.expect_state(SOON, RedisState::Lost);
    assert_eq!(rig.members("h1.test"), "10.0.0.1:80");
    let age = rig.handle.status().table_age.unwrap();
    assert!(age >= Duration::from_millis(300), "{age:?}");
    server.thaw();
    server.run(&["SADD hostnames:h1.test:backends 10.7.7.7"]);
    rig.expect(LATER, "h1.test", "10.0.0.1:80 10.7.7.7");
    rig.wait(SOON, "a young table", |rig| {
        let age = rig.handle.status().table_age;
        age.is_some_and(|age| age < Duration::from_millis(300))
    });
    rig.handle.stop();
}

#[test]
fn a_replica_without_its_primary_keeps_the_table() {
    let server = RedisServer::start();
    seed(&server, 0..3);
    let rig = Rig::start(SyncSettings {
        full_comparison: Duration::from_millis(300),
        ..settings(server.url())
    });
    let nobody = format!("REPLICAOF 127.0.0.1 {}", free_port());
    server.run(&["CONFIG SET replica-serve-stale-data no", &nobody]);
    rig.expect_state(LATER, RedisState::Lost);
    assert_eq!(rig.members("h1.test"), "10.0.0.1:80");
    server.run(&[
        "REPLICAOF NO ONE",
        "SADD hostnames:h1.test:backends 10.7.7.7",
    ]);
    rig.expect(LATER, "h1.test", "10.0.0.1:80 10.7.7.7");
    rig.handle.stop();
}

#[test]
fn killed_connections_are_opened_again() {
    let server = RedisServer::start();
    let rig = Rig::start(settings(server.url()));
    for n in 0..3 {
        server.run(&[
            "CLIENT KILL TYPE normal SKIPME yes",
            &format!("SADD hostnames:a.test:backends 10.0.0.{n}"),
        ]);
        let expected: Vec<String> = (0..=n).map(|n| format!("10.0.0.{n}")).collect();
        rig.expect(LATER, "a.test", &expected.join(" "));
    }
    rig.handle.stop();
}

#[test]
fn flushall_is_held_back_and_then_carried_out() {
    let server = RedisServer::start();
    seed(&server, 0..20);
    let rig = Rig::start(settings(server.url()));
    server.run(&["FLUSHALL"]);
    rig.wait(SOON, "the hold", |rig| rig.handle.status().holding);
    assert_eq!(rig.members("h5.test"), "10.0.0.5:80");
    // The data come back within the hold: no client noticed.
    seed(&server, 0..20);
    rig.wait(Duration::from_secs(3), "the end of the hold", |rig| {
        !rig.handle.status().holding
    });
    assert_eq!(rig.members("h5.test"), "10.0.0.5:80");
    // Single deletions are carried out at once.
    server.run(&["DEL hostnames:h6.test:backends"]);
    rig.expect(SOON, "h6.test", "");
    server.run(&["FLUSHALL"]);
    rig.wait(SOON, "the hold", |rig| rig.handle.status().holding);
    rig.expect(Duration::from_secs(3), "h5.test", "");
    rig.wait(SOON, "no hosts", |rig| rig.handle.status().hosts == 0);
    rig.handle.stop();
}

#[test]
fn without_a_hold_all_hosts_are_removed_at_once() {
    let server = RedisServer::start();
    seed(&server, 0..20);
    let rig = Rig::start(SyncSettings {
        hold: Duration::ZERO,
        ..settings(server.url())
    });
    server.run(&["FLUSHALL"]);
    rig.expect(SOON, "h5.test", "");
    rig.handle.stop();
}

#[test]
fn a_wrong_password_is_not_fatal() {
    let mut server = RedisServer::start_with(&["--requirepass", "another"]);
    let url = format!("redis://:secret@127.0.0.1:{}", server.port());
    let rig = Rig::start_unready(settings(&url));
    assert!(!rig.handle.wait_first_table(Duration::from_millis(700)));
    assert_eq!(rig.handle.status().redis, RedisState::Lost);
    let error = try_redis(&url).unwrap_err();
    assert!(
        error.contains("check user and password") && !error.contains("secret"),
        "{error}"
    );
    let log = logged();
    assert!(log.contains("check user and password"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    server.kill();
    server.restart_with(&["--requirepass", "secret"]);
    server.run(&["AUTH secret", "SADD hostnames:a.test:backends 10.0.0.1"]);
    rig.expect(LATER, "a.test", "10.0.0.1");
    let said = try_redis(url).unwrap();
    assert!(said.contains("tracking"), "{said}");
    rig.handle.stop();
}

/// Each user has the rights for one kind of change detection.
#[test]
fn without_tracking_the_next_best_change_detection_is_used() {
    let server = RedisServer::start();
    let rights = |name: &str, more: &str| {
        let rule = format!(
            "ACL SETUSER {name} on >secret ~hostnames:* &* +scan +smembers +pttl +ping +hello \
             +psubscribe {more}"
        );
        assert_eq!(server.run(&[rule.trim_end()]), ["OK"]);
        let url = format!("redis://{name}:secret@127.0.0.1:{}", server.port());
        SyncSettings {
            full_comparison: Duration::from_millis(300),
            ..settings(url)
        }
    };
    server.run(&["CONFIG SET notify-keyspace-events KA"]);
    let far = Duration::from_secs(600);
    let keyspace = Rig::start(SyncSettings {
        full_comparison: far,
        ..rights("keyspace", "")
    });
    // Without HELLO there is no RESP3.
    let old = Rig::start(SyncSettings {
        full_comparison: far,
        ..rights("old", "-hello")
    });
    server.run(&["CONFIG SET notify-keyspace-events "]);
    let poll = Rig::start(rights("poll", "+config"));
    let deaf = Rig::start(rights("deaf", "-psubscribe"));
    let modes = [&keyspace, &old, &poll, &deaf].map(|rig| rig.handle.status().mode.unwrap());
    // Without the right to CONFIG GET, events count only after one has arrived.
    assert_eq!(modes, [ChangeDetection::Polling; 4]);
    server.run(&["CONFIG SET notify-keyspace-events KA"]);
    for rig in [&keyspace, &old, &poll, &deaf] {
        server.run(&["SADD hostnames:a.test:backends 10.0.0.1"]);
        rig.expect(SOON, "a.test", "10.0.0.1");
        server.run(&["DEL hostnames:a.test:backends"]);
        rig.expect(SOON, "a.test", "");
    }
    let modes = [&keyspace, &old, &poll, &deaf].map(|rig| rig.handle.status().mode.unwrap());
    let proved = [
        ChangeDetection::KeyspaceEvents,
        ChangeDetection::KeyspaceEvents,
        ChangeDetection::Polling,
        ChangeDetection::Polling,
    ];
    assert_eq!(modes, proved);

    // When one of the two connections is lost, the other is closed and everything is read again.
    server.run(&[
        "CLIENT KILL TYPE pubsub",
        "SADD hostnames:b.test:backends 10.0.0.1",
    ]);
    keyspace.expect(LATER, "b.test", "10.0.0.1");
    server.run(&[
        "CLIENT KILL TYPE normal SKIPME yes",
        "SADD hostnames:b.test:backends 10.0.0.2",
    ]);
    keyspace.expect(LATER, "b.test", "10.0.0.1 10.0.0.2");

    // When the user is revoked the table stays; when it is restored, changes are seen again.
    server.run(&["ACL SETUSER keyspace off", "CLIENT KILL USER keyspace"]);
    keyspace.expect_state(LATER, RedisState::Lost);
    assert_eq!(keyspace.members("b.test"), "10.0.0.1 10.0.0.2");
    server.run(&[
        "ACL SETUSER keyspace on +client",
        "SADD hostnames:b.test:backends 10.0.0.3",
    ]);
    keyspace.expect(LATER, "b.test", "10.0.0.1 10.0.0.2 10.0.0.3");
    assert_eq!(
        keyspace.handle.status().mode,
        Some(ChangeDetection::Tracking)
    );
    for rig in [keyspace, old, poll, deaf] {
        rig.handle.stop();
    }
}

#[test]
fn bad_keys_are_counted_and_harm_no_other_route() {
    let server = RedisServer::start();
    let huge = "a".repeat(1 << 20);
    server.run(&[
        "SADD hostnames:good.test:backends 10.0.0.1",
        "SADD hostnames:mixed.test:backends 10.0.0.1 10.0.0.2:0 10.0.0.3:70000 {\"json\":1}",
        "SADD hostnames:bad.test:backends 10.0.0.1:x",
        "SADD hostnames:httpsDefault:backends 10.0.0.9",
        "SET hostnames:string.test:backends 10.0.0.1",
        "SADD hostnames:a.test:8080:backends 10.0.0.1",
        "SADD hostnames:*:backends 10.0.0.1",
        "SADD hostnames::backends 10.0.0.1",
    ]);
    server.run_words(&[
        b"SADD",
        b"hostnames:huge.test:backends",
        huge.as_bytes(),
        b"10.0.0.1",
    ]);
    server.run_words(&[
        b"SADD",
        b"hostnames:nul.test:backends",
        b"10.0.0.1\0",
        b"\xff\xfe",
        b"10.0.0.2",
    ]);
    server.run_words(&[b"SADD", b"hostnames:\xff\0.test:backends", b"10.0.0.1"]);
    server.run_words(&[
        b"SADD",
        b"hostnames:options.test:backends",
        b"10.0.0.1 proxy=v2 source=client",
        b"10.0.0.2 proxy=v9",
    ]);
    let rig = Rig::start(settings(server.url()));
    for (name, members) in [
        ("good.test", "10.0.0.1"),
        ("mixed.test", "10.0.0.1"),
        ("huge.test", "10.0.0.1"),
        ("nul.test", "10.0.0.2"),
        ("options.test", "10.0.0.1 proxy=v2 source=client"),
    ] {
        assert_eq!(rig.members(name), members, "{name}");
    }
    // Hosts without a usable member are refused; they do not fall to a default.
    for name in ["bad.test", "string.test"] {
        let view = rig.view.lock().unwrap();
        let route = view.lookup(&Host::from_operator(name).unwrap());
        assert!(route.unwrap().backends().is_empty(), "{name}");
    }
    let status = rig.handle.status();
    assert_eq!(
        (status.rejected_keys, status.rejected_members),
        (6, 8),
        "{status:?}"
    );
    server.run(&[
        "DEL hostnames:string.test:backends",
        "SADD hostnames:bad.test:backends 10.0.0.5",
    ]);
    rig.expect(SOON, "bad.test", "10.0.0.5");
    rig.wait(SOON, "fewer rejected", |rig| {
        rig.handle.status().rejected_keys == 4
    });
    rig.handle.stop();
}

#[test]
fn a_snapshot_serves_until_redis_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    let with_snapshot = |url: String| SyncSettings {
        snapshot: Some(path.clone()),
        ..settings(url)
    };
    let mut server = RedisServer::start();
    server.run(&[
        "SADD hostnames:a.test:backends 10.0.0.1:443",
        "SADD hostnames:httpsDefault:backends 10.0.0.9",
    ]);
    let rig = Rig::start(with_snapshot(server.url()));
    server.run(&["SADD hostnames:*.b.test:backends 10.0.0.2"]);
    rig.expect(SOON, "x.b.test", "10.0.0.2");
    rig.handle.stop();
    server.kill();

    let started = Instant::now();
    let rig = Rig::start(with_snapshot(server.url()));
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!(rig.members("a.test"), "10.0.0.1:443");
    assert_eq!(rig.members("x.b.test"), "10.0.0.2");
    assert_eq!(rig.members("default:https"), "10.0.0.9");
    let status = rig.handle.status();
    assert!(
        status.table_age.is_some() && status.snapshot_age.is_some(),
        "{status:?}"
    );
    server.restart();
    server.run(&["SADD hostnames:a.test:backends 10.7.7.7"]);
    rig.expect(LATER, "a.test", "10.7.7.7");
    rig.expect(LATER, "x.b.test", "");
    rig.handle.stop();
    server.kill();

    std::fs::write(&path, "{\"format\":").unwrap();
    let rig = Rig::start_unready(with_snapshot(server.url()));
    assert!(!rig.handle.wait_first_table(Duration::from_millis(2500)));
    rig.handle.stop();
}

#[test]
fn static_routes_are_the_fallback_and_their_file_is_watched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.toml");
    let write = |routes: &str| std::fs::write(&path, format!("[routes]\n{routes}\n")).unwrap();
    write("\"file.test\" = \"10.0.1.1\"\n\"both.test\" = \"10.0.1.2\"");
    let server = RedisServer::start();
    server.run(&["SADD hostnames:both.test:backends 10.0.0.2"]);
    let of_options = static_routes(["opt.test=10.0.2.1,10.0.2.2", "default:http=10.0.2.9"]);
    let rig = Rig::start(SyncSettings {
        static_routes: of_options.static_routes,
        routes_file: Some(path.clone()),
        ..settings(server.url())
    });
    assert_eq!(rig.members("file.test"), "10.0.1.1");
    assert_eq!(rig.members("opt.test"), "10.0.2.1 10.0.2.2");
    assert_eq!(rig.members("default:http"), "10.0.2.9");
    assert_eq!(rig.members("both.test"), "10.0.0.2");
    server.run(&["DEL hostnames:both.test:backends"]);
    rig.expect(SOON, "both.test", "10.0.1.2");
    write("\"file.test\" = \"10.0.1.7\"");
    rig.expect(2 * SOON, "file.test", "10.0.1.7");
    rig.expect(SOON, "both.test", "");
    write("\"file.test\" = \"10.0.1.8:0\"");
    rig.handle.reload();
    support::wait_until("the mistake is found", SOON, || {
        rig.handle.status().routes_file_error.is_some()
    });
    assert_eq!(
        rig.members("file.test"),
        "10.0.1.7",
        "a bad file is rejected whole"
    );
    let error = rig.handle.status().routes_file_error.expect("an error");
    assert!(
        error.contains("routes.toml:2") && error.contains("10.0.1.8:0"),
        "{error}"
    );
    write("\"file.test\" = \"10.0.1.9\"");
    rig.handle.reload();
    rig.expect(SOON, "file.test", "10.0.1.9");
    assert_eq!(rig.handle.status().routes_file_error, None);
    rig.handle.stop();
}

#[test]
fn without_redis_static_routes_are_enough() {
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let only_static = static_routes(["a.test=10.0.0.1"]);
    let started = Instant::now();
    let alone = Rig::start(only_static.clone());
    assert!(started.elapsed() < SOON);
    assert_eq!(alone.handle.status().redis, RedisState::Unused);
    let waiting = Rig::start(SyncSettings {
        static_routes: only_static.static_routes,
        ..settings(nobody)
    });
    assert!(started.elapsed() >= Duration::from_secs(2));
    for rig in [alone, waiting] {
        assert_eq!(rig.members("a.test"), "10.0.0.1");
        rig.handle.stop();
    }
    let bad = static_routes(["a.test=10.0.0.1 weight=1", "a.test=10.0.0.1 weight=2"]);
    let error = sync::start(bad, Box::new(|_| {}))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("a.test") && error.contains("same backend"),
        "{error}"
    );
}

#[test]
fn names_are_resolved_before_the_first_table_and_again_after_their_ttl() {
    let dns = Dns::start("10.3.3.3");
    let address = |rig: &Rig, name: &str| {
        let view = rig.view.lock().unwrap();
        let route = view.lookup(&Host::from_operator(name).unwrap()).cloned();
        let address = route.unwrap().backends()[0].address(Protocol::Http, 0);
        format!("{address:?}")
    };
    let rig = Rig::start(SyncSettings {
        dns_servers: vec![dns.address],
        dns_ttl_min: Duration::from_millis(300),
        ..static_routes(["l.test=localhost:8080", "n.test=app.internal"])
    });
    assert_eq!(address(&rig, "l.test"), "Some(Inet(127.0.0.1:8080))");
    assert_eq!(address(&rig, "n.test"), "Some(Inet(10.3.3.3:80))");
    *dns.answer.lock().unwrap() = Some("10.4.4.4".parse().unwrap());
    rig.wait(3 * SOON, "the new address", |rig| {
        address(rig, "n.test").contains("10.4.4.4")
    });
    *dns.answer.lock().unwrap() = None;
    rig.wait(5 * SOON, "the failure", |rig| {
        rig.handle.status().names_failing == 1
    });
    assert!(
        address(&rig, "n.test").contains("10.4.4.4"),
        "the last good answer stays"
    );
    *dns.answer.lock().unwrap() = Some("10.5.5.5".parse().unwrap());
    rig.wait(5 * SOON, "the recovery", |rig| {
        address(rig, "n.test").contains("10.5.5.5")
    });
    rig.handle.stop();
}

#[test]
fn names_that_nobody_answers_for_do_not_hold_up_the_others() {
    const DEAD: usize = 60;
    let dns = Dns::start("10.3.3.3");
    let names = ["dead", "alive"]
        .map(|kind| (0..DEAD).map(move |n| format!("{kind}{n}.test={kind}{n}.internal")));
    let rig = Rig::start(SyncSettings {
        dns_servers: vec![dns.address],
        dns_ttl_min: Duration::from_millis(300),
        ..static_routes(names.into_iter().flatten())
    });
    // A look-up that is never answered takes ten seconds.
    rig.wait(LATER, "the addresses of all that are alive", |rig| {
        rig.handle.status().names_unresolved == DEAD
    });
    let view = rig.view.lock().unwrap();
    for n in 0..DEAD {
        let host = Host::from_operator(&format!("alive{n}.test")).unwrap();
        let route = view.lookup(&host).unwrap();
        assert_eq!(route.backends()[0].address_count(), 1, "alive{n}");
    }
    drop(view);
    rig.handle.stop();
}

#[test]
fn redis_over_tls_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let tls_port = free_port().to_string();
    let ca = directory.path().join("ca.pem");
    let server = RedisServer::start_in(
        directory,
        free_port(),
        &[
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            "cert.pem",
            "--tls-key-file",
            "key.pem",
            "--tls-ca-cert-file",
            "ca.pem",
            "--tls-auth-clients",
            "no",
        ],
    );
    server.run(&["SADD hostnames:a.test:backends 10.0.0.1"]);
    let url = format!("rediss://localhost:{tls_port}");
    let with_ca = |ca_file: Option<PathBuf>| {
        let mut settings = settings(url.clone());
        settings.redis.as_mut().unwrap().ca_file = ca_file;
        settings
    };
    let rig = Rig::start(with_ca(Some(ca)));
    rig.expect(SOON, "a.test", "10.0.0.1");
    server.run(&["SADD hostnames:a.test:backends 10.0.0.2"]);
    rig.expect(SOON, "a.test", "10.0.0.1 10.0.0.2");
    // The system does not know this authority.
    let stranger = Rig::start_unready(with_ca(None));
    stranger.expect_state(SOON, RedisState::Lost);
    for rig in [rig, stranger] {
        rig.handle.stop();
    }
}

#[test]
fn a_database_number_and_a_prefix_of_its_own() {
    let server = RedisServer::start();
    server.run(&["SELECT 3", "SADD p[*]:a.test:backends 10.0.0.1"]);
    let mut settings = settings(format!("{}/3", server.url()));
    settings.redis.as_mut().unwrap().prefix = "p[*]:".to_owned();
    let rig = Rig::start(settings);
    assert_eq!(rig.members("a.test"), "10.0.0.1");
    server.run(&[
        "SADD p[*]:a.test:backends 10.0.0.9",
        "SELECT 3",
        "SADD p[*]:a.test:backends 10.0.0.2",
    ]);
    rig.expect(SOON, "a.test", "10.0.0.1 10.0.0.2");
    rig.handle.stop();
}

fn make_certificates(directory: &Path) {
    let mut extensions = String::new();
    writeln!(extensions, "subjectAltName=DNS:localhost").unwrap();
    writeln!(extensions, "basicConstraints=CA:FALSE").unwrap();
    std::fs::write(directory.join("extensions"), extensions).unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-ca",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out cert.pem \
         -extfile extensions",
    ] {
        let openssl = Command::new("openssl")
            .current_dir(directory)
            .args(arguments.split(' '))
            .output()
            .unwrap();
        assert!(
            openssl.status.success(),
            "{}",
            String::from_utf8_lossy(&openssl.stderr)
        );
    }
}
