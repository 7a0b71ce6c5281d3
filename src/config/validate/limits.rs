//! The options that are limits and deadlines.

use std::num::NonZeroU32;

use super::validator::Validator;
use crate::config::error::Fault;
use crate::config::limits::Limits;
use crate::config::value;
use crate::health::EjectionRules;
use crate::protect::LimitSettings;

impl Validator<'_> {
    pub(super) fn limits(&self) -> Limits {
        let connect_deadline = self.duration("connect-deadline");
        let first_byte_deadline = self.optional_duration("first-byte-deadline");
        Limits {
            head_deadline: self.duration("head-deadline"),
            connect_deadline,
            first_byte_deadline: first_byte_deadline.unwrap_or(connect_deadline),
            connect_attempts: self.count("connect-attempts"),
            backend_deadline: self.duration("backend-deadline"),
            queue_max: self.count("queue"),
            queue_deadline: self.duration("queue-deadline"),
            eject: EjectionRules {
                consecutive_failures: self.count("eject-failures"),
                failure_percent: self.count("eject-share"),
                time: self.duration("eject-time"),
                time_max: self.duration("eject-time-max"),
            },
            idle_deadline: self.duration("idle-deadline"),
            tcp_keep_alive: self.duration("tcp-keep-alive"),
            half_closed_deadline: self.duration("half-closed-deadline"),
            hello_bytes_max: self.bytes("hello-bytes-max"),
            request_head_bytes_max: self.bytes("request-head-bytes-max"),
            backlog: self.count("backlog"),
            turn_bytes: self.bytes("turn-bytes"),
            pipe_bytes: self.bytes("pipe-bytes"),
            pipes_per_core: self.count("pipes-per-core") as usize,
            drain: self.duration("drain"),
            ring_entries: self.ring_entries(),
            keep_alive_deadline: self.duration("keep-alive-deadline"),
            body_deadline: self.duration("body-deadline"),
            response_deadline: self.duration("response-deadline"),
            response_head_bytes_max: self.bytes("response-head-bytes-max"),
            requests_per_connection_max: self.count("requests-per-connection-max"),
            pool_per_backend: self.count("pool-per-backend") as usize,
            pool_per_core: self.count("pool-per-core") as usize,
            pool_idle_deadline: self.duration("pool-idle-deadline"),
        }
    }

    pub(super) fn client_limits(&self) -> LimitSettings {
        let limit = |name| self.optional_count(name).and_then(NonZeroU32::new);
        let settings = LimitSettings {
            connections_max: limit("max-connections"),
            client_connections_max: limit("max-connections-per-client"),
            client_rate_max: limit("max-rate-per-client"),
            exempt: self.all("limit-exempt", value::network),
        };
        let limits = ["max-connections-per-client", "max-rate-per-client"];
        if self.is_set("limit-exempt") && !limits.iter().any(|name| self.is_set(name)) {
            let fault = Fault::new(
                "there is no limit per client",
                "add --max-connections-per-client or --max-rate-per-client, or leave limit-exempt out",
            );
            self.note("limit-exempt", fault);
        }
        settings
    }

    /// A power of two. The kernel would round any other number up without saying so.
    fn ring_entries(&self) -> u32 {
        let entries = self.count("ring-entries");
        if !entries.is_power_of_two() {
            let fault = Fault::new(
                format!("{entries} is no power of two"),
                format!("write {}", entries.next_power_of_two()),
            );
            self.note("ring-entries", fault);
        }
        entries
    }
}
