//! Which connections end, on tables that are published as the sync thread does it.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::route::{Endpoint, HostOptions, Key, Layer, Master, Member, Registry, RouteOptions};

const SECOND: Duration = Duration::from_secs(1);

/// A sync thread, a core's view and its tracker.
struct Rig {
    registry: Registry,
    master: Master,
    table: Table,
    tracker: RemovalTracker,
    now: Instant,
}

/// A connection.
struct Opened {
    entry: RemovalEntry,
}

impl Rig {
    fn new() -> Rig {
        Rig {
            registry: Registry::default(),
            master: Master::new(7),
            table: Table::new(),
            tracker: RemovalTracker::default(),
            now: Instant::now(),
        }
    }

    fn slot(&mut self, member: &str) -> u32 {
        self.registry
            .endpoint(Member::parse(member).unwrap())
            .backend
            .slot()
    }

    /// Files members and the option `removal`, without members nothing.
    fn set(&mut self, key: &str, members: &[&str], removal: &str) {
        let key = Key::parse(key).unwrap();
        let route = (!members.is_empty()).then(|| {
            let endpoints: Vec<Endpoint> = members
                .iter()
                .map(|text| self.registry.endpoint(Member::parse(text).unwrap()))
                .collect();
            let mut host = HostOptions::default();
            host.set(&format!("removal={removal}")).unwrap();
            let options = RouteOptions { host, acme: None };
            self.registry.route_with(endpoints, Some(options))
        });
        self.master.set(&key, Layer::Redis, route);
    }

    /// Brings the view up to date and does all that is due.
    fn publish(&mut self) {
        let Some(update) = self.master.publish() else {
            return;
        };
        self.table.apply(&update);
        self.tracker.replaced(update.replaced());
        self.settle();
    }

    fn settle(&mut self) -> Option<Instant> {
        loop {
            let next = self.tracker.step(&self.table, self.now);
            if next.is_none_or(|next| next > self.now) {
                return next;
            }
        }
    }

    fn open(&mut self, name: &str, member: &str) -> Opened {
        let slot = self.slot(member);
        let host = (!name.is_empty()).then(|| Host::from_operator(name).unwrap());
        let name = host.as_ref();
        let (_, route) = self.table.locate(name, Protocol::Tls).unwrap();
        let route = Arc::clone(route);
        let subject = RemovalSubject {
            protocol: Protocol::Tls,
            name,
            slot,
        };
        let entry = self.tracker.enter(subject, &route, &self.table, self.now);
        Opened { entry }
    }

    fn has_ended(&mut self, opened: &Opened) -> bool {
        let context = Context::from_waker(Waker::noop());
        self.tracker.poll_end(&opened.entry, &context).is_ready()
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.settle();
    }
}

#[test]
fn what_each_option_does_with_a_member_that_leaves() {
    for (removal, at_once, in_time) in [
        ("keep", false, false),
        ("drain=2s", false, true),
        ("cut", true, true),
    ] {
        let mut rig = Rig::new();
        rig.set("a.test", &["10.0.0.1", "10.0.0.2"], removal);
        rig.set("b.test", &["10.0.0.1", "10.0.0.2"], removal);
        rig.publish();
        let gone = rig.open("a.test", "10.0.0.1");
        let stays = rig.open("a.test", "10.0.0.2");
        let other_host = rig.open("b.test", "10.0.0.1");
        rig.set("a.test", &["10.0.0.2"], removal);
        rig.publish();
        assert_eq!(rig.has_ended(&gone), at_once, "{removal}");
        rig.pass(SECOND * 2 - Duration::from_millis(1));
        assert_eq!(rig.has_ended(&gone), at_once, "{removal}");
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.has_ended(&gone), in_time, "{removal}");
        rig.pass(SECOND * 1000);
        assert!(!rig.has_ended(&stays) && !rig.has_ended(&other_host));
        for opened in [gone, stays, other_host] {
            rig.tracker.leave(&opened.entry);
        }
        assert!(rig.tracker.groups.is_empty() && rig.tracker.by_route.is_empty());
        assert!(rig.tracker.by_subject.is_empty() && rig.tracker.leaving.is_empty());
    }
}

#[test]
fn a_backend_that_comes_back_keeps_its_connections() {
    let mut rig = Rig::new();
    rig.set("a.test", &["10.0.0.1", "10.0.0.2"], "drain=2s");
    rig.publish();
    let opened = rig.open("a.test", "10.0.0.1");
    for without in [&["10.0.0.2"][..], &[]] {
        rig.set("a.test", without, "drain=2s");
        rig.publish();
        rig.pass(SECOND);
        rig.set("a.test", &["10.0.0.1"], "drain=2s");
        rig.publish();
        rig.pass(SECOND * 10);
        assert!(!rig.has_ended(&opened), "{without:?}");
    }
    // The time begins anew.
    rig.set("a.test", &[], "keep");
    rig.publish();
    rig.pass(SECOND);
    assert!(!rig.has_ended(&opened));
    rig.pass(SECOND);
    assert!(rig.has_ended(&opened));
}

#[test]
fn options_are_those_in_force_while_the_host_is_there() {
    let mut rig = Rig::new();
    rig.set("a.test", &["10.0.0.1", "10.0.0.2"], "drain=1h");
    rig.publish();
    let opened = rig.open("a.test", "10.0.0.1");
    rig.set("a.test", &["10.0.0.1", "10.0.0.2"], "keep");
    rig.publish();
    rig.set("a.test", &["10.0.0.2"], "keep");
    rig.publish();
    rig.pass(SECOND * 3600);
    assert!(!rig.has_ended(&opened));
    // It has been gone for longer than that.
    rig.set("a.test", &["10.0.0.2"], "drain=3601s");
    rig.publish();
    assert!(!rig.has_ended(&opened));
    rig.set("a.test", &["10.0.0.2"], "drain=59m");
    rig.publish();
    assert!(rig.has_ended(&opened));
}

