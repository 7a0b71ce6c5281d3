//! The state of the backends, on `/backends`, `/status` and `/metrics`: what their connections showed, and
//! what the health checks found.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::health::{Condition, HealthCheckState, Moment};
use crate::metrics::Exposition;
use crate::route::Backend;

/// The longest list that `/backends` shows. The page says how many are left out.
const ENTRIES_MAX: usize = 10_000;
/// How many backends have a series of their own. Prometheus keeps a series for weeks, also when its
/// backend is gone.
const SERIES_MAX: usize = 1000;
/// The state of a backend whose health checks fail.
const DOWN: &str = "down";
/// All states. Those but [`DOWN`] are conditions of passive health.
const STATES: [&str; 5] = ["up", "suspect", "ejected", "half-open", DOWN];

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
    let condition = backend.health().condition(now);
    let mut entry = json!({
        "backend": backend.text(),
        "condition": condition.name(),
        "live": backend.connections().count(),
        "checks": backend.health_checks().iter().map(|state| check(state, now)).collect::<Vec<_>>(),
    });
    if let Condition::Ejected(left) = condition {
        entry["ejected_for_ms"] = json!(left.as_millis() as u64);
    }
    entry
}

/// A health check. `since_ms` is null until its result has changed once, `latency_ms` until its first
/// answer, `cause` until its first failure.
fn check(state: &HealthCheckState, now: Moment) -> Value {
    let since = state.down_since().or(state.up_since());
    let name = state.check().name.clone().or(state.probed_as().name);
    let last = state.last_answer();
    json!({
        "check": state.check().kind.name(),
        "name": name,
        "up": state.is_up(),
        "since_ms": since.map(|since| now.since(since).as_millis() as u64),
        "cause": last.failure,
        "latency_ms": last.latency.map(|latency| latency.as_micros() as f64 / 1e3),
    })
}

/// The `backends` part of `/status`: the number of backends by state.
pub(super) fn summary(backends: &[Arc<Backend>]) -> Value {
    let survey = Survey::of(backends);
    let counts = STATES.iter().zip(survey.counts);
    let mut summary: Map<String, Value> = counts
        .map(|(state, count)| ((*state).to_owned(), json!(count)))
        .collect();
    summary.insert("checked".to_owned(), json!(survey.checked.len()));
    Value::Object(summary)
}

/// The metrics: the number of backends by state, and the state of each backend with a health check.
pub(super) fn write_metrics(out: &mut Exposition<'_>, backends: &[Arc<Backend>]) -> fmt::Result {
    let survey = Survey::of(backends);
    let help = "Backends in use by any route, by state; down: a health check fails.";
    let mut states = out.gauges("backends", help)?;
    for (state, count) in STATES.iter().zip(survey.counts) {
        states.add(&[("state", state)], count as u64)?;
    }
    if survey.checked.is_empty() {
        return Ok(());
    }
    let help = "1 while all health checks of the backend succeed.";
    let mut up = out.gauges("backend_up", help)?;
    for Checked { backend, is_up } in survey.checked.iter().take(SERIES_MAX) {
        up.add(&[("backend", backend.text())], u64::from(*is_up))?;
    }
    let left_out = survey.checked.len().saturating_sub(SERIES_MAX);
    let help = "Backends with a health check, but without a series of their own.";
    out.gauge("backend_up_left_out", help, left_out as u64)
}

/// The backends by state. Each is in one state; a failed health check goes before passive health.
struct Survey<'a> {
    /// In the order of [`STATES`].
    counts: [usize; STATES.len()],
    checked: Vec<Checked<'a>>,
}

/// A backend with a health check.
struct Checked<'a> {
    backend: &'a Backend,
    /// Whether all of its health checks succeed.
    is_up: bool,
}

