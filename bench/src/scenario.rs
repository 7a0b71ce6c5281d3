//! What is measured: the load of each scenario and what counts as its unit of work.

use std::rc::Rc;

use serde::Serialize;

use crate::hello::{CLASSIC_BYTES, POST_QUANTUM_BYTES, client_hello};
use crate::load::{Act, Group, REQUEST_BYTES, Service};
use crate::peer::Listening;

/// Connections opened at the same time by the scenarios of new connections and of HTTP close.
const CONNECTING: usize = 64;
/// Bulk of the held scenario, all streams together, in bytes per second: every peer but sniproxy
/// can carry it, so all are asked to do the same work.
const HELD_BYTES_PER_SECOND: f64 = 1e9;
/// Requests per second of the open loop: about a third of what one core carries.
const OPEN_LOOP_RATE: f64 = 15_000.0;

/// The scenario of the 2013 program that pointsman descends from, as its author measured it.
pub const SEED: &str = "seed";
const SEED_CONCURRENCY: usize = 100;
const SEED_REQUESTS: u64 = 1_000;

/// Large routing tables, see [`crate::routes`].
pub const ROUTES: &str = "routes";

/// New connections whose backend is told of its client, see [`Scenario::compared_with`].
pub const PROXY: &str = "connect-proxy";
/// The name of the same proxy in that scenario when it sends no header.
pub const NO_HEADER: &str = "no-header";

/// Large bodies, compared with the same proxy's bulk behind a hello.
pub const HTTP_DOWN: &str = "http-down-1";
pub const HTTP_DOWN_CHUNKED: &str = "http-down-chunked";
/// The name of the same proxy in those scenarios when it relays a TLS connection.
pub const TLS_DOWN: &str = "tls-down";

/// One unit of work, by which processor time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    Connection,
    Exchange,
    Request,
    Gibibyte,
    /// Of the window: for loads that are the same for every proxy, or have no single unit.
    Second,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Connection => "connection",
            Unit::Exchange => "exchange",
            Unit::Request => "request",
            Unit::Gibibyte => "GiB",
            Unit::Second => "second",
        }
    }
}

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub listening: Listening,
    pub unit: Unit,
    /// Bytes per second of each download stream; `None`: no limit.
    pub bulk_rate: Option<f64>,
    /// Groups of clients and the service each asks for.
    pub groups: Vec<(Service, Group)>,
}

impl Scenario {
    pub fn is_bulk(&self) -> bool {
        let mut services = self.groups.iter().map(|(service, _)| service);
        services.any(|service| matches!(service, Service::Down | Service::Up))
    }

    pub fn connections(&self) -> usize {
        self.groups.iter().map(|(_, group)| group.connections).sum()
    }

    /// The load that the same proxy's cost is compared with, in the same round because rounds drift,
    /// and its name there: a backend that wants no PROXY header; bulk behind a hello.
    pub fn compared_with(&self) -> Option<(Scenario, &'static str)> {
        let (listening, groups, name) = match self.name {
            PROXY => {
                let groups = vec![connect_to(Service::Small, CLASSIC_BYTES)];
                (self.listening, groups, NO_HEADER)
            }
            HTTP_DOWN | HTTP_DOWN_CHUNKED => {
                let groups = vec![tls(Service::Down, Act::Receive, 1, CLASSIC_BYTES)];
                (Listening::Tls, groups, TLS_DOWN)
            }
            _ => return None,
        };
        let scenario = Scenario {
            listening,
            groups,
            ..self.clone()
        };
        Some((scenario, name))
    }
}

fn tls(service: Service, act: Act, connections: usize, hello_bytes: usize) -> (Service, Group) {
    let group = Group {
        act,
        connections,
        opening: client_hello(service.host(), hello_bytes).into(),
        request: vec![0x17; REQUEST_BYTES].into(),
        http: false,
        rate: None,
        answers_max: None,
    };
    (service, group)
}

fn connect_to(service: Service, hello_bytes: usize) -> (Service, Group) {
    tls(service, Act::Connect, CONNECTING, hello_bytes)
}

/// Clients of an HTTP service with a request as a browser's library sends it.
pub fn http(service: Service, act: Act, connections: usize) -> (Service, Group) {
    let request: Rc<[u8]> = format!(
        "GET /assets/app.js HTTP/1.1\r\nHost: {}\r\nUser-Agent: pointsman-bench\r\nAccept: \
         */*\r\nAccept-Encoding: gzip, br\r\n{}\r\n",
        service.host(),
        if act == Act::Connect {
            "Connection: close\r\n"
        } else {
            ""
        },
    )
    .into_bytes()
    .into();
    let group = Group {
        act,
        connections,
        opening: request.clone(),
        request,
        http: true,
        rate: None,
        answers_max: None,
    };
    (service, group)
}

/// New connections from clients that each ask for a name of their own.
pub fn connecting(clients: usize, name: impl Fn(usize) -> String) -> Vec<Group> {
    let group = |client| Group {
        opening: client_hello(&name(client), CLASSIC_BYTES).into(),
        connections: 1,
        ..tls(Service::Small, Act::Connect, 1, CLASSIC_BYTES).1
    };
    (0..clients).map(group).collect()
}

