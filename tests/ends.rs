//! How connections end: every way in which a side ends or stops, at every stage, on every kind of
//! connection. Each cell of the table says what the other side must see, the one outcome, and by when
//! everything is released; for all of them the proxy has next to nothing to do while nothing moves, and
//! holds nothing more behind the last.

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use support::ends::{BACKENDS, CLIENTS, Cell, End, Ends, Fault, Kind, Place, Seen, Side, Stage};
use support::netns::Namespace;
use support::proxy::{Options, Proxy};

/// Of everything in the proxy that has one.
const DEADLINE: Duration = Duration::from_secs(3);
/// Of a connection of which one side has finished; before that of one on which nothing moves.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// What is not left to a deadline. Less than any, more than a loaded machine needs.
const SOON: Duration = Duration::from_millis(2500);
/// What a client is given to read the last it was told.
const LINGER: Duration = Duration::from_secs(2);
/// By which a deadline may be late on a loaded machine.
const LATE: Duration = Duration::from_millis(2000);
/// Between what one side does and what the other sees of it.
const SETTLED: Duration = Duration::from_millis(600);
/// For how long it is watched what the proxy does behind that; it ends before any deadline.
const WINDOW: Duration = Duration::from_millis(1000);
/// Processor time within it that is next to nothing; one connection that spins takes many times as much
/// even on a loaded machine.
const RESTS: Duration = Duration::from_millis(100);
/// Of a drain, in whose second half long connections are cut; no other deadline ends before it then.
const DRAIN: Duration = Duration::from_secs(4);
const DEADLINE_IN_DRAIN: Duration = Duration::from_secs(20);
/// Groups that run at a time.
const AT_A_TIME: usize = 8;

/// Why there is no such cell.
fn senseless(cell: Cell) -> Option<&'static str> {
    let Cell {
        side,
        fault,
        stage,
        kind,
    } = cell;
    match (kind, stage) {
        (Kind::Tls, Stage::BetweenRequests | Stage::InTunnel) => {
            return Some("TLS is relayed as a whole");
        }
        (Kind::Http11 | Kind::Http10, Stage::InTunnel) => return Some("it is no tunnel"),
        (Kind::Tunnel, Stage::HeadSent | Stage::InTunnel | Stage::SplicedBody | Stage::Drain) => {}
        (Kind::Tunnel, _) => return Some("until it is asked for it is a request like others"),
        _ => {}
    }
    let has_backend = !matches!(
        stage,
        Stage::BeforeHead | Stage::WithinHead | Stage::Connecting | Stage::Farewell
    );
    match (side, stage, fault) {
        (Side::Backend, Stage::Connecting, Fault::Reset | Fault::Silence) => None,
        (Side::Backend, Stage::Connecting, _) => Some("who has not accepted cannot do that"),
        (Side::Backend, ..) if !has_backend => Some("there is no backend yet"),
        _ if fault.is_flooded() && (!has_backend || stage == Stage::BetweenRequests) => {
            Some("there is nothing to read")
        }
        _ => None,
    }
}

/// What must come of a cell.
#[derive(Debug)]
struct Want {
    /// How the connection ends for the other side, or for the faulty one where there is no other.
    end: End,
    /// The status of the response, or the alert, that comes before.
    told: Option<u16>,
    /// The one way to end; `None`: it never was a connection of the proxy's.
    outcome: Option<&'static str>,
    /// By when everything of it is released.
    by: Duration,
}

impl Want {
    fn soon(end: End, outcome: &'static str) -> Want {
        Want {
            end,
            told: None,
            outcome: Some(outcome),
            by: SOON,
        }
    }

    fn at_deadline(end: End, outcome: &'static str) -> Want {
        Want {
            by: DEADLINE + LATE,
            ..Want::soon(end, outcome)
        }
    }

    fn told(self, told: u16) -> Want {
        Want {
            told: Some(told),
            ..self
        }
    }

    /// Somebody is given time to read what he is told.
    fn and_lingers(self) -> Want {
        Want {
            by: self.by + LINGER,
            ..self
        }
    }
}

