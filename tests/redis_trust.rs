//! When the data of Redis are not used at once: most hosts are gone, a replica has lost its primary, a
//! Cluster node has a part of the keys. And the snapshot that is kept for that.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pointsman::internals::config::SyncSettings;
use pointsman::internals::sync::RedisState;
use support::port::free_port;
use support::redis::RedisServer;
use support::sync_rig::{LATER, Rig, SOON, logged, seed, settings, try_redis};

fn with_snapshot(url: String, path: &Path) -> SyncSettings {
    SyncSettings {
        snapshot: Some(path.to_owned()),
        ..settings(url)
    }
}

fn hosts(rig: &Rig) -> usize {
    rig.handle.status().hosts
}

/// Asserts that the age of the table grows, because nothing confirms the table.
fn assert_ages(rig: &Rig) {
    let age = || rig.handle.status().table_age.expect("an age");
    let (started, before) = (Instant::now(), age());
    // Growth shows only over a while.
    std::thread::sleep(Duration::from_millis(500));
    assert!(age() >= before + started.elapsed() - Duration::from_millis(50));
}

#[test]
fn removals_one_by_one_are_held_back_like_one_at_once() {
    std::thread::scope(|scope| {
        for way in ["DEL", "SREM", "PEXPIRE", "RENAME"] {
            scope.spawn(move || one_by_one(way));
        }
    });
}

fn one_by_one(way: &str) {
    let server = RedisServer::start();
    seed(&server, 0..20);
    let rig = Rig::start(settings(server.url()));
    for n in 0..12 {
        let key = format!("hostnames:h{n}.test:backends");
        server.run(&[&match way {
            "SREM" => format!("SREM {key} 10.0.0.{n}:80"),
            "PEXPIRE" => format!("PEXPIRE {key} 100"),
            "RENAME" => format!("RENAME {key} elsewhere{n}"),
            _ => format!("DEL {key}"),
        }]);
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.wait(SOON, way, |rig| rig.handle.status().holding);
    // The hosts that were removed first are restored, too.
    rig.wait(SOON, way, |rig| hosts(rig) == 20);
    assert_eq!(rig.members("h0.test"), "10.0.0.0:80", "{way}");
    assert_ages(&rig);
    // New hosts are added during the hold.
    server.run(&["SADD hostnames:new.test:backends 10.0.0.99"]);
    rig.expect(SOON, "new.test", "10.0.0.99");
    rig.wait(LATER, "the end of the hold", |rig| {
        !rig.handle.status().holding
    });
    rig.wait(SOON, way, |rig| hosts(rig) == 9);
    let young = |rig: &Rig| {
        rig.handle
            .status()
            .table_age
            .is_some_and(|age| age < SOON / 2)
    };
    rig.wait(SOON, "a young table", young);
    // Removals that were carried out do not count again.
    server.run(&["DEL hostnames:h15.test:backends"]);
    rig.expect(SOON, "h15.test", "");
    rig.handle.stop();
}

#[test]
fn hosts_that_come_back_during_the_hold_are_served_throughout() {
    let server = RedisServer::start();
    seed(&server, 0..20);
    let rig = Rig::start(settings(server.url()));
    let deletions: Vec<String> = (0..20)
        .map(|n| format!("DEL hostnames:h{n}.test:backends"))
        .collect();
    for deletion in &deletions {
        server.run(&[deletion]);
    }
    rig.wait(SOON, "the hold", |rig| rig.handle.status().holding);
    seed(&server, 0..20);
    rig.wait(LATER, "the end of the hold", |rig| {
        !rig.handle.status().holding
    });
    assert_eq!(hosts(&rig), 20);
    rig.handle.stop();
}

#[test]
fn a_start_with_a_snapshot_does_not_use_an_empty_redis_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    let server = RedisServer::start();
    seed(&server, 0..20);
    let start = || Rig::start(with_snapshot(server.url(), &path));
    start().handle.stop();
    // A few missing hosts are removed at once, with and without the snapshot.
    server.run(&["DEL hostnames:h0.test:backends hostnames:h1.test:backends"]);
    let rig = start();
    assert_eq!((hosts(&rig), rig.handle.status().holding), (18, false));
    rig.handle.stop();

    server.run(&["FLUSHALL", "SADD hostnames:new.test:backends 10.0.0.99"]);
    let rig = start();
    assert!(rig.handle.status().holding);
    assert_eq!(
        (hosts(&rig), rig.members("h5.test").as_str()),
        (19, "10.0.0.5:80")
    );
    assert_eq!(rig.members("new.test"), "10.0.0.99");
    assert_ages(&rig);
    // A restart during the hold holds the removal back again.
    rig.handle.stop();
    let rig = start();
    assert_eq!((hosts(&rig), rig.handle.status().holding), (19, true));
    rig.wait(LATER, "the end of the hold", |rig| hosts(rig) == 1);
    rig.handle.stop();
    let rig = start();
    assert_eq!((hosts(&rig), rig.handle.status().holding), (1, false));
    rig.handle.stop();
}

