//! How the process stands, as the admin endpoint tells it and the control thread drives it.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::watch;

use crate::cores::{Collector, Cores};
use crate::route::Backend;
use crate::sync::SyncStatus;

/// Answers that the admin endpoint gets from other threads; none may wait for long.
pub(crate) struct Reports {
    /// How the sync thread stands.
    pub sync: Box<dyn Fn() -> SyncStatus + Send + Sync>,
    /// The backends of the table.
    pub backends: Box<dyn Fn() -> Vec<Arc<Backend>> + Send + Sync>,
    /// Whether the cores keep what a look-up asks for.
    pub lookup: bool,
    /// Log lines that nobody read in time.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What the tasks of the control thread share.
pub(crate) struct ProcessState {
    cores: watch::Receiver<Arc<dyn Cores>>,
    pub(crate) collector: Collector,
    pub(crate) draining: Cell<bool>,
    pub(super) reports: Reports,
}

impl ProcessState {
    /// To be called where local tasks can be spawned.
    pub(crate) fn new(cores: watch::Receiver<Arc<dyn Cores>>, reports: Reports) -> ProcessState {
        ProcessState {
            collector: Collector::start(cores.clone()),
            cores,
            draining: Cell::new(false),
            reports,
        }
    }

    /// None before clients are served.
    pub(crate) fn cores(&self) -> Arc<dyn Cores> {
        self.cores.borrow().clone()
    }

    /// Whether every core has its first routing table and accepts.
    pub(super) fn is_serving(&self) -> bool {
        !self.cores.borrow().numbers().is_empty()
    }
}
