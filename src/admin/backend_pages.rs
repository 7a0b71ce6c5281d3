//! How the backends stand, for `/backends`, `/status` and `/metrics`: what their connections tell, and what the
//! active checks found.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::route::{Backend, CheckState, Condition, Moment};

/// A page that an operator can still read; how many are left out is said.
const ENTRIES_MAX: usize = 10_000;
/// Series of single backends: each is kept by Prometheus for weeks, and names come and go.
const SERIES_MAX: usize = 1000;
const DOWN: &str = "down";
const STATES: [&str; 5] = ["up", "suspect", "ejected", "trial", DOWN];

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

/// The `backends` part of `/status`: how many are in which state.
pub(super) fn summary(backends: &[Arc<Backend>]) -> Value {
    let survey = Survey::of(backends);
    let counts = STATES.iter().zip(survey.counts);
    let mut summary: Map<String, Value> = counts
        .map(|(state, count)| ((*state).to_owned(), json!(count)))
        .collect();
    summary.insert("checked".to_owned(), json!(survey.checked.len()));
    Value::Object(summary)
}

/// As gauges: how many are in which state, and each one that is checked.
pub(super) fn write_prometheus(out: &mut impl Write, backends: &[Arc<Backend>]) -> fmt::Result {
    let survey = Survey::of(backends);
    writeln!(
        out,
        "# HELP pointsman_backend_state Backends by state; down: an active check says so.\n\
         # TYPE pointsman_backend_state gauge"
    )?;
    for (state, count) in STATES.iter().zip(survey.counts) {
        writeln!(out, "pointsman_backend_state{{state=\"{state}\"}} {count}")?;
    }
    if survey.checked.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "# HELP pointsman_backend_up 1 while all active checks of the backend say so.\n\
         # TYPE pointsman_backend_up gauge"
    )?;
    for (backend, is_up) in survey.checked.iter().take(SERIES_MAX) {
        let (backend, up) = (label(backend.text()), u8::from(*is_up));
        writeln!(out, "pointsman_backend_up{{backend=\"{backend}\"}} {up}")?;
    }
    writeln!(
        out,
        "# HELP pointsman_backend_up_left_out Checked backends without a series of their own.\n\
         # TYPE pointsman_backend_up_left_out gauge\n\
         pointsman_backend_up_left_out {}",
        survey.checked.len().saturating_sub(SERIES_MAX)
    )
}

/// Each backend is in one state, the one that matters most to a choice.
struct Survey<'a> {
    counts: [usize; STATES.len()],
    /// Those with an active check, and whether all of theirs say that they are up.
    checked: Vec<(&'a Backend, bool)>,
}

impl Survey<'_> {
    fn of(backends: &[Arc<Backend>]) -> Survey<'_> {
        let now = Moment::of(Instant::now());
        let mut survey = Survey {
            counts: [0; STATES.len()],
            checked: Vec::new(),
        };
        for backend in backends {
            let checks = backend.checks();
            let is_up = checks.iter().all(|check| check.is_up());
            if !checks.is_empty() {
                survey.checked.push((backend, is_up));
            }
            let name = if is_up {
                backend.vitals().condition(now).name()
            } else {
                DOWN
            };
            let index = STATES.iter().position(|state| *state == name);
            survey.counts[index.expect("the list has every state")] += 1;
        }
        survey
    }
}

/// A value as the Prometheus text format quotes it. A member's path may hold anything.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{HostOptions, Registry, Roster, Route, RouteOptions};

    fn checked(registry: &mut Registry, members: &[String]) -> Arc<Route> {
        let seats: Vec<_> = members
            .iter()
            .map(|member| registry.seat(member).unwrap())
            .collect();
        let mut said = HostOptions::default();
        said.read("check=tcp").unwrap();
        registry.route_with(seats, Some(RouteOptions { said, acme: None }))
    }

    fn prometheus(roster: &Roster) -> String {
        let mut out = String::new();
        write_prometheus(&mut out, &roster.backends()).unwrap();
        out
    }

    #[test]
    fn only_checked_backends_have_a_series_and_so_many_at_most() {
        let roster = Roster::default();
        let mut registry = Registry::listed_in(&roster);
        let unchecked = registry.seat("192.0.2.1").unwrap();
        let _plain = registry.route([unchecked]);
        assert!(!prometheus(&roster).contains("pointsman_backend_up"));
        let members: Vec<String> = (0..SERIES_MAX + 7)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        let route = checked(&mut registry, &members);
        let first = &route.checks()[0];
        first.set_up(false, Moment::of(Instant::now()));
        let text = prometheus(&roster);
        assert_eq!(
            text.matches("pointsman_backend_up{backend=").count(),
            SERIES_MAX
        );
        let down = format!("backend=\"{}\"}} 0\n", first.backend.text());
        assert!(text.contains(&down));
        assert!(text.contains("pointsman_backend_up_left_out 7\n"));
        assert!(!text.contains("192.0.2.1"));
        let summary = summary(&roster.backends());
        assert_eq!(
            (&summary["down"], &summary["up"]),
            (&json!(1), &json!(1007))
        );
        assert_eq!(summary["checked"], 1007);
    }

    #[test]
    fn whatever_a_path_holds_its_label_stays_one() {
        let roster = Roster::default();
        let mut registry = Registry::listed_in(&roster);
        let _route = checked(&mut registry, &[r#"unix:/run/a"b\c"#.to_owned()]);
        let text = prometheus(&roster);
        let series = r#"pointsman_backend_up{backend="unix:/run/a\"b\\c"} 1"#;
        assert!(text.lines().any(|line| line == series), "{text}");
        assert_eq!(label("a\nb"), "a\\nb");
    }

    #[test]
    fn a_page_that_is_cut_says_so() {
        let roster = Roster::default();
        let mut registry = Registry::listed_in(&roster);
        let members: Vec<String> = (0..ENTRIES_MAX + 3)
            .map(|n| format!("10.{}.{}.1", n / 256, n % 256))
            .collect();
        let _route = checked(&mut registry, &members);
        let page = json(&roster.backends());
        assert_eq!(page["backends"].as_array().unwrap().len(), ENTRIES_MAX);
        assert_eq!(page["left_out"], 3);
    }
}