fn want(cell: Cell) -> Want {
    match cell.stage {
        Stage::BeforeHead | Stage::WithinHead => without_a_head(cell),
        Stage::Connecting => while_connecting(cell),
        Stage::Farewell => refused(cell),
        Stage::BetweenRequests => between_requests(cell),
        // A flood begins with an answer, which makes it a tunnel.
        Stage::HeadSent
            if cell.kind == Kind::Tunnel
                && cell.side == Side::Client
                && cell.fault.is_flooded() =>
        {
            relayed(cell)
        }
        Stage::HeadSent if cell.kind != Kind::Tls => awaiting_a_response(cell),
        Stage::HeadSent | Stage::InTunnel => relayed(cell),
        Stage::CopiedBody | Stage::SplicedBody | Stage::Drain => match cell.kind {
            Kind::Tls | Kind::Tunnel => relayed(cell),
            Kind::Http11 | Kind::Http10 => within_a_response(cell),
        },
    }
}

fn without_a_head(cell: Cell) -> Want {
    let is_before = cell.stage == Stage::BeforeHead;
    match cell.fault {
        // The kernel has not handed it over yet (TCP_DEFER_ACCEPT).
        Fault::Reset | Fault::Vanishes if is_before => Want {
            outcome: None,
            ..Want::soon(End::None, "")
        },
        Fault::Reset | Fault::FinThenReset => Want::soon(End::None, "client_left"),
        Fault::Fin => Want::soon(End::Fin, "client_left"),
        Fault::Vanishes => Want::at_deadline(End::None, "head_timeout").and_lingers(),
        _ => {
            let want = Want::at_deadline(End::Fin, "head_timeout").and_lingers();
            // The kernel keeps a silent client for up to three seconds.
            let by = want.by + if is_before { DEADLINE } else { Duration::ZERO };
            match cell.kind {
                Kind::Tls => Want { by, ..want },
                _ => Want { by, ..want }.told(408),
            }
        }
    }
}

fn while_connecting(cell: Cell) -> Want {
    let told = |want: Want, status| match cell.kind {
        Kind::Tls => want.told(80),
        _ => want.told(status),
    };
    match (cell.side, cell.fault) {
        (Side::Client, Fault::Reset | Fault::FinThenReset) => Want::soon(End::None, "client_reset"),
        (Side::Client, Fault::Vanishes) => {
            Want::at_deadline(End::None, "backend_timeout").and_lingers()
        }
        (Side::Backend, Fault::Reset) => {
            told(Want::soon(End::Fin, "backend_unreachable"), 502).and_lingers()
        }
        // A client that has finished may still read.
        _ => told(Want::at_deadline(End::Fin, "backend_timeout"), 504).and_lingers(),
    }
}

fn refused(cell: Cell) -> Want {
    match cell.fault {
        Fault::Reset | Fault::FinThenReset => Want::soon(End::None, "unknown_name"),
        Fault::Fin => Want::soon(End::Fin, "unknown_name"),
        // The end of the stream is behind the answer.
        _ => Want::at_deadline(End::Fin, "unknown_name"),
    }
}

fn between_requests(cell: Cell) -> Want {
    match (cell.side, cell.fault) {
        (Side::Client, Fault::Fin | Fault::Reset | Fault::FinThenReset) => {
            Want::soon(End::None, "relayed")
        }
        // Nor does a client wait for what an idle backend does.
        _ => Want::at_deadline(End::None, "keep_alive_timeout"),
    }
}

/// TLS from the hello on, and tunnels.
fn relayed(cell: Cell) -> Want {
    let reset = match cell.side {
        Side::Client => "client_reset",
        Side::Backend => "backend_reset",
    };
    // Nobody has had a byte that could look like the whole.
    let unanswered = cell.stage == Stage::HeadSent && !cell.fault.is_flooded();
    let at_idle = if unanswered { End::Fin } else { End::Reset };
    match cell.fault {
        Fault::Fin => Want::soon(End::Fin, "relayed"),
        Fault::Reset => Want::soon(End::Reset, reset),
        Fault::FinThenReset => Want::soon(End::FinThenReset, reset),
        Fault::FinAndStopsReading => {
            Want::at_deadline(End::FinThenReset, cut(cell, "half_closed_timeout")).and_lingers()
        }
        _ => Want::at_deadline(at_idle, cut(cell, "idle_timeout")),
    }
}

