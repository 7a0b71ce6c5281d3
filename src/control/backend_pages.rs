//! How the backends stand, for `/backends` and `/metrics`: what their connections tell, and what the
//! active checks found.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::route::{Backend, CheckState, Condition, Moment};

/// A page that an operator can still read; how many are left out is said.
const ENTRIES_MAX: usize = 10_000;

/// The page `/backends`.
pub(super) fn json(backends: &[Arc<Backend>]) -> Value {
    let now = Moment::of(Instant::now());
    let shown = backends.iter().take(ENTRIES_MAX);
    json!({
        "backends": shown.map(|backend| entry(backend, now)).collect::<Vec<_>>(),
        "left_out": backends.len().saturating_sub(ENTRIES_MAX),
    })
}

fn entry(backend: &Backend, now: Moment) -> Value {
    let condition = backend.vitals().condition(now);
    let mut entry = json!({
        "backend": backend.text(),
        "condition": condition.name(),
        "live": backend.vitals().live(),
        "checks": backend.checks().iter().map(|state| check(state, now)).collect::<Vec<_>>(),
    });
    if let Condition::Ejected(left) = condition {
        entry["ejected_for_ms"] = json!(left.as_millis() as u64);
    }
    entry
}

/// `since_ms` is null while the verdict is that of the beginning, `latency_ms` before the first answer,
/// `cause` as long as none was bad.
fn check(state: &CheckState, now: Moment) -> Value {
    let since = state.down_since().or(state.back_since());
    let asked_as = state.check.name.clone().or(state.asked_as().name);
    let last = state.last();
    json!({
        "check": state.check.kind.name(),
        "name": asked_as,
        "up": state.is_up(),
        "since_ms": since.map(|since| now.since(since).as_millis() as u64),
        "cause": last.cause,
        "latency_ms": last.latency.map(|latency| latency.as_micros() as f64 / 1e3),
    })
}

/// As gauges: each backend is in one state, the one that matters most to a choice.
pub(super) fn write_prometheus(out: &mut impl Write, backends: &[Arc<Backend>]) -> fmt::Result {
    const STATES: [&str; 5] = ["up", "suspect", "ejected", "trial", "down"];
    let now = Moment::of(Instant::now());
    let mut counts = [0_usize; STATES.len()];
    for backend in backends {
        let name = match backend.checks().iter().all(|check| check.is_up()) {
            true => backend.vitals().condition(now).name(),
            false => "down",
        };
        let index = STATES.iter().position(|state| *state == name);
        counts[index.expect("the list has every state")] += 1;
    }
    writeln!(
        out,
        "# HELP pointsman_backend_state Backends by state; down: an active check says so.\n\
         # TYPE pointsman_backend_state gauge"
    )?;
    for (state, count) in STATES.iter().zip(counts) {
        writeln!(out, "pointsman_backend_state{{state=\"{state}\"}} {count}")?;
    }
    Ok(())
}
