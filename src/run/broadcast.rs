//! Passes every change of the routing table on to the cores.

use std::sync::Arc;

use crate::control::CoreReporter;
use crate::route::{Table, Update};
use crate::worker::{self, Bound, Command, CoreConfig, Mailbox, StartError};

/// The cores, each of which has the newest table. A core that starts gets the table and joins the list
/// in one step, so that it misses no change.
pub(super) struct Broadcast {
    /// The newest table, for cores that start. `None` once all of them have.
    table: Option<Table>,
    mailboxes: Vec<Mailbox>,
}

impl Broadcast {
    /// No core, and an empty table.
    pub(super) fn new() -> Broadcast {
        Broadcast {
            table: Some(Table::new()),
            mailboxes: Vec::new(),
        }
    }

    pub(super) fn publish(&mut self, update: &Arc<Update>) {
        if let Some(table) = &mut self.table {
            table.apply(update);
        }
        for mailbox in &self.mailboxes {
            mailbox.send(Command::Table(update.clone()));
        }
    }

    /// Starts the next core, on this processor.
    pub(super) fn start_core(
        &mut self,
        processor: usize,
        config: &CoreConfig,
        listeners: Vec<Bound>,
        reporter: CoreReporter,
    ) -> Result<Mailbox, StartError> {
        let core = self.mailboxes.len();
        let table = self
            .table
            .clone()
            .expect("cores start before the last of them has started");
        let mailbox = worker::start(
            core,
            processor,
            config.clone(),
            listeners,
            table,
            Box::new(move |cause| reporter.core_failed(core, cause)),
        )?;
        self.mailboxes.push(mailbox.clone());
        Ok(mailbox)
    }

    /// No core starts after this.
    pub(super) fn all_have_started(&mut self) {
        self.table = None;
    }
}
