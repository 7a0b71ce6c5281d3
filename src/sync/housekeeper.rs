//! The periodic work of the sync thread: reads changed files, writes the snapshot, frees old pieces of the
//! table, and at start decides when to go on without Redis.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinHandle};

use super::routing_state::{FIRST_TABLE_TIMEOUT, RoutingState};
use super::snapshot::{self, Snapshot};
use super::static_routes;
use crate::config::SyncSettings;

/// Between two rounds.
const TICK: Duration = Duration::from_secs(1);

/// The same while the first table is awaited.
const TICK_AT_START: Duration = Duration::from_millis(50);

/// Between two snapshots: many changes in a row cause few writes to the disk.
const SNAPSHOT_GAP: Duration = Duration::from_secs(5);

const SYSTEM_NAME_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What the handle asks of the thread.
pub(super) enum Command {
    /// Read the routes file and the system's DNS configuration again.
    Reload,
    Stop,
}

/// While all of these stay the same, the file was not changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

pub(super) struct Housekeeper {
    state: Rc<RefCell<RoutingState>>,
    settings: Rc<SyncSettings>,
    reload_names: Rc<Notify>,
    last_answer: Rc<Cell<Instant>>,
    /// The routes file when it was last read; `None` without a file.
    routes_file: Option<Stamp>,
    /// The routes file in the last round. It is read only when it did not change between two rounds: an
    /// editor or a copy empties a file before filling it, and an empty file is valid.
    routes_file_seen: Option<Stamp>,
    name_files: [Option<Stamp>; 2],
    /// Whether the start no longer waits for Redis.
    gave_up_waiting: bool,
    saved: Option<Instant>,
    saving: Option<JoinHandle<io::Result<()>>>,
    /// Why the last snapshot could not be written. Each error is logged once, and each time the write is
    /// tried again.
    save_error: Option<String>,
}

impl Housekeeper {
    pub(super) fn new(
        state: Rc<RefCell<RoutingState>>,
        settings: Rc<SyncSettings>,
        reload_names: Rc<Notify>,
        last_answer: Rc<Cell<Instant>>,
    ) -> Housekeeper {
        let routes_file = settings.routes_file.as_deref().and_then(stamp);
        let snapshot = settings.snapshot.as_deref().and_then(stamp);
        if let Some(snapshot) = snapshot {
            let status = &state.borrow().status;
            status.set_snapshot_written(snapshot.modified);
        }
        Housekeeper {
            routes_file,
            routes_file_seen: routes_file,
            state,
            settings,
            reload_names,
            last_answer,
            name_files: SYSTEM_NAME_FILES.map(|path| stamp(Path::new(path))),
            gave_up_waiting: false,
            saved: None,
            saving: None,
            save_error: None,
        }
    }

