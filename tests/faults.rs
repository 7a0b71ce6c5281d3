//! One of three real TLS servers fails, in each way that servers fail, under a constant load of new
//! connections. With `FAULTS_OUT` each test adds its row to a table there
//! (`scripts/faults`), with `FAULTS_RATE` connections a second and a fault of
//! `FAULTS_SECONDS`.

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::netns::Namespace;
use support::proxy::{Options, Proxy};
use support::trio::{Record, Server, load};

/// Before the fault, so that its effect can be told from the beginning's.
const BEFORE: Duration = Duration::from_secs(2);
/// After it, at least: an ejection that was renewed once has ended by then.
const AFTER: Duration = Duration::from_secs(7);
/// The time that a freeze is allowed to be noticed in.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// One at a time, or they would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

struct Run {
    _alone: MutexGuard<'static, ()>,
    namespace: Namespace,
    per_second: u32,
    fault: Duration,
    connect_deadline: Duration,
}

fn setting(name: &str, default: u32) -> u32 {
    let said = std::env::var(name).ok();
    said.map_or(default, |said| said.parse().expect("a number"))
}

impl Run {
    fn new() -> Run {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = setting("FAULTS_SECONDS", 4);
        Run {
            _alone: alone,
            namespace: Namespace::new("faults"),
            per_second: setting("FAULTS_RATE", 40),
            fault: Duration::from_secs(seconds.into()),
            // Short enough for several of them to fit into the fault.
            connect_deadline: Duration::from_secs(if seconds >= 8 { 3 } else { 1 }),
        }
    }

    fn proxy(&self, servers: &[Server; 3], more: &[&str]) -> Proxy {
        let members = servers.each_ref().map(|one| one.address().to_string());
        let deadline = format!("{}s", self.connect_deadline.as_secs());
        Options::new()
            .route("a.test", &[&members[0], &members[1], &members[2]])
            .args(&["--connect-deadline", &deadline])
            .args(more)
            .start()
    }

    /// Lets the first of the servers fail and heal under load.
    fn run(
        &self,
        name: &str,
        more: &[&str],
        fail: impl FnOnce(&mut Server, &Namespace) + Send,
        heal: impl FnOnce(&mut Server, &Namespace) + Send,
    ) -> Seen {
        self.namespace.inside(|| {
            let mut servers = ["A", "B", "C"].map(Server::start);
            let proxy = self.proxy(&servers, more);
            let (mut failed_at, mut healed_at) = (Duration::ZERO, Duration::ZERO);
            let mut failed_by = Duration::ZERO;
            let span = BEFORE + self.fault + self.fault.max(AFTER);
            let records = load(proxy.https(), self.per_second, span, |began| {
                let wait_until = |at: Duration| {
                    let due = began + at;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                };
                wait_until(BEFORE);
                failed_at = began.elapsed();
                fail(&mut servers[0], &self.namespace);
                failed_by = began.elapsed();
                wait_until(failed_at + self.fault);
                heal(&mut servers[0], &self.namespace);
                healed_at = began.elapsed();
            });
            let seen = Seen {
                records,
                failed_at,
                failed_by,
                healed_at,
                connect_deadline: self.connect_deadline,
                ejections: counter(&proxy, "outlier_ejections_total"),
                rounds: counter(&proxy, "upstream_retries_total{reason=\"unanswered\"}"),
            };
            seen.write_row(name, self.per_second);
            seen
        })
    }
}

fn counter(proxy: &Proxy, name: &str) -> u64 {
    let value = proxy.series(&format!("pointsman_{name}"));
    value.expect("a counter") as u64
}

/// What the clients saw.
struct Seen {
    records: Vec<Record>,
    /// Making it fail took from here, until
    failed_at: Duration,
    /// here: a firewall takes effect somewhere between.
    failed_by: Duration,
    healed_at: Duration,
    connect_deadline: Duration,
    ejections: u64,
    rounds: u64,
}

impl Seen {
    fn errors(&self) -> Vec<&Record> {
        let failed = self.records.iter().filter(|record| record.who.is_err());
        failed.collect()
    }

    /// Clients that were under way when the server failed and were not served by another.
    fn in_flight(&self) -> usize {
        let under_way = |record: &&Record| {
            let served_elsewhere = record.who.as_ref().is_ok_and(|who| who != "A");
            record.at <= self.failed_by
                && record.at + record.took >= self.failed_at
                && !served_elsewhere
        };
        self.records.iter().filter(under_way).count()
    }

    /// Those that began while the fault was there and could have been noticed.
    fn during(&self) -> impl Iterator<Item = &Record> {
        let from = self.failed_at + NOTICED_WITHIN;
        let during = move |record: &&Record| record.at >= from && record.at < self.healed_at;
        self.records.iter().filter(during)
    }

    /// The part of them that waited for longer than the connect deadline, in percent.
    fn delayed_percent(&self) -> f64 {
        let all = self.during().count();
        let late = self
            .during()
            .filter(|record| record.took > self.connect_deadline);
        100.0 * late.count() as f64 / all as f64
    }

    /// From the end of the fault until the server had its first client again.
    fn back_after(&self) -> Option<Duration> {
        let again = self.records.iter().find(|record| {
            record.at >= self.healed_at && record.who.as_ref().is_ok_and(|who| who == "A")
        });
        again.map(|record| record.at - self.healed_at)
    }

