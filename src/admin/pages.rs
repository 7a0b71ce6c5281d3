//! The pages of the admin endpoint, by path.

use std::fmt;

use serde_json::json;

use super::page::Page;
use super::process::ProcessState;
use super::{backend_pages, client_page, sync_pages};
use crate::cores::{ANSWER_TIMEOUT, statuses};
use crate::metrics::{self, CONTENT_TYPE, Exposition, Totals};
use crate::worker::CoreStatus;

/// The page at `path`. Only `/client` reads the query.
pub(super) async fn page(process: &ProcessState, path: &str, query: &str) -> Page {
    match path {
        "/metrics" => Page {
            status: "200 OK",
            content_type: CONTENT_TYPE,
            body: metrics(process).await,
        },
        "/status" => Page {
            status: "200 OK",
            content_type: "application/json",
            body: format!("{:#}\n", status(process).await),
        },
        "/backends" => Page {
            status: "200 OK",
            content_type: "application/json",
            body: format!("{:#}\n", backend_pages::json(&(process.reports.backends)())),
        },
        "/ready" => ready(process),
        "/client" => client_page::page(process, query).await,
        _ => Page::text(
            "404 Not Found",
            "The pages are /metrics, /status, /backends, /ready and /client.\n",
        ),
    }
}

fn ready(process: &ProcessState) -> Page {
    const UNAVAILABLE: &str = "503 Service Unavailable";
    if process.draining.get() {
        Page::text(UNAVAILABLE, "stopping\n")
    } else if process.is_serving() {
        Page::text("200 OK", "ready\n")
    } else {
        Page::text(UNAVAILABLE, "waiting for the first routing table\n")
    }
}

async fn status(process: &ProcessState) -> serde_json::Value {
    let all = process.cores();
    let cores = statuses(&*all, ANSWER_TIMEOUT).await;
    let has_answered = |core: &usize| cores.iter().any(|status| status.core == *core);
    let mut without_answer = all.numbers();
    without_answer.retain(|core| !has_answered(core));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": process.collector.uptime().as_secs(),
        "ready": process.is_serving(),
        "draining": process.draining.get(),
        "cores": cores.iter().map(core).collect::<Vec<_>>(),
        "cores_without_answer": without_answer,
        "backends": backend_pages::summary(&(process.reports.backends)()),
        "sync": sync_pages::json(&(process.reports.sync)()),
        "log_lines_dropped": (process.reports.dropped_lines)(),
    })
}

fn core(status: &CoreStatus) -> serde_json::Value {
    json!({
        "core": status.core,
        "table_version": status.table_version,
        "live": status.live,
        "ring_operations": status.ring_operations,
        "deadlines": status.deadlines,
        "pipes_idle": status.pipes_idle,
        "pipes_out": status.pipes_out,
        "backends_idle": status.backends_idle,
        "listening": status.listening,
    })
}

async fn metrics(process: &ProcessState) -> String {
    let collector = &process.collector;
    collector.collect(ANSWER_TIMEOUT).await;
    let totals = collector.with_total(Totals::of);
    let uptime_s = collector.uptime().as_secs_f64();
    let dropped_lines = (process.reports.dropped_lines)();
    let sync = (process.reports.sync)();
    let backends = (process.reports.backends)();
    let cores = statuses(&*process.cores(), ANSWER_TIMEOUT).await;
    metrics::page(vec![
        Box::new(move |out| totals.write(out)),
        Box::new(move |out| {
            out.gauge("uptime_seconds", "Time since the start.", uptime_s)?;
            let help = "Log lines that were dropped because standard error was not read in time.";
            out.counter("log_lines_dropped", help, dropped_lines)
        }),
        Box::new(move |out| sync_pages::write_metrics(out, &sync)),
        Box::new(move |out| backend_pages::write_metrics(out, &backends)),
        Box::new(move |out| write_cores(out, &cores)),
    ])
}

/// Reads a number from the status of a core.
type Reading = fn(&CoreStatus) -> u64;

fn write_cores(out: &mut Exposition<'_>, cores: &[CoreStatus]) -> fmt::Result {
    let readings: [(&str, &str, Reading); 6] = [
        (
            "core_open_connections",
            "Open client connections.",
            |core| core.live as u64,
        ),
        (
            "core_routing_table_version",
            "Version of the core's routing table.",
            |core| core.table_version,
        ),
        (
            "core_ring_operations",
            "Operations of the ring that the kernel has not completed.",
            |core| core.ring_operations as u64,
        ),
        (
            "core_deadlines",
            "Deadlines that have not passed yet.",
            |core| core.deadlines as u64,
        ),
        (
            "core_upstream_connections_idle",
            "Idle connections to backends.",
            |core| core.backends_idle as u64,
        ),
        ("core_accepting", "1 while the core accepts.", |core| {
            core.listening.into()
        }),
    ];
    let numbers: Vec<String> = cores.iter().map(|core| core.core.to_string()).collect();
    for (name, help, read) in readings {
        let mut gauges = out.gauges(name, help)?;
        for (core, number) in cores.iter().zip(&numbers) {
            gauges.add(&[("core", number)], read(core))?;
        }
    }
    let mut pipes = out.gauges("core_pipes", "Splice pipes of the core, by their state.")?;
    for (core, number) in cores.iter().zip(&numbers) {
        pipes.add(
            &[("core", number), ("state", "idle")],
            core.pipes_idle as u64,
        )?;
        pipes.add(
            &[("core", number), ("state", "in_use")],
            core.pipes_out as u64,
        )?;
    }
    Ok(())
}
