//! Latency dumps, which SIGUSR1 asks for. Each is written by a thread of its own, which shares nothing
//! with the rest of the process: a disk that hangs stops the dumps and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::latency_dir::LatencyDir;
use crate::cores::{ANSWER_TIMEOUT, Collector, OwnedDump};
use crate::metrics::{Dump, write_table};

/// A dump takes milliseconds. After this long the log says, once, that it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// How long the end of the process waits for a dump that is being written.
const LAST_DUMP_TIMEOUT: Duration = Duration::from_millis(500);

/// The task that dumps, one dump at a time.
pub(super) struct Dumps {
    requests: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Dumps {
    /// Starts the task, in the [`LocalSet`](tokio::task::LocalSet) of the caller. Without a directory
    /// dumps go to the log.
    pub(super) fn start(collector: Collector, latency_dir: Option<LatencyDir>) -> Dumps {
        let (requests, requested) = mpsc::channel(1);
        let task = spawn_local(serve(collector, latency_dir.map(Arc::new), requested));
        Dumps { requests, task }
    }

    /// Asks for a dump. While one request waits, further ones change nothing.
    pub(super) fn request(&self) {
        let _ = self.requests.try_send(());
    }

    /// Waits a moment for the dumps that were asked for.
    pub(super) async fn end(self) {
        drop(self.requests);
        if timeout(LAST_DUMP_TIMEOUT, self.task).await.is_err() {
            tracing::warn!(
                "the process ends before the latency dump of the last SIGUSR1 is written: the disk is too \
                 slow"
            );
        }
    }
}

async fn serve(
    collector: Collector,
    latency_dir: Option<Arc<LatencyDir>>,
    mut requested: mpsc::Receiver<()>,
) {
    while requested.recv().await.is_some() {
        let dump = Arc::new(collector.begin_dump(ANSWER_TIMEOUT).await);
        if let Err(error) = write_apart(dump.clone(), latency_dir.clone()).await {
            collector.dump_failed(&dump);
            tracing::error!(
                %error,
                "the latency dump failed, and the next SIGUSR1 writes its latencies as well; make room on \
                 the disk, or let this user write into latency-dir"
            );
        }
    }
}

/// Writes a dump on a thread of its own, which is abandoned if it never ends.
async fn write_apart(dump: Arc<OwnedDump>, latency_dir: Option<Arc<LatencyDir>>) -> io::Result<()> {
    let (done, mut written) = oneshot::channel();
    std::thread::Builder::new()
        .name(String::from("latency-dump"))
        .spawn(move || {
            let _ = done.send(write(&dump.as_dump(), latency_dir.as_deref()));
        })?;
    let ended = match timeout(HANGS_AFTER, &mut written).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!(
                "a latency dump is still being written after {} s: the disk of latency-dir hangs; SIGUSR1 \
                 has no effect until the dump is written",
                HANGS_AFTER.as_secs()
            );
            written.await
        }
    };
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes the dump panicked")))
}

fn write(dump: &Dump<'_>, latency_dir: Option<&LatencyDir>) -> io::Result<()> {
    let Some(directory) = latency_dir else {
        return log_table(dump);
    };
    let page = directory.write(dump)?;
    tracing::info!(file = %page.display(), "latencies dumped");
    Ok(())
}

fn log_table(dump: &Dump<'_>) -> io::Result<()> {
    let mut page = Vec::new();
    write_table(&mut page, dump)?;
    for line in String::from_utf8_lossy(&page).lines() {
        if !line.is_empty() {
            tracing::info!("{line}");
        }
    }
    Ok(())
}