    fn percentile(&self, part: f64) -> Duration {
        let mut took: Vec<Duration> = self.during().map(|record| record.took).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * part) as usize;
        took[at.min(took.len() - 1)]
    }

    fn write_row(&self, name: &str, per_second: u32) {
        let ms = |span: Duration| format!("{:.1}", span.as_secs_f64() * 1e3);
        let back = self.back_after();
        let late = self
            .records
            .iter()
            .filter(|one| one.took > self.connect_deadline);
        let mut row = String::new();
        let _ = writeln!(
            row,
            "| {name} | {} | {} | {} | {} | {:.2} % | {} | {} | {} | {} | {} | {} |",
            self.records.len(),
            self.errors().len(),
            self.in_flight(),
            late.count(),
            self.delayed_percent(),
            ms(self.percentile(0.5)),
            ms(self.percentile(0.99)),
            ms(self.percentile(1.0)),
            self.rounds,
            self.ejections,
            back.map_or("-".to_owned(), |back| format!(
                "{:.1} s",
                back.as_secs_f64()
            )),
        );
        eprintln!("{per_second}/s: {row}");
        if let Some(path) = std::env::var_os("FAULTS_OUT") {
            let file = std::fs::OpenOptions::new().append(true).open(path);
            let written = file.and_then(|mut file| file.write_all(row.as_bytes()));
            written.expect("the table can be written");
        }
    }

    #[track_caller]
    fn assert_no_error(&self) {
        assert!(self.errors().is_empty(), "{:?}", self.errors());
    }

    #[track_caller]
    fn assert_few_are_late(&self) {
        let percent = self.delayed_percent();
        assert!(
            percent < 1.0,
            "{percent} % waited for longer than the connect deadline"
        );
    }

    #[track_caller]
    fn assert_is_back(&self) {
        assert!(
            self.back_after().is_some(),
            "the server that is back gets no clients"
        );
    }
}

/// Rules of a firewall of the namespace, towards one port.
fn firewall(namespace: &Namespace, server: &Server, verdict: &str) {
    namespace.run(&format!(
        "nft 'add table inet faults; \
         add chain inet faults input {{ type filter hook input priority 0; }}; \
         add rule inet faults input tcp dport {} {verdict}'",
        server.address().port()
    ));
}

fn no_firewall(namespace: &Namespace) {
    namespace.run("nft delete table inet faults");
}

/// With every way of choosing: nobody sees that a server refuses.
#[test]
fn f1_refusing() {
    let run = Run::new();
    for balance in ["p2c", "round-robin"] {
        let seen = run.run(
            &format!("refusing ({balance})"),
            &["--balance", balance],
            |server, namespace| firewall(namespace, server, "reject with tcp reset"),
            |_, namespace| no_firewall(namespace),
        );
        // Packets of connections that are open are refused, too.
        assert!(
            seen.errors().len() <= seen.in_flight(),
            "{:?}",
            seen.errors()
        );
        seen.assert_few_are_late();
        seen.assert_is_back();
    }
}

#[test]
fn f2_killed() {
    let seen = Run::new().run(
        "killed",
        &[],
        |server, _| server.kill(),
        |server, _| server.revive(),
    );
    let errors = seen.errors();
    assert!(errors.len() <= seen.in_flight(), "{errors:?}");
    seen.assert_few_are_late();
    seen.assert_is_back();
}

#[test]
fn f3_frozen() {
    let run = Run::new();
    for balance in ["p2c", "round-robin"] {
        let seen = run.run(
            &format!("frozen ({balance})"),
            &["--balance", balance],
            |server, _| server.signal("STOP"),
            |server, _| server.signal("CONT"),
        );
        seen.assert_no_error();
        seen.assert_few_are_late();
        seen.assert_is_back();
    }
}

#[test]
fn f4_black_holed() {
    let run = Run::new();
    for balance in ["p2c", "round-robin"] {
        let seen = run.run(
            &format!("black-holed ({balance})"),
            &["--balance", balance],
            |server, namespace| firewall(namespace, server, "drop"),
            |_, namespace| no_firewall(namespace),
        );
        seen.assert_no_error();
        seen.assert_few_are_late();
        seen.assert_is_back();
    }
}

/// The server dies, and in its place something accepts and closes without a byte.
#[test]
fn f5_accepting_and_closing() {
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let over = &over;
        Run::new().run(
            "accepting and closing",
            &[],
            move |server, _| {
                server.kill();
                let listener = TcpListener::bind(server.address()).expect("its port is free");
                listener.set_nonblocking(true).expect("a listener");
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        match listener.accept() {
                            Ok((stream, _)) => {
                                let _ = stream.shutdown(Shutdown::Both);
                            }
                            Err(_) => std::thread::sleep(Duration::from_millis(1)),
                        }
                    }
                });
            },
            |server, _| {
                over.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                server.revive();
            },
        )
    });
    let errors = seen.errors();
    assert!(errors.len() <= seen.in_flight(), "{errors:?}");
    seen.assert_few_are_late();
    seen.assert_is_back();
}

/// Stopped nine tenths of the time.
#[test]
fn f6_slow() {
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let over = &over;
        Run::new().run(
            "slow",
            &[],
            move |server, _| {
                let pid = server.id();
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        for (signal, ms) in [("STOP", 90), ("CONT", 10)] {
                            support::process::signal(pid, signal);
                            std::thread::sleep(Duration::from_millis(ms));
                        }
                    }
                });
            },
            |_, _| {
                over.store(true, Ordering::Relaxed);
                // The last STOP is followed by its CONT.
                std::thread::sleep(Duration::from_millis(150));
            },
        )
    });
    seen.assert_no_error();
    seen.assert_few_are_late();
    seen.assert_is_back();
}
