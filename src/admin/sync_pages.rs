//! How the sync thread stands, for `/status` and `/metrics`.

use std::fmt::{self, Write};

use serde_json::{Value, json};

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

/// The same as gauges.
pub(super) fn write_prometheus(out: &mut impl Write, status: &SyncStatus) -> fmt::Result {
    const STATES: [RedisState; 5] = [
        RedisState::Unused,
        RedisState::Connecting,
        RedisState::Loading,
        RedisState::Live,
        RedisState::Lost,
    ];
    head(out, "redis_state", "1 for the state that Redis is in.")?;
    for state in STATES {
        let is = u8::from(state == status.redis);
        writeln!(
            out,
            "pointsman_redis_state{{state=\"{}\"}} {is}",
            state.name()
        )?;
    }
    // Without a table that Redis has confirmed there is no age, and 0 would be a lie.
    if let Some(age) = status.table_age {
        head(
            out,
            "table_age_seconds",
            "Since the table was last known to be what Redis has.",
        )?;
        writeln!(out, "pointsman_table_age_seconds {}", age.as_secs_f64())?;
    }
    if let Some(age) = status.snapshot_age {
        head(
            out,
            "snapshot_age_seconds",
            "Since the snapshot was written, which is when something has changed.",
        )?;
        writeln!(out, "pointsman_snapshot_age_seconds {}", age.as_secs_f64())?;
    }
    let gauges = [
        (
            "table_version",
            "Version of the newest routing table.",
            status.version,
        ),
        (
            "hosts",
            "Names and wildcards with a route.",
            status.hosts as u64,
        ),
        (
            "backends",
            "Backends in use by any route.",
            status.backends as u64,
        ),
        (
            "rejected_keys",
            "Redis keys that give no usable route.",
            status.rejected_keys as u64,
        ),
        (
            "rejected_members",
            "Redis members that are skipped.",
            status.rejected_members as u64,
        ),
        (
            "holding",
            "1 while the removal of many hosts is held back.",
            status.holding.into(),
        ),
        (
            "snapshot_write_failed",
            "1 while the snapshot cannot be written.",
            status.snapshot_error.is_some().into(),
        ),
        (
            "routes_file_rejected",
            "1 while the routes file is rejected and its old routes serve.",
            status.routes_file_error.is_some().into(),
        ),
        (
            "names_unresolved",
            "DNS names that have no address: not asked for yet, not answered, or with none that a backend may have.",
            status.names_unresolved as u64,
        ),
        (
            "names_failing",
            "DNS names whose last question failed.",
            status.names_failing as u64,
        ),
        (
            "names_denied",
            "DNS names whose last answer had addresses where no backend may be.",
            status.names_denied as u64,
        ),
    ];
    writeln!(
        out,
        "# HELP pointsman_checks_total Answers to active checks.\n\
         # TYPE pointsman_checks_total counter"
    )?;
    for (result, count) in [("good", status.checks_good), ("bad", status.checks_bad)] {
        writeln!(out, "pointsman_checks_total{{result=\"{result}\"}} {count}")?;
    }
    for (name, help, value) in gauges {
        head(out, name, help)?;
        writeln!(out, "pointsman_{name} {value}")?;
    }
    Ok(())
}

fn head(out: &mut impl Write, name: &str, help: &str) -> fmt::Result {
    writeln!(
        out,
        "# HELP pointsman_{name} {help}\n# TYPE pointsman_{name} gauge"
    )
}