fn window(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    groups: Vec<(Service, Group)>,
) -> Scenario {
    let listening = if groups.iter().any(|(service, _)| service.is_http()) {
        Listening::Http
    } else {
        Listening::Tls
    };
    Scenario {
        name,
        title,
        listening,
        unit,
        bulk_rate: None,
        groups,
    }
}

/// Every scenario, in the order of the report.
pub fn all() -> Vec<Scenario> {
    let mut scenarios = [of_small_messages(), of_streams(), of_http()].concat();
    for scenario in &mut scenarios {
        match scenario.name {
            "mixed-held" => scenario.bulk_rate = Some(HELD_BYTES_PER_SECOND / 4.0),
            SEED => scenario.groups[0].1.answers_max = Some(SEED_REQUESTS),
            "exchange-open" => scenario.groups[0].1.rate = Some(OPEN_LOOP_RATE),
            _ => {}
        }
    }
    scenarios
}

fn small(connections: usize) -> Vec<(Service, Group)> {
    let act = Act::Exchange;
    vec![tls(Service::Small, act, connections, CLASSIC_BYTES)]
}

fn connect(hello_bytes: usize) -> Vec<(Service, Group)> {
    vec![connect_to(Service::Small, hello_bytes)]
}

fn of_small_messages() -> Vec<Scenario> {
    vec![
        window(
            "connect",
            "new connections, 517-byte hello",
            Unit::Connection,
            connect(CLASSIC_BYTES),
        ),
        window(
            "connect-pq",
            "new connections, 1,800-byte hello",
            Unit::Connection,
            connect(POST_QUANTUM_BYTES),
        ),
        window(
            PROXY,
            "new connections, 517-byte hello, with a PROXY v2 header to the backend",
            Unit::Connection,
            vec![connect_to(Service::Proxied, CLASSIC_BYTES)],
        ),
        window(
            "exchange-1",
            "small exchanges, 1 connection",
            Unit::Exchange,
            small(1),
        ),
        window(
            "exchange-64",
            "small exchanges, 64 connections",
            Unit::Exchange,
            small(64),
        ),
        window(
            "exchange-1000",
            "small exchanges, 1,000 connections",
            Unit::Exchange,
            small(1_000),
        ),
        window(
            "exchange-open",
            "small exchanges, 64 connections, 15,000 a second (open loop)",
            Unit::Exchange,
            small(64),
        ),
    ]
}

fn of_streams() -> Vec<Scenario> {
    let down = |streams| vec![tls(Service::Down, Act::Receive, streams, CLASSIC_BYTES)];
    let up = |streams| vec![tls(Service::Up, Act::Send, streams, CLASSIC_BYTES)];
    let hold = |connections| tls(Service::Small, Act::Hold, connections, CLASSIC_BYTES);
    let mixed = || [down(4), small(16)].concat();
    vec![
        window("down-1", "bulk down, 1 stream", Unit::Gibibyte, down(1)),
        window("down-8", "bulk down, 8 streams", Unit::Gibibyte, down(8)),
        window("up-1", "bulk up, 1 stream", Unit::Gibibyte, up(1)),
        window("up-8", "bulk up, 8 streams", Unit::Gibibyte, up(8)),
        // The exchanges follow each other as fast as the proxy allows, so its processor is always full;
        // what differs is how many it does beside the same bulk.
        window(
            "mixed-held",
            "4 bulk streams held at 1 GB/s together, 16 small exchanges",
            Unit::Exchange,
            mixed(),
        ),
        window(
            "mixed-free",
            "4 bulk streams, 16 small exchanges",
            Unit::Second,
            mixed(),
        ),
        window(
            "idle",
            "5,000 idle connections",
            Unit::Second,
            vec![hold(256), hold(5_000)],
        ),
    ]
}

fn of_http() -> Vec<Scenario> {
    vec![
        window(
            "http-keep",
            "HTTP, connections kept, 64 at once",
            Unit::Request,
            vec![http(Service::Keep, Act::Exchange, 64)],
        ),
        window(
            "http-close",
            "HTTP, a connection per request, 64 at once",
            Unit::Request,
            vec![http(Service::Close, Act::Connect, CONNECTING)],
        ),
        window(
            HTTP_DOWN,
            "HTTP, one large body of known length",
            Unit::Gibibyte,
            vec![http(Service::HttpDown, Act::Receive, 1)],
        ),
        window(
            HTTP_DOWN_CHUNKED,
            "HTTP, one large body in chunks of 256 KiB",
            Unit::Gibibyte,
            vec![http(Service::HttpDownChunked, Act::Receive, 1)],
        ),
        window(
            SEED,
            "the seed's scenario: three slow backends, against one alone without a proxy",
            Unit::Request,
            vec![http(Service::Seed(0), Act::Connect, SEED_CONCURRENCY)],
        ),
        window(
            ROUTES,
            "new connections with 1,000, 100,000 and 1,000,000 hosts out of Redis",
            Unit::Connection,
            connect(CLASSIC_BYTES),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = all().iter().map(|scenario| scenario.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