#[test]
fn another_key_that_takes_the_name_over_decides_by_its_members_alone() {
    let mut rig = Rig::new();
    rig.set("*.test", &["10.0.0.1", "10.0.0.9"], "keep");
    rig.set("default:https", &["10.0.0.9"], "keep");
    rig.set("a.test", &["10.0.0.1", "10.0.0.2"], "cut");
    rig.publish();
    let served_on = rig.open("a.test", "10.0.0.1");
    let not = rig.open("a.test", "10.0.0.2");
    rig.set("a.test", &[], "keep");
    rig.publish();
    assert!(!rig.has_ended(&served_on) && rig.has_ended(&not));
    // It is the wildcard's from now on, and with it the wildcard's option.
    rig.set("*.test", &["10.0.0.9"], "keep");
    rig.publish();
    assert!(!rig.has_ended(&served_on));
    rig.set("*.test", &["10.0.0.9"], "cut");
    rig.publish();
    assert!(rig.has_ended(&served_on));
}

#[test]
fn a_more_specific_key_takes_names_from_a_wildcard_and_from_the_default() {
    let mut rig = Rig::new();
    rig.set("*.test", &["10.0.0.1"], "cut");
    rig.set("default:https", &["10.0.0.1"], "cut");
    rig.publish();
    let (one, two) = (
        rig.open("a.test", "10.0.0.1"),
        rig.open("b.c.test", "10.0.0.1"),
    );
    let (unknown, nameless) = (rig.open("a.example", "10.0.0.1"), rig.open("", "10.0.0.1"));
    rig.set("a.test", &["10.0.0.2"], "keep");
    rig.publish();
    assert!(rig.has_ended(&one) && !rig.has_ended(&two));
    rig.set("*.c.test", &["10.0.0.2"], "keep");
    rig.set("*.example", &["10.0.0.2"], "keep");
    rig.publish();
    assert!(rig.has_ended(&two) && rig.has_ended(&unknown) && !rig.has_ended(&nameless));
    rig.set("default:https", &[], "keep");
    rig.publish();
    assert!(rig.has_ended(&nameless));
}

#[test]
fn a_connection_that_was_made_while_its_backend_left_ends_like_the_others() {
    let mut rig = Rig::new();
    rig.set("a.test", &["10.0.0.1"], "cut");
    rig.publish();
    let slot = rig.slot("10.0.0.1");
    let host = Host::from_operator("a.test").unwrap();
    let old = Arc::clone(rig.table.lookup(&host).unwrap());
    rig.set("a.test", &["10.0.0.2"], "cut");
    rig.publish();
    let subject = RemovalSubject {
        protocol: Protocol::Tls,
        name: Some(&host),
        slot,
    };
    let entry = rig.tracker.enter(subject, &old, &rig.table, rig.now);
    assert!(rig.tracker.is_leaving(&entry));
    rig.settle();
    let opened = Opened { entry };
    assert!(rig.has_ended(&opened));
}

/// 10,000 connections of one host cost a change two look-ups, one for each backend; under 10,000 names
/// of a wildcard it is one for each, in steps. Those that end do so in steps as well.
#[test]
fn a_change_costs_one_lookup_per_name_and_backend_and_no_step_is_long() {
    const CONNECTIONS: usize = 10_000;
    let mut rig = Rig::new();
    // Equal sets are one route, so these are not.
    rig.set("*.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], "cut");
    rig.set("a.test", &["10.0.0.1", "10.0.0.2"], "cut");
    rig.publish();
    let mut opened = Vec::new();
    for number in 0..CONNECTIONS {
        let member = ["10.0.0.1", "10.0.0.2"][number % 2];
        opened.push(rig.open("a.test", member));
        opened.push(rig.open(&format!("{number}.test"), member));
    }
    rig.set("a.test", &["10.0.0.2"], "cut");
    let update = rig.master.publish().unwrap();
    rig.table.apply(&update);
    assert!(rig.tracker.replaced(update.replaced()));
    assert_eq!(rig.tracker.stale.len(), 2);
    rig.set("*.test", &["10.0.0.2"], "cut");
    let update = rig.master.publish().unwrap();
    rig.table.apply(&update);
    assert!(rig.tracker.replaced(update.replaced()));
    assert_eq!(rig.tracker.stale.len(), 2 + CONNECTIONS);
    let (mut ended, mut steps) = (0, 0);
    while ended < CONNECTIONS {
        let before = rig.tracker.stale.len();
        let next = rig.tracker.step(&rig.table, rig.now);
        assert!(before - rig.tracker.stale.len() <= LOOKUPS_PER_STEP);
        let (mut gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut opened)
            .into_iter()
            .partition(|opened| rig.has_ended(opened));
        assert!(gone.len() <= ENDS_PER_STEP);
        ended += gone.len();
        gone.drain(..)
            .for_each(|opened| rig.tracker.leave(&opened.entry));
        opened = kept;
        steps += 1;
        assert_eq!(next.is_none(), ended == CONNECTIONS);
    }
    assert!(steps <= CONNECTIONS.div_ceil(ENDS_PER_STEP) + 1, "{steps}");
    assert_eq!(opened.len(), CONNECTIONS);
}
