//! Bad keys and entries in Redis, of every kind: each is named and counted and concerns its own key
//! alone, and the routes that were right before stay in use.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pointsman::internals::config::SyncSettings;
use pointsman::internals::route::Table;
use pointsman::internals::sync::RedisState;
use support::redis::RedisServer;
use support::sync_rig::{LATER, Rig, SOON, logged, members, settings};

/// One bad key: the commands that make it, what it adds to the counts, a part of its reason in the log.
struct Poison {
    commands: Vec<Vec<Vec<u8>>>,
    keys: usize,
    members: usize,
    reason: &'static str,
}

fn poison(commands: &[&[&[u8]]], (keys, members): (usize, usize), reason: &'static str) -> Poison {
    let words = |command: &&[&[u8]]| command.iter().map(|word| word.to_vec()).collect();
    Poison {
        commands: commands.iter().map(words).collect(),
        keys,
        members,
        reason,
    }
}

/// Every way in which the two keys of a host can hold something wrong, with one good member where that
/// is possible.
fn poisons() -> Vec<Poison> {
    const SET: &[u8] = b"hostnames:evil.test:backends";
    const HASH: &[u8] = b"hostnames:evil.test:options";
    let good: &[&[u8]] = &[b"SADD", SET, b"10.0.0.1"];
    let long = vec![b'x'; 100_000];
    let acme = b"a b c d ".repeat(20_000);
    vec![
        poison(&[good, &[b"SADD", SET, b"\xff\xfe"]], (0, 1), "member"),
        poison(&[good, &[b"SADD", SET, &long]], (0, 1), "longer than"),
        poison(&[good, &[b"SADD", SET, b"@no=1"]], (0, 1), "no option"),
        poison(
            &[good, &[b"HSET", HASH, b"balance", b"\xff\xfe"]],
            (0, 1),
            "is not UTF-8",
        ),
        poison(
            &[good, &[b"HSET", HASH, b"\xc3\x28", b"1"]],
            (0, 1),
            "is not UTF-8",
        ),
        poison(
            &[good, &[b"HSET", HASH, b"balance", &long]],
            (0, 1),
            "longer than",
        ),
        poison(
            &[good, &[b"HSET", HASH, b"acme", &acme]],
            (0, 1),
            "longer than",
        ),
        poison(
            &[good, &[b"HSET", HASH, b"\0", b"\r\n"]],
            (0, 1),
            "no option",
        ),
        poison(&[good, &[b"SET", HASH, b"x"]], (1, 0), "is not a hash"),
        poison(&[good, &[b"SADD", HASH, b"x"]], (1, 0), "is not a hash"),
        poison(&[&[b"SET", SET, b"x"]], (1, 0), "is not a set"),
        poison(&[&[b"HSET", SET, b"x", b"y"]], (1, 0), "is not a set"),
        poison(
            &[&[b"ZADD", SET, b"1", b"10.0.0.1"]],
            (1, 0),
            "is not a set",
        ),
        poison(&[&[b"RPUSH", SET, b"10.0.0.1"]], (1, 0), "is not a set"),
        poison(&[&[b"XADD", SET, b"*", b"a", b"b"]], (1, 0), "is not a set"),
    ]
}

#[test]
fn a_problem_of_one_key_is_named_and_the_others_stay_live() {
    let server = RedisServer::start();
    server.run(&["SADD hostnames:good.test:backends 10.0.0.1"]);
    let running = Rig::start(settings(server.url()));
    let usual = SyncSettings {
        ping_timeout: 2 * SOON,
        ..settings(server.url())
    };
    for (number, poison) in poisons().iter().enumerate() {
        for command in &poison.commands {
            let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            let reply = server.run_words(&words);
            assert!(!reply.starts_with('-'), "{number}: {reply}");
        }
        // A process that starts now gets ready, and one that runs already sees later changes.
        let cold = Rig::start(usual.clone());
        let later = format!("10.0.1.{number}");
        server.run(&[&format!("SADD hostnames:n{number}.test:backends {later}")]);
        for rig in [&running, &cold] {
            rig.expect(LATER, &format!("n{number}.test"), &later);
            let what = format!("the counts of {number}, {}", poison.reason);
            rig.wait(LATER, &what, |rig| {
                let status = rig.handle.status();
                status.redis == RedisState::Live
                    && status.rejected_keys == poison.keys
                    && status.rejected_members == poison.members
            });
            assert_eq!(rig.members("good.test"), "10.0.0.1");
            let is_usable = poison.reason != "is not a set";
            assert_eq!(
                rig.members("evil.test"),
                if is_usable { "10.0.0.1" } else { "" }
            );
        }
        cold.handle.stop();
        let log = logged();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("hostnames:evil.test:backends"));
        assert!(
            lines
                .next_back()
                .is_some_and(|line| line.contains(poison.reason)),
            "{number}: {log}"
        );
        server.run(&["DEL hostnames:evil.test:backends hostnames:evil.test:options"]);
        running.wait(SOON, "nothing rejected", |rig| {
            let status = rig.handle.status();
            status.rejected_keys + status.rejected_members == 0
        });
    }
    running.handle.stop();
}