impl Survey<'_> {
    fn of(backends: &[Arc<Backend>]) -> Survey<'_> {
        let now = Moment::of(Instant::now());
        let mut survey = Survey {
            counts: [0; STATES.len()],
            checked: Vec::new(),
        };
        for backend in backends {
            let checks = backend.health_checks();
            let is_up = checks.iter().all(|check| check.is_up());
            if !checks.is_empty() {
                survey.checked.push(Checked { backend, is_up });
            }
            let name = if is_up {
                backend.health().condition(now).name()
            } else {
                DOWN
            };
            let index = STATES.iter().position(|state| *state == name);
            survey.counts[index.expect("the list has every state")] += 1;
        }
        survey
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{CoreMetrics, Totals, page};
    use crate::route::{BackendIndex, HostOptions, Member, Registry, Route, RouteOptions};

    fn checked(registry: &mut Registry, members: &[String]) -> Arc<Route> {
        let endpoints: Vec<_> = members
            .iter()
            .map(|member| registry.endpoint(Member::parse(member).unwrap()))
            .collect();
        let mut host = HostOptions::default();
        host.set("check=tcp").unwrap();
        registry.route_with(endpoints, Some(RouteOptions { host, acme: None }))
    }

    fn prometheus(index: &BackendIndex) -> String {
        let backends = index.backends();
        page(vec![Box::new(move |out| write_metrics(out, &backends))])
    }

    #[test]
    fn only_checked_backends_have_a_series_and_so_many_at_most() {
        let index = BackendIndex::default();
        let mut registry = Registry::with_index(&index);
        let unchecked = registry.endpoint(Member::parse("192.0.2.1").unwrap());
        let _plain = registry.route([unchecked]);
        assert!(!prometheus(&index).contains("pointsman_backend_up"));
        let members: Vec<String> = (0..SERIES_MAX + 7)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        let route = checked(&mut registry, &members);
        let first = &route.health_checks()[0];
        first.set_up(false, Moment::of(Instant::now()));
        let text = prometheus(&index);
        assert_eq!(
            text.matches("pointsman_backend_up{backend=").count(),
            SERIES_MAX
        );
        let down = format!("backend=\"{}\"}} 0\n", route.backends()[0].text());
        assert!(text.contains(&down));
        assert!(text.contains("pointsman_backend_up_left_out 7\n"));
        assert!(!text.contains("192.0.2.1"));
        let summary = summary(&index.backends());
        assert_eq!(
            (&summary["down"], &summary["up"]),
            (&json!(1), &json!(1007))
        );
        assert_eq!(summary["checked"], 1007);
    }

    /// `metrics::exposition` has the figures of a release build; these bounds are for any build. To see
    /// them: `cargo test --release --lib -- a_page_of_1000 --nocapture`.
    #[test]
    fn a_page_of_1000_backends_costs_little() {
        let index = BackendIndex::default();
        let mut registry = Registry::with_index(&index);
        let members: Vec<String> = (0..SERIES_MAX)
            .map(|n| format!("10.0.{}.{}:8443", n / 256, n % 256))
            .collect();
        let _route = checked(&mut registry, &members);
        let backends = index.backends();
        let totals = Totals::of(&CoreMetrics::new());
        let sections = vec![Box::new(move |out: &mut Exposition<'_>| {
            totals.write(out)?;
            write_metrics(out, &backends)
        }) as _];
        let mut text = String::new();
        let began = Instant::now();
        let cost = allocation_counter::measure(|| text = page(sections));
        let took = began.elapsed();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        println!(
            "{series} series, {} bytes, {took:?}, {} allocations of {} bytes",
            text.len(),
            cost.count_total,
            cost.bytes_total
        );
        // One for each backend is the list of its checks.
        assert!(
            series > 1500 && cost.count_total < 1_100,
            "{series} series, {cost:?}"
        );
        assert!(took < Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn whatever_a_path_holds_its_label_stays_one() {
        let index = BackendIndex::default();
        let mut registry = Registry::with_index(&index);
        let _route = checked(&mut registry, &[r#"unix:/run/a"b\c"#.to_owned()]);
        let text = prometheus(&index);
        let series = r#"pointsman_backend_up{backend="unix:/run/a\"b\\c"} 1"#;
        assert!(text.lines().any(|line| line == series), "{text}");
    }

    #[test]
    fn a_page_that_is_cut_says_so() {
        let index = BackendIndex::default();
        let mut registry = Registry::with_index(&index);
        let members: Vec<String> = (0..ENTRIES_MAX + 3)
            .map(|n| format!("10.{}.{}.1", n / 256, n % 256))
            .collect();
        let _route = checked(&mut registry, &members);
        let page = json(&index.backends());
        assert_eq!(page["backends"].as_array().unwrap().len(), ENTRIES_MAX);
        assert_eq!(page["left_out"], 3);
    }
}
