//! The options that are limits and deadlines.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::validator::Validator;
use crate::config::error::Fault;
use crate::config::limits::Limits;
use crate::config::value::{self, DAY, HOUR, MILLISECOND};
use crate::protect::LimitSettings;
use crate::route::EjectRules;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Validator<'_> {
    pub(super) fn limits(&self) -> Limits {
        let duration = |name, range: RangeInclusive<Duration>| {
            self.value(name, |text| value::duration(text, range.clone()))
        };
        let count = |name, range: RangeInclusive<u32>| {
            self.value(name, |text| value::count(text, range.clone()))
        };
        let bytes = |name, range: RangeInclusive<usize>| {
            self.value(name, |text| value::bytes(text, range.clone()))
        };
        let connect_deadline = duration("connect-deadline", MILLISECOND..=HOUR);
        let first_byte_deadline = self.optional("first-byte-deadline", |text| {
            value::duration(text, MILLISECOND..=HOUR)
        });
        Limits {
            head_deadline: duration("head-deadline", MILLISECOND..=HOUR),
            connect_deadline,
            first_byte_deadline: first_byte_deadline.unwrap_or(connect_deadline),
            connect_attempts: count("connect-attempts", 1..=16),
            backend_deadline: duration("backend-deadline", MILLISECOND..=HOUR),
            queue_max: count("queue", 0..=65_536),
            queue_deadline: duration("queue-deadline", MILLISECOND..=HOUR),
            eject: EjectRules {
                failures: count("eject-failures", 0..=1_000),
                share_percent: count("eject-share", 1..=100),
                time: duration("eject-time", 10 * MILLISECOND..=HOUR),
                time_max: duration("eject-time-max", 10 * MILLISECOND..=DAY),
            },
            idle_deadline: duration("idle-deadline", MILLISECOND..=30 * DAY),
            // The kernel takes 32,767 s at most.
            tcp_keep_alive: duration("tcp-keep-alive", Duration::ZERO..=9 * HOUR),
            half_closed_deadline: duration("half-closed-deadline", MILLISECOND..=30 * DAY),
            // Below a kibibyte no real hello fits; above a mebibyte one connection's head costs
            // more than thousands of others.
            hello_bytes_max: bytes("hello-bytes-max", KIB..=MIB),
            request_head_bytes_max: bytes("request-head-bytes-max", KIB..=MIB),
            // More than 65,535 waiting clients would have given up before their turn.
            backlog: count("backlog", 1..=65_535),
            turn_bytes: bytes("turn-bytes", 16 * KIB..=64 * MIB),
            // One page at least; the largest pipe the kernel makes for root by default settings
            // is far below the upper bound.
            pipe_bytes: bytes("pipe-bytes", 4 * KIB..=64 * MIB),
            pipes_per_core: count("pipes-per-core", 0..=65_536) as usize,
            drain: duration("drain", Duration::ZERO..=DAY),
            ring_entries: self.value("ring-entries", ring_entries),
            keep_alive_deadline: duration("keep-alive-deadline", MILLISECOND..=DAY),
            body_deadline: duration("body-deadline", MILLISECOND..=DAY),
            response_deadline: duration("response-deadline", MILLISECOND..=DAY),
            response_head_bytes_max: bytes("response-head-bytes-max", KIB..=MIB),
            requests_per_connection_max: count("requests-per-connection-max", 1..=u32::MAX),
            pool_per_backend: count("pool-per-backend", 0..=65_536) as usize,
            pool_per_core: count("pool-per-core", 0..=1_048_576) as usize,
            pool_idle_deadline: duration("pool-idle-deadline", MILLISECOND..=DAY),
        }
    }

    pub(super) fn client_limits(&self) -> LimitSettings {
        let limit = |name, max| {
            let count = self.optional(name, |text| value::count(text, 1..=max));
            count.and_then(NonZeroU32::new)
        };
        let settings = LimitSettings {
            connections_max: limit("max-connections", u32::MAX),
            client_connections_max: limit("max-connections-per-client", 1_000_000),
            client_rate_max: limit("max-rate-per-client", 1_000_000),
            exempt: self.all("limit-exempt", value::network),
        };
        let limits = ["max-connections-per-client", "max-rate-per-client"];
        if self.is_set("limit-exempt") && !limits.iter().any(|name| self.is_set(name)) {
            let fault = Fault::new(
                "there is no limit to be exempt from",
                "add --max-connections-per-client or --max-rate-per-client, or leave limit-exempt out",
            );
            self.note("limit-exempt", fault);
        }
        settings
    }
}

/// The kernel would round up in silence; a power of two says what one gets.
fn ring_entries(text: &str) -> Result<u32, Fault> {
    // 32768 is IORING_MAX_ENTRIES.
    let entries = value::count(text, 8..=32_768)?;
    if entries.is_power_of_two() {
        return Ok(entries);
    }
    Err(Fault::new(
        format!("{entries} is no power of two"),
        format!("write {}", entries.next_power_of_two()),
    ))
}