#[test]
fn data_of_a_replica_without_link_to_its_primary_are_not_used() {
    // By default the first replica waits 5 s for further ones.
    let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    seed(&primary, 0..20);
    let of_primary = format!("127.0.0.1 {}", primary.port());
    let mut replica = RedisServer::start_with(&["--replicaof", &of_primary]);
    for (user, rights) in [("role", "+role"), ("info", "+info"), ("deaf", "")] {
        let rights = format!("ACL SETUSER {user} on >pw ~* +@read +@connection {rights}");
        replica.run(&[rights.trim_end()]);
    }
    let url = |user: &str| format!("redis://{user}:pw@127.0.0.1:{}", replica.port());
    let quick = |url: String| SyncSettings {
        hold: Duration::ZERO,
        ..settings(url)
    };
    let rigs = ["role", "info"].map(|user| Rig::start_unready(quick(url(user))));
    let plain = Rig::start_unready(quick(replica.url()));
    let deaf = Rig::start_unready(quick(url("deaf")));
    for rig in rigs.iter().chain([&plain, &deaf]) {
        rig.wait(LATER, "20 hosts", |rig| hosts(rig) == 20);
        rig.expect_state(LATER, RedisState::Live);
    }
    assert!(logged().contains("grant +role"));

    // The link to the primary breaks; the replica still has all data, which grow old.
    replica.run(&[&format!("REPLICAOF 127.0.0.1 {}", free_port())]);
    for rig in rigs.iter().chain([&plain]) {
        rig.expect_state(SOON, RedisState::Lost);
        assert_ages(rig);
    }
    assert_eq!(
        deaf.handle.status().redis,
        RedisState::Live,
        "a user that may not ask for the role uses the data"
    );
    deaf.handle.stop();
    for rig in rigs {
        rig.handle.stop();
    }
    // It restarts without data and without a link to its primary.
    replica.kill();
    replica.restart_with(&["--replicaof", &format!("127.0.0.1 {}", free_port())]);
    let cold = Rig::start_unready(quick(replica.url()));
    assert!(!cold.handle.wait_first_table(SOON));
    assert_eq!(
        (hosts(&plain), plain.members("h5.test").as_str()),
        (20, "10.0.0.5:80")
    );
    let error = try_redis(replica.url()).unwrap_err();
    assert!(
        error.contains("replica") && error.contains("check that its primary"),
        "{error}"
    );
    replica.run(&[&format!("REPLICAOF {of_primary}")]);
    primary.run(&["SADD hostnames:h5.test:backends 10.7.7.7"]);
    for rig in [plain, cold] {
        rig.expect(2 * LATER, "h5.test", "10.0.0.5:80 10.7.7.7");
        assert_eq!(hosts(&rig), 20);
        rig.handle.stop();
    }
}

#[test]
fn a_node_of_a_cluster_is_named_as_such() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    server.run(&["ACL SETUSER info on >pw ~* +@read +client|tracking +ping +info"]);
    let old = format!("redis://info:pw@127.0.0.1:{}", server.port());
    let rigs = [server.url(), old].map(|url| Rig::start(settings(url)));
    let said = |log: &str| log.matches("node of a Redis Cluster").count();
    assert_eq!(said(&logged()), 2, "once each: {}", logged());
    // No slot is assigned to any node.
    let error = try_redis(server.url()).unwrap_err();
    assert!(
        error.contains("CLUSTERDOWN") || error.contains("Hash slot"),
        "{error}"
    );
    assert_eq!(said(&error), 1, "{error}");
    assert!(!error.contains("check that Redis runs"), "{error}");
    // A node with all slots is used like any other Redis.
    server.run(&["CLUSTER ADDSLOTSRANGE 0 16383"]);
    support::wait_until("the node has its slots", LATER, || {
        server.run(&["SADD hostnames:a.test:backends 10.0.0.1"])[0] == "1"
    });
    for rig in rigs {
        rig.expect(LATER, "a.test", "10.0.0.1");
        rig.handle.stop();
    }
    let said = try_redis(server.url()).unwrap();
    assert!(said.contains("node of a Redis Cluster"), "{said}");
}

#[test]
fn a_snapshot_is_written_again_after_a_failure_and_a_strange_one_is_used_in_part() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later/table.json");
    let mut server = RedisServer::start();
    server.run(&[
        "SADD hostnames:a.test:backends 10.0.0.1",
        "HSET hostnames:a.test:options balance source",
        "SADD hostnames:b.test:backends 10.0.0.2",
    ]);
    let rig = Rig::start(with_snapshot(server.url(), &path));
    rig.wait(2 * SOON, "the failure", |rig| {
        rig.handle.status().snapshot_error.is_some()
    });
    assert_eq!(rig.handle.status().snapshot_age, None);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    rig.wait(LATER, "the snapshot", |rig| {
        let status = rig.handle.status();
        status.snapshot_error.is_none() && status.snapshot_age.is_some_and(|age| age < SOON)
    });
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    rig.handle.stop();
    server.kill();

    let text = std::fs::read_to_string(&path).unwrap();
    let strange = text
        .replace("@balance=source", "@later=1")
        .replace("\"10.0.0.2\"", "\"10.0.0.2\",\"10.0.0.3 later=1\"")
        .replace("\"a.test\"", "\"a b\":[\"10.0.0.4\"],\"a.test\"");
    assert_ne!(text, strange);
    std::fs::write(&path, strange).unwrap();
    let rig = Rig::start(with_snapshot(server.url(), &path));
    rig.expect(SOON, "a.test", "10.0.0.1");
    rig.expect(SOON, "b.test", "10.0.0.2");
    let log = logged();
    let line = log
        .lines()
        .find(|line| line.contains("entries of the snapshot are skipped"));
    let line = line.expect("a line about what is skipped");
    for part in ["a.test: ", "later=1", "b.test: ", "a b"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(log.contains("starting with the snapshot") && log.contains("snapshot_age_s="));
    rig.handle.stop();
}