/// What a deadline ends, unless the drain ends first.
fn cut(cell: Cell, outcome: &'static str) -> &'static str {
    match cell.stage {
        Stage::Drain => "cut_at_drain",
        _ => outcome,
    }
}

fn awaiting_a_response(cell: Cell) -> Want {
    use Fault::{Fin, FinAndStopsReading, FinThenReset, Reset, StopsReading};
    match (cell.side, cell.fault) {
        (Side::Client, Reset | FinThenReset) => Want::soon(End::Fin, "client_reset"),
        (Side::Client, Fin) => Want::at_deadline(End::Fin, "half_closed_timeout").and_lingers(),
        (Side::Client, FinAndStopsReading) => Want::at_deadline(End::Reset, "half_closed_timeout"),
        (Side::Client, StopsReading) => Want::at_deadline(End::Reset, "idle_timeout"),
        (Side::Client, _) => Want::at_deadline(End::Fin, "response_timeout").and_lingers(),
        // What its client has still under way is read before the connection is closed.
        (Side::Backend, FinAndStopsReading) => Want::soon(End::Fin, "backend_closed")
            .told(502)
            .and_lingers(),
        (Side::Backend, Fin | Reset | FinThenReset) => {
            Want::soon(End::Fin, "backend_closed").told(502)
        }
        (Side::Backend, StopsReading) => Want::at_deadline(End::Fin, "response_timeout")
            .told(504)
            .and_lingers(),
        (Side::Backend, _) => Want::at_deadline(End::Fin, "response_timeout").told(504),
    }
}

fn within_a_response(cell: Cell) -> Want {
    use Fault::{Fin, FinAndStopsReading, FinThenReset, Reset, StopsReading};
    // To a backend whose request was whole the end says no more than that nobody waits.
    let told_backend = match cell.stage {
        Stage::Drain => End::Reset,
        _ => End::Fin,
    };
    match (cell.side, cell.fault) {
        (Side::Client, Reset | FinThenReset) => Want::soon(End::Fin, "client_reset"),
        (Side::Client, Fin) => Want::at_deadline(told_backend, cut(cell, "half_closed_timeout")),
        (Side::Client, FinAndStopsReading) => {
            Want::at_deadline(End::Reset, cut(cell, "half_closed_timeout"))
        }
        (Side::Client, StopsReading) => Want::at_deadline(End::Reset, cut(cell, "idle_timeout")),
        (Side::Client, _) => Want::at_deadline(told_backend, cut(cell, "idle_timeout")),
        (Side::Backend, Fin | Reset | FinThenReset | FinAndStopsReading) => {
            Want::soon(End::Reset, "backend_reset")
        }
        (Side::Backend, _) => Want::at_deadline(End::Reset, cut(cell, "idle_timeout")),
    }
}

/// What came of a cell.
struct Met {
    cell: Cell,
    seen: Seen,
    outcome: Option<String>,
    after: Duration,
    _ends: Ends,
}

impl Met {
    /// What is other than it must be.
    fn fault(&self) -> Option<String> {
        let want = want(self.cell);
        let behind_mark = self.cell.fault != Fault::UrgentByte
            || !self.cell.sends_behind_urgent()
            || self.seen.has_bytes_behind_urgent();
        // Closing with an urgent byte unread is a reset (RFC 1122 section 4.2.2.13).
        let end = match (self.seen.end, self.cell.fault) {
            (End::Reset, Fault::UrgentByte) if self.cell.stage.is_entered_last() => End::Fin,
            (end, _) => end,
        };
        let holds = end == want.end
            && (want.told.is_none() || self.seen.told() == want.told)
            && self.outcome.as_deref() == want.outcome
            && (self.after <= want.by || want.outcome.is_none())
            && behind_mark;
        let Met {
            cell,
            seen,
            outcome,
            after,
            ..
        } = self;
        (!holds).then(|| {
            format!(
                "{:?} {:?} {:?} {:?}: {:?} told {:?}, {outcome:?} after {after:.1?}, bytes behind \
                 the mark: {behind_mark}; wanted {want:?}",
                cell.side,
                cell.fault,
                cell.stage,
                cell.kind,
                seen.end,
                seen.told()
            )
        })
    }
}

/// All cells of one fault on one side, at the same time; those of a drain by themselves.
#[derive(Debug, Clone, Copy)]
struct Group {
    side: Side,
    fault: Fault,
    is_drain: bool,
}

impl Group {
    fn all() -> VecDeque<Group> {
        let mut groups = VecDeque::new();
        for side in Side::ALL {
            for fault in Fault::ALL {
                for is_drain in [false, true] {
                    groups.push_back(Group {
                        side,
                        fault,
                        is_drain,
                    });
                }
            }
        }
        groups
    }

    fn cells(self) -> Vec<Cell> {
        let of_kind = |kind| {
            Stage::ALL.map(|stage| Cell {
                side: self.side,
                fault: self.fault,
                stage,
                kind,
            })
        };
        let cells = Kind::ALL.into_iter().flat_map(of_kind);
        cells
            .filter(|cell| (cell.stage == Stage::Drain) == self.is_drain)
            .filter(|cell| senseless(*cell).is_none())
            .collect()
    }

    /// Whoever vanishes does so from a network of the group's own.
    fn run(self) -> Vec<String> {
        match self.fault {
            Fault::Vanishes => {
                let namespace = Namespace::new("ends");
                namespace.inside(|| self.run_in(Some(&namespace)))
            }
            _ => self.run_in(None),
        }
    }

    fn run_in(self, namespace: Option<&Namespace>) -> Vec<String> {
        let cells: Vec<(Cell, Place)> = self
            .cells()
            .into_iter()
            .map(|cell| (cell, Place::of(cell)))
            .collect();
        let mut proxy = start(&cells, self.is_drain);
        let steps = Steps::of(cells.len());
        let (met, spent) = std::thread::scope(|scope| {
            let (proxy, steps) = (&proxy, &steps);
            let running: Vec<_> = cells
                .iter()
                .map(|(cell, place)| scope.spawn(move || run_cell(*cell, place, proxy, steps)))
                .collect();
            steps.reached.wait();
            // Who is reset before it is accepted is nobody that the proxy knows.
            let sent_bytes = |(cell, _): &&(Cell, Place)| cell.stage != Stage::BeforeHead;
            let known = cells.iter().filter(sent_bytes).count() as u64;
            let until = Instant::now() + LATE;
            while proxy.live() < known && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            if let Some(namespace) = namespace {
                self.cut_off(namespace);
            }
            if self.is_drain {
                proxy.signal("TERM");
            }
            steps.begun.wait();
            std::thread::sleep(SETTLED);
            let before = proxy.processor_time();
            std::thread::sleep(WINDOW);
            let spent = proxy.processor_time().saturating_sub(before);
            let met = running.into_iter().map(|thread| thread.join());
            (met.collect::<Vec<_>>(), spent)
        });
        let mut faults = Vec::new();
        for (met, (cell, _)) in met.iter().zip(&cells) {
            match met {
                Ok(met) => faults.extend(met.fault()),
                Err(_) => faults.push(format!("{cell:?} was not reached")),
            }
        }
        if spent > RESTS {
            faults.push(format!(
                "{self:?}: {spent:?} of {WINDOW:?} while nothing moved"
            ));
        }
        // Whoever stopped is still there.
        if !self.is_drain {
            proxy.assert_no_leaks();
        } else if proxy.wait_for_exit(DRAIN + LATE).is_none() {
            faults.push(format!("{self:?}: the drain did not end"));
        }
        faults
    }

    /// From here on no packet of the faulty side arrives, and none comes to it.
    fn cut_off(self, namespace: &Namespace) {
        let gone = match self.side {
            Side::Client => CLIENTS,
            Side::Backend => BACKENDS,
        };
        namespace.run(&format!(
            "nft add table ip t && \
             nft add chain ip t c '{{ type filter hook output priority 0; }}' && \
             nft add rule ip t c ip saddr {gone} drop && nft add rule ip t c ip daddr {gone} drop"
        ));
    }
}

/// Where the cells of a group wait for each other.
struct Steps {
    /// Those whose deadline does not run from accept are there.
    first: Barrier,
    reached: Barrier,
    begun: Barrier,
}

impl Steps {
    fn of(cells: usize) -> Steps {
        Steps {
            first: Barrier::new(cells),
            reached: Barrier::new(cells + 1),
            begun: Barrier::new(cells + 1),
        }
    }
}

fn run_cell(cell: Cell, place: &Place, proxy: &Proxy, steps: &Steps) -> Met {
    if cell.stage.is_entered_last() {
        steps.first.wait();
    }
    let reach = AssertUnwindSafe(|| Ends::reach(cell, place, proxy.https(), proxy.http()));
    // Nobody is left waiting for one that was not.
    let ends = std::panic::catch_unwind(reach);
    if !cell.stage.is_entered_last() {
        steps.first.wait();
    }
    steps.reached.wait();
    steps.begun.wait();
    live_through(
        cell,
        ends.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        proxy,
    )
}

fn start(cells: &[(Cell, Place)], is_drain: bool) -> Proxy {
    let seconds = |span: Duration| format!("{}s", span.as_secs());
    let (deadline, half_closed) = if is_drain {
        (DEADLINE_IN_DRAIN, DEADLINE_IN_DRAIN)
    } else {
        (DEADLINE, HALF_CLOSED)
    };
    let deadline = seconds(deadline);
    let mut options = Options::new().drain(&seconds(DRAIN));
    for (cell, place) in cells {
        options = options.route(&cell.host(), &[&place.member]);
    }
    for name in [
        "head",
        "connect",
        "backend",
        "idle",
        "keep-alive",
        "body",
        "response",
        "pool-idle",
    ] {
        options = options.args(&[&format!("--{name}-deadline"), &deadline]);
    }
    options = options.args(&["--half-closed-deadline", &seconds(half_closed)]);
    let options = options.args(&["--connect-attempts", "1", "--eject-failures", "0"]);
    options
        .args(&["--log", "debug", "--log-format", "json"])
        .start()
}

fn live_through(cell: Cell, mut ends: Ends, proxy: &Proxy) -> Met {
    let began = Instant::now();
    let client = ends.client_address;
    let is_over = AtomicBool::new(false);
    let (seen, (outcome, after)) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            ends.misbehave();
            ends.watch(&is_over)
        });
        let ended = outcome_of(proxy, client, want(cell).by);
        let after = began.elapsed();
        // What the last packets say is with the other side by then.
        std::thread::sleep(SETTLED);
        is_over.store(true, Ordering::Relaxed);
        (watching.join().expect("sockets work"), (ended, after))
    });
    Met {
        cell,
        seen,
        outcome,
        after,
        _ends: ends,
    }
}

/// How the proxy says that the connection of a client ended; `None` when it does not for much longer
/// than it should take.
fn outcome_of(proxy: &Proxy, client: SocketAddr, by: Duration) -> Option<String> {
    let (address, port) = (client.ip(), client.port());
    let client = format!("\"client.address\":\"{address}\",\"client.port\":{port},");
    let until = Instant::now() + by + LATE;
    while Instant::now() < until {
        let said = proxy.stderr();
        let line = said
            .lines()
            .find(|line| line.contains(&client) && line.contains("pointsman::connection"));
        if let Some(line) = line {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            return line["message"].as_str().map(str::to_owned);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    None
}

#[test]
fn every_end_at_every_stage_of_every_kind() {
    let groups = Mutex::new(Group::all());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = groups.lock().unwrap().pop_front();
                    let Some(group) = next else { return };
                    let found = group.run();
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(
        faults.is_empty(),
        "{}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// 640 cells, of which these make sense; the others say why they do not.
#[test]
fn the_table_has_every_cell() {
    let cells: usize = Group::all()
        .into_iter()
        .map(|group| group.cells().len())
        .sum();
    assert_eq!(cells, 358);
}