#[test]
fn a_key_that_may_not_be_read_keeps_what_was_known_of_it() {
    let server = RedisServer::start();
    server.run(&[
        "ACL SETUSER u on >pw +@all ~*",
        "SADD hostnames:a.test:backends 10.0.0.1",
        "SADD hostnames:hidden.test:backends 10.0.0.2",
    ]);
    let url = format!("redis://u:pw@127.0.0.1:{}", server.port());
    let rig = Rig::start(settings(url));
    server.run(&[
        "ACL SETUSER u resetkeys ~hostnames:a.* ~hostnames:b.*",
        "SADD hostnames:hidden.test:backends 10.0.0.3",
        "SADD hostnames:b.test:backends 10.0.0.4",
    ]);
    rig.expect(SOON, "b.test", "10.0.0.4");
    rig.wait(SOON, "one key rejected", |rig| {
        rig.handle.status().rejected_keys == 1
    });
    // A comparison comes to its end in spite of it.
    server.run(&[
        "SELECT 3",
        "FLUSHDB",
        "SELECT 0",
        "SADD hostnames:a.test:backends 10.0.0.5",
    ]);
    rig.expect(SOON, "a.test", "10.0.0.1 10.0.0.5");
    assert_eq!(rig.members("hidden.test"), "10.0.0.2");
    assert_eq!(rig.handle.status().redis, RedisState::Live);
    // A user that may not give the command at all: the log says what to grant.
    server.run(&[
        "ACL SETUSER u -smembers",
        "SADD hostnames:b.test:backends 10.0.0.9",
    ]);
    rig.expect_state(SOON, RedisState::Lost);
    assert!(logged().contains("+smembers"));
    assert_eq!(rig.members("b.test"), "10.0.0.4");
    rig.handle.stop();
}

/// The time for a set with very many members grows in proportion to it; the set is cut, and named.
#[test]
fn a_giant_set_is_cut_and_named_and_does_not_hold_up_others() {
    const MEMBERS: usize = 30_000;
    const USED: usize = 4_096;
    let server = RedisServer::start();
    server.run(&["SADD hostnames:a.test:backends 10.0.0.1"]);
    let rig = Rig::start(SyncSettings {
        ping_timeout: 4 * SOON,
        ..settings(server.url())
    });
    let all: Vec<String> = (0..MEMBERS)
        .map(|n| format!("10.{}.{}.{}:80", 1 + (n >> 16), n >> 8 & 255, n & 255))
        .collect();
    for some in all.chunks(5_000) {
        server.run(&[&format!("SADD building {}", some.join(" "))]);
    }
    let options = "HSET hostnames:big.test:options balance source queue many";
    server.run(&[options, "RENAME building hostnames:big.test:backends"]);
    let set = Instant::now();
    server.run(&["SADD hostnames:a.test:backends 10.0.0.2"]);
    rig.expect(LATER, "a.test", "10.0.0.1 10.0.0.2");
    let waited = set.elapsed();
    let used = |rig: &Rig| rig.members("big.test").split(' ').count();
    rig.wait(LATER, "the giant", |rig| used(rig) == USED);
    let status = rig.handle.status();
    assert_eq!(status.rejected_members, MEMBERS - USED + 1, "{status:?}");
    let log = logged();
    let told = log
        .lines()
        .find(|line| line.contains("hostnames:big.test:backends"));
    let told = told.expect("a line about the giant");
    assert!(
        told.contains("25904 members more than the 4096") && told.contains("queue=many"),
        "{told}"
    );
    // A debug build beside other tests. Quadratic time would be minutes.
    assert!(waited < 3 * SOON, "{waited:?}");
    // The same members are used after it was read again.
    let before = rig.members("big.test");
    server.run(&[
        "SADD hostnames:big.test:backends 99.0.0.1:80",
        "SADD hostnames:c.test:backends 10.0.0.3",
    ]);
    rig.expect(LATER, "c.test", "10.0.0.3");
    assert_eq!(rig.members("big.test"), before);
    rig.handle.stop();
}

