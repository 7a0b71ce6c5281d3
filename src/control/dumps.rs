//! Dumps of what was measured, for SIGUSR1. Each is written on a thread of its own that holds
//! nothing of the process: a disk that hangs costs dumps and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::latency_dir::LatencyDir;
use crate::cores::{ANSWER_TIMEOUT, Collector, OwnedDump};
use crate::metrics::{Dump, write_table};

/// A dump takes milliseconds. One that takes this long is said to hang, once.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// What a dump that is under way gets at the end of the process.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// Asks for dumps, one at a time.
pub(super) struct Dumps {
    requests: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Dumps {
    /// To be called where local tasks can be spawned. Without a directory a dump goes to the log.
    pub(super) fn start(collector: Collector, latency_dir: Option<LatencyDir>) -> Dumps {
        let (requests, requested) = mpsc::channel(1);
        let task = spawn_local(serve(collector, latency_dir.map(Arc::new), requested));
        Dumps { requests, task }
    }

    /// Asks for one dump. Requests that come while one waits are the same request.
    pub(super) fn request(&self) {
        let _ = self.requests.try_send(());
    }

    /// Lets the dumps that were asked for come to their end, if that is soon.
    pub(super) async fn end(self) {
        drop(self.requests);
        if timeout(LAST_PATIENCE, self.task).await.is_err() {
            tracing::warn!(
                "the latencies of the last SIGUSR1 are not written: its file takes too long"
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
                "latencies could not be dumped and are kept for the next SIGUSR1; make room or let this user write into latency-dir"
            );
        }
    }
}

/// Writes on a thread of its own, which is left behind when it never ends.
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
                "a dump of latencies is still being written after {} s: the disk under latency-dir hangs; until it is back SIGUSR1 has no effect",
                HANGS_AFTER.as_secs()
            );
            written.await
        }
    };
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that wrote it panicked")))
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
