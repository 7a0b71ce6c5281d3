//! The state of the sync thread, on `/status` and `/metrics`.

use std::fmt;

use serde_json::{Value, json};

use crate::metrics::Exposition;
use crate::sync::{ChangeDetection, RedisState, SyncStatus};

/// The `sync` part of `/status`.
pub(super) fn json(status: &SyncStatus) -> Value {
    json!({
        "redis": status.redis.name(),
        "mode": status.mode.map(ChangeDetection::name),
        "table_age_s": status.table_age.map(|age| age.as_secs_f64()),
        "version": status.version,
        "hosts": status.hosts,
        "backends": status.backends,
        "rejected_keys": status.rejected_keys,
        "rejected_members": status.rejected_members,
        "holding": status.holding,
        "snapshot_age_s": status.snapshot_age.map(|age| age.as_secs_f64()),
        "snapshot_error": status.snapshot_error,
        "routes_file_error": status.routes_file_error,
        "names_unresolved": status.names_unresolved,
        "names_failing": status.names_failing,
        "names_denied": status.names_denied,
    })
}

/// The metrics.
pub(super) fn write_metrics(out: &mut Exposition<'_>, status: &SyncStatus) -> fmt::Result {
    const STATES: [RedisState; 5] = [
        RedisState::Unused,
        RedisState::Connecting,
        RedisState::Loading,
        RedisState::Live,
        RedisState::Lost,
    ];
    let mut states = out.gauges(
        "redis_state",
        "1 for the state of the connection to Redis, 0 for the others.",
    )?;
    for state in STATES {
        states.add(&[("state", state.name())], u64::from(state == status.redis))?;
    }
    // A table that was never compared with Redis has no age.
    if let Some(age) = status.table_age {
        let help = "Time since the routing table was last known to equal Redis.";
        out.gauge("routing_table_age_seconds", help, age.as_secs_f64())?;
    }
    if let Some(age) = status.snapshot_age {
        let help = "Time since the snapshot was written. It is written when a route has changed.";
        out.gauge("snapshot_age_seconds", help, age.as_secs_f64())?;
    }
    let mut checks = out.counters("health_checks", "Health checks that were made, by result.")?;
    checks.add(&[("result", "success")], status.checks_good)?;
    checks.add(&[("result", "failure")], status.checks_bad)?;
    for (name, help, value) in gauges(status) {
        out.gauge(name, help, value)?;
    }
    Ok(())
}

/// Name, help and value of the metrics without labels.
fn gauges(status: &SyncStatus) -> [(&'static str, &'static str, u64); 10] {
    [
        (
            "routing_table_version",
            "Version of the newest routing table.",
            status.version,
        ),
        (
            "hosts",
            "Hosts and wildcards with a route.",
            status.hosts as u64,
        ),
        (
            "redis_rejected_keys",
            "Redis keys that make no route.",
            status.rejected_keys as u64,
        ),
        (
            "redis_rejected_members",
            "Redis members that are no backend and no option.",
            status.rejected_members as u64,
        ),
        (
            "redis_removals_held",
            "1 while the removal of many hosts at once is held back.",
            status.holding.into(),
        ),
        (
            "snapshot_write_failed",
            "1 while the snapshot cannot be written.",
            status.snapshot_error.is_some().into(),
        ),
        (
            "routes_file_rejected",
            "1 while the routes file has mistakes. Its old routes serve meanwhile.",
            status.routes_file_error.is_some().into(),
        ),
        (
            "dns_names_unresolved",
            "Backends' DNS names without an address: not resolved yet, failed, or with denied addresses \
             only.",
            status.names_unresolved as u64,
        ),
        (
            "dns_names_failing",
            "DNS names of backends whose last query failed.",
            status.names_failing as u64,
        ),
        (
            "dns_names_denied",
            "DNS names of backends whose last answer held addresses that no backend may have.",
            status.names_denied as u64,
        ),
    ]
}