    /// Runs until the command to stop, or until the handle is dropped.
    pub(super) async fn serve(&mut self, commands: &mut UnboundedReceiver<Command>) {
        loop {
            let ready = self.state.borrow().is_ready();
            let tick = if ready { TICK } else { TICK_AT_START };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Reload) => self.reload(),
                    Some(Command::Stop) | None => return,
                },
                () = tokio::time::sleep(tick) => self.tick(),
            }
        }
    }

    fn tick(&mut self) {
        self.find_first_table();
        if let Some(path) = &self.settings.routes_file {
            let now = stamp(path);
            let is_settled = self.routes_file_seen == now;
            self.routes_file_seen = now;
            if is_settled && now != self.routes_file {
                self.routes_file = now;
                self.load_static();
            }
        }
        let name_files = SYSTEM_NAME_FILES.map(|path| stamp(Path::new(path)));
        if name_files != self.name_files {
            self.name_files = name_files;
            self.reload_names.notify_one();
        }
        self.save_in_background();
        let mut state = self.state.borrow_mut();
        state.sweep();
        state.update_ready();
    }

    fn reload(&mut self) {
        self.routes_file = self.settings.routes_file.as_deref().and_then(stamp);
        self.load_static();
        self.reload_names.notify_one();
    }

    /// Writes the snapshot, if something changed since the last one.
    pub(super) async fn finish(mut self) {
        if let Some(saving) = self.saving.take() {
            let saved = saving.await;
            self.note_saved(saved);
        }
        let settings = Rc::clone(&self.settings);
        if let Some(path) = &settings.snapshot
            && self.state.borrow_mut().take_unsaved()
        {
            let written = snapshot::write(path, self.state.borrow().master.table());
            self.note_saved(Ok(written));
        }
    }

    fn load_static(&mut self) {
        let mut state = self.state.borrow_mut();
        let error = match static_routes::load(&self.settings) {
            Ok(routes) => {
                state.set_static(&routes);
                state.publish();
                tracing::info!(static_routes = routes.len(), "static routes read again");
                None
            }
            Err(mistakes) => {
                let text = mistakes.to_string();
                for mistake in text.lines() {
                    tracing::error!(mistake, "mistake in the static routes");
                }
                tracing::error!(
                    mistakes = mistakes.count(),
                    "the static routes are rejected as a whole, those read before stay in use"
                );
                Some(text)
            }
        };
        state
            .status
            .update(|status| status.routes_file_error = error);
    }

    /// At start, when Redis has not answered for a while: uses the snapshot or the static routes.
    fn find_first_table(&mut self) {
        let mut state = self.state.borrow_mut();
        let waited = self.last_answer.get().elapsed();
        if state.has_first_table() || self.gave_up_waiting || waited < FIRST_TABLE_TIMEOUT {
            return;
        }
        self.gave_up_waiting = true;
        let snapshot = self
            .settings
            .snapshot
            .as_deref()
            .filter(|path| path.exists());
        if let Some(path) = snapshot {
            match Snapshot::open(path) {
                Ok(snapshot) => {
                    tracing::warn!(
                        routes = snapshot.hosts().len(),
                        snapshot_age_s = snapshot.age().as_secs(),
                        "the table cannot be read from Redis, starting with the snapshot"
                    );
                    state.set_snapshot(&snapshot);
                    state.publish();
                    state.set_first_table();
                    return;
                }
                Err(error) => tracing::error!(error, "snapshot ignored"),
            }
        }
        if state.master.static_keys().next().is_some() {
            tracing::warn!(
                "the table cannot be read from Redis, starting with the static routes alone"
            );
            state.set_first_table();
        } else {
            tracing::warn!(
                "the table cannot be read from Redis, and there is neither a snapshot nor a static route; \
                waiting for Redis"
            );
        }
    }

    fn save_in_background(&mut self) {
        let Some(path) = self.settings.snapshot.clone() else {
            return;
        };
        if let Some(saving) = self.saving.take_if(|saving| saving.is_finished())
            && let Some(saved) = saving.now_or_never()
        {
            self.note_saved(saved);
        }
        let recent = self
            .saved
            .is_some_and(|saved| saved.elapsed() < SNAPSHOT_GAP);
        let mut state = self.state.borrow_mut();
        if self.saving.is_some() || recent || !state.take_unsaved() {
            return;
        }
        // The snapshot includes changes that are not published yet. The clone shares its pieces with the
        // table.
        state.publish();
        let table = state.master.table().clone();
        self.saved = Some(Instant::now());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            snapshot::write(&path, &table)
        }));
    }

    /// Notes how the write went. A failed write is tried again.
    fn note_saved(&mut self, saved: Result<io::Result<()>, JoinError>) {
        let error = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // The panic hook has logged it.
            Err(_) => Some(String::from("the thread that wrote it panicked")),
        };
        let mut state = self.state.borrow_mut();
        let path = self.settings.snapshot.as_deref().unwrap_or(Path::new(""));
        let path = path.display().to_string();
        match &error {
            None => {
                state.status.set_snapshot_written(SystemTime::now());
                if self.save_error.is_some() {
                    tracing::info!(file.path = path, "the snapshot can be written again");
                }
            }
            Some(error) => {
                state.set_unsaved();
                if self.save_error.as_ref() != Some(error) {
                    tracing::error!(
                        error,
                        file.path = path,
                        "the snapshot cannot be written and is tried again; make its directory writable or \
                        change --snapshot"
                    );
                }
            }
        }
        state
            .status
            .update(|status| status.snapshot_error = error.clone());
        self.save_error = error;
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok()?,
        bytes: metadata.len(),
        inode: metadata.ino(),
    })
}
