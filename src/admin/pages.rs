//! The pages of the admin endpoint, by path.

use std::fmt::{self, Write as _};

use serde_json::json;

use super::page::Page;
use super::process::ProcessState;
use super::{backend_pages, client_page, sync_pages};
use crate::cores::{ANSWER_TIMEOUT, statuses};
use crate::metrics::write_prometheus;
use crate::worker::CoreStatus;

/// The page at `path`. Only `/client` reads the query.
pub(super) async fn page(process: &ProcessState, path: &str, query: &str) -> Page {
    match path {
        "/metrics" => Page {
            status: "200 OK",
            // The version is part of the Prometheus text format's content type.
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics(process).await.expect("a String takes everything"),
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
            "There are /metrics, /status, /backends, /ready and /client.\n",
        ),
    }
}

fn ready(process: &ProcessState) -> Page {
    const AWAY: &str = "503 Service Unavailable";
    if process.draining.get() {
        Page::text(AWAY, "stopping\n")
    } else if process.is_serving() {
        Page::text("200 OK", "ready\n")
    } else {
        Page::text(AWAY, "waiting for the first routing table\n")
    }
}

async fn status(process: &ProcessState) -> serde_json::Value {
    let all = process.cores();
    let cores = statuses(&*all, ANSWER_TIMEOUT).await;
    let answered = |core: &usize| cores.iter().any(|status| status.core == *core);
    let mut silent = all.numbers();
    silent.retain(|core| !answered(core));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": process.collector.uptime().as_secs(),
        "ready": process.is_serving(),
        "draining": process.draining.get(),
        "cores": cores.iter().map(core).collect::<Vec<_>>(),
        "cores_without_answer": silent,
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

async fn metrics(process: &ProcessState) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let collector = &process.collector;
    collector.collect(ANSWER_TIMEOUT).await;
    collector.with_total(|total| write_prometheus(&mut out, total))?;
    writeln!(
        out,
        "# HELP pointsman_uptime_seconds Time since the start.\n\
         # TYPE pointsman_uptime_seconds gauge\n\
         pointsman_uptime_seconds {}",
        collector.uptime().as_secs_f64()
    )?;
    writeln!(
        out,
        "# HELP pointsman_log_lines_dropped_total Log lines that nobody read in time.\n\
         # TYPE pointsman_log_lines_dropped_total counter\n\
         pointsman_log_lines_dropped_total {}",
        (process.reports.dropped_lines)()
    )?;
    sync_pages::write_prometheus(&mut out, &(process.reports.sync)())?;
    backend_pages::write_prometheus(&mut out, &(process.reports.backends)())?;
    gauges(&mut out, &statuses(&*process.cores(), ANSWER_TIMEOUT).await)?;
    Ok(out)
}

/// Reads a number from the status of a core.
type Reading = fn(&CoreStatus) -> u64;

fn gauges(out: &mut String, cores: &[CoreStatus]) -> fmt::Result {
    let gauges: [(&str, &str, Reading); 8] = [
        ("live_connections", "Open client connections.", |core| {
            core.live as u64
        }),
        (
            "table_version",
            "Version of the core's routing table.",
            |core| core.table_version,
        ),
        (
            "ring_operations",
            "Operations held by the kernel.",
            |core| core.ring_operations as u64,
        ),
        ("deadlines", "Deadlines that are running.", |core| {
            core.deadlines as u64
        }),
        ("pipes_idle", "Splice pipes in the pool.", |core| {
            core.pipes_idle as u64
        }),
        ("pipes_out", "Splice pipes in use.", |core| {
            core.pipes_out as u64
        }),
        (
            "backends_idle",
            "Connections to backends that wait for a request.",
            |core| core.backends_idle as u64,
        ),
        ("listening", "1 while the core accepts.", |core| {
            core.listening.into()
        }),
    ];
    for (name, help, read) in gauges {
        writeln!(
            out,
            "# HELP pointsman_core_{name} {help}\n# TYPE pointsman_core_{name} gauge"
        )?;
        for core in cores {
            writeln!(
                out,
                "pointsman_core_{name}{{core=\"{}\"}} {}",
                core.core,
                read(core)
            )?;
        }
    }
    Ok(())
}