/// Notes whether in any table a host with two keys lacked the members of one of them.
fn watch_both(whole: &Arc<Mutex<Option<String>>>) -> impl Fn(&Table) + Send + 'static {
    let whole = Arc::clone(whole);
    move |view| {
        for n in (0..HOSTS).step_by(7) {
            let found = members(view, &format!("h{n}.test"));
            if found != "10.0.0.1 10.0.0.2" && found != "10.0.0.1 10.0.0.2 10.0.0.3" {
                whole
                    .lock()
                    .unwrap()
                    .get_or_insert(format!("h{n}.test had {found:?}"));
            }
        }
    }
}

/// Several pages of SCAN, so that the keys of a host come in different ones.
const HOSTS: usize = 1_500;

#[test]
fn no_key_of_a_host_is_lost_during_a_comparison() {
    let server = RedisServer::start();
    let mut commands = Vec::new();
    for n in 0..HOSTS {
        let other = match n % 3 {
            0 => format!("H{n}.test"),
            1 => format!("h{n}.TEST"),
            _ => format!("h{n}.test."),
        };
        commands.push(format!("SADD hostnames:h{n}.test:backends 10.0.0.1"));
        commands.push(format!("SADD hostnames:{other}:backends 10.0.0.2"));
    }
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    server.run(&commands);
    let directory = tempfile::tempdir().unwrap();
    let usual = SyncSettings {
        snapshot: Some(directory.path().join("table.json")),
        ping_timeout: 2 * SOON,
        ..settings(server.url())
    };
    let fault = Arc::new(Mutex::new(None));
    let done = Arc::new(AtomicBool::new(false));
    // Each change is published in the middle of a comparison, and shows what was filed so far.
    let disturb = |server: &RedisServer| {
        let mut number = 0;
        let end = Instant::now() + 3 * LATER;
        while !done.load(Ordering::Relaxed) && Instant::now() < end {
            let member = format!("10.2.{}.{}", fastrand::u8(..), fastrand::u8(..));
            server.run(&[&format!("SADD hostnames:x{number}.test:backends {member}")]);
            number += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let rig = Rig::start_watched(usual.clone(), watch_both(&fault));
    assert!(rig.handle.wait_first_table(LATER));
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&server));
        for _ in 0..3 {
            // Whatever database is flushed, Redis says that anything may have changed.
            server.run(&["SELECT 3", "FLUSHDB"]);
            // Long enough to read the whole table again among changes.
            std::thread::sleep(Duration::from_millis(400));
        }
        done.store(true, Ordering::Relaxed);
    });
    // A change of one key keeps the members of the other.
    server.run(&["SADD hostnames:H0.test:backends 10.0.0.3"]);
    rig.expect(LATER, "h0.test", "10.0.0.1 10.0.0.2 10.0.0.3");
    rig.handle.stop();
    assert_eq!(*fault.lock().unwrap(), None);

    // A start from a snapshot, which does not name the keys.
    server.freeze();
    done.store(false, Ordering::Relaxed);
    let rig = Rig::start_watched(usual, watch_both(&fault));
    assert!(rig.handle.wait_first_table(LATER));
    server.thaw();
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&server));
        rig.expect_state(2 * LATER, RedisState::Live);
        done.store(true, Ordering::Relaxed);
    });
    rig.handle.stop();
    assert_eq!(*fault.lock().unwrap(), None);
}

#[test]
fn all_keys_of_a_host_add_up_in_whatever_order_they_come_and_go() {
    let server = RedisServer::start();
    let rig = Rig::start(settings(server.url()));
    let written = [
        "xn--bcher-kva.test",
        "bücher.test",
        "BÜCHER.Test.",
        "XN--Bcher-KVA.test",
    ];
    let key = |place: usize| format!("hostnames:{}:backends", written[place % 4]);
    for first in 0..4 {
        for place in first..first + 4 {
            server.run(&[&format!("SADD {} 10.0.0.{}", key(place), place % 4)]);
        }
        let all = "10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3";
        rig.expect(SOON, "bücher.test", all);
        let cold = Rig::start(settings(server.url()));
        assert_eq!(cold.members("bücher.test"), all);
        cold.handle.stop();
        for place in first..first + 4 {
            server.run(&[&format!("DEL {}", key(place))]);
            let left: Vec<String> = (0..4)
                .filter(|of| !(first..=place).any(|gone| gone % 4 == *of))
                .map(|of| format!("10.0.0.{of}"))
                .collect();
            rig.expect(SOON, "bücher.test", &left.join(" "));
        }
    }
    rig.handle.stop();
}
