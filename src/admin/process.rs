//! The state of the process that the pages of the admin endpoint show, and that the control thread changes.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::watch;

use crate::cores::{Collector, Cores};
use crate::route::Backend;
use crate::sync::SyncStatus;

/// What the admin endpoint reads from other threads. None of it may block.
pub(crate) struct Reports {
    /// The status of the sync thread.
    pub sync: Box<dyn Fn() -> SyncStatus + Send + Sync>,
    /// All backends of the routing table.
    pub backends: Box<dyn Fn() -> Vec<Arc<Backend>> + Send + Sync>,
    /// Whether `/client` is on: the cores then remember whose connection a backend sees.
    pub lookup: bool,
    /// How many log lines were dropped because standard error was not read in time.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What the tasks of the control thread share.
pub(crate) struct ProcessState {
    /// The running cores; none before clients are served.
    cores: watch::Receiver<Arc<dyn Cores>>,
    pub(crate) collector: Collector,
    /// Whether the process is about to end.
    pub(crate) draining: Cell<bool>,
    pub(super) reports: Reports,
}

impl ProcessState {
    /// Starts the collector's task, in the [`LocalSet`](tokio::task::LocalSet) of the caller.
    pub(crate) fn new(cores: watch::Receiver<Arc<dyn Cores>>, reports: Reports) -> ProcessState {
        ProcessState {
            collector: Collector::start(cores.clone()),
            cores,
            draining: Cell::new(false),
            reports,
        }
    }

    /// The running cores; none before clients are served.
    pub(crate) fn cores(&self) -> Arc<dyn Cores> {
        self.cores.borrow().clone()
    }

    /// Whether the cores accept clients, each with its first routing table.
    pub(super) fn is_serving(&self) -> bool {
        !self.cores.borrow().numbers().is_empty()
    }
}
