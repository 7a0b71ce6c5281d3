//! What the sync thread does by the clock: looks at its files, writes the snapshot, frees what the
//! cores let go, and decides at start that Redis has been waited for long enough.

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

use super::limits::{FIRST_TABLE_WAIT, SNAPSHOT_GAP};
use super::truth::Truth;
use super::{Command, snapshot, static_routes};
use crate::config::SyncSettings;

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);

/// The same while the first table is awaited.
const TICK_AT_START: Duration = Duration::from_millis(50);

const SYSTEM_NAME_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// A file's modification time, size and inode: when all stay, it was not changed.
type Stamp = Option<(SystemTime, u64, u64)>;

pub(super) struct Keeper {
    truth: Rc<RefCell<Truth>>,
    settings: Rc<SyncSettings>,
    reload_names: Rc<Notify>,
    last_answer: Rc<Cell<Instant>>,
    /// As it was read.
    routes_file: Stamp,
    /// As it was at the last look. Only a file that has not changed between two looks is read: an
    /// editor or a copy empties a file before it fills it, and an empty one is a valid one.
    routes_file_seen: Stamp,
    name_files: [Stamp; 2],
    /// Whether the first table was sought elsewhere than in Redis.
    gave_up_waiting: bool,
    saved: Option<Instant>,
    saving: Option<JoinHandle<io::Result<()>>>,
    /// Why the snapshot could not be written, until it could: said once, tried again and again.
    save_error: Option<String>,
}

impl Keeper {
    pub(super) fn new(
        truth: Rc<RefCell<Truth>>,
        settings: Rc<SyncSettings>,
        reload_names: Rc<Notify>,
        last_answer: Rc<Cell<Instant>>,
    ) -> Keeper {
        let routes_file = settings.routes_file.as_deref().and_then(stamp);
        let snapshot = settings.snapshot.as_deref().and_then(stamp);
        if let Some((written, ..)) = snapshot {
            truth.borrow().shared.set_snapshot_written(written);
        }
        Keeper {
            routes_file,
            routes_file_seen: routes_file,
            truth,
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

    /// Works until it is told to stop, or the handle is gone.
    pub(super) async fn serve(&mut self, commands: &mut UnboundedReceiver<Command>) {
        loop {
            let ready = self.truth.borrow().is_ready();
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
        self.look_for_first_table();
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
        let mut truth = self.truth.borrow_mut();
        truth.sweep();
        truth.check_ready();
    }

    fn reload(&mut self) {
        self.routes_file = self.settings.routes_file.as_deref().and_then(stamp);
        self.load_static();
        self.reload_names.notify_one();
    }

    /// Saves what is not saved, and waits for it.
    pub(super) async fn finish(mut self) {
        if let Some(saving) = self.saving.take() {
            let saved = saving.await;
            self.note_saved(saved);
        }
        let settings = Rc::clone(&self.settings);
        if let Some(path) = &settings.snapshot
            && self.truth.borrow_mut().take_unsaved()
        {
            let written = snapshot::write(path, self.truth.borrow().master.table());
            self.note_saved(Ok(written));
        }
    }

    fn load_static(&mut self) {
        let mut truth = self.truth.borrow_mut();
        let error = match static_routes::load(&self.settings) {
            Ok(routes) => {
                truth.set_static(&routes);
                truth.publish();
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
        truth
            .shared
            .update(|status| status.routes_file_error = error);
    }

    /// Redis is the first choice; when it says nothing for a while, what is at hand has to do.
    fn look_for_first_table(&mut self) {
        let mut truth = self.truth.borrow_mut();
        let waited = self.last_answer.get().elapsed();
        if truth.has_first_table() || self.gave_up_waiting || waited < FIRST_TABLE_WAIT {
            return;
        }
        self.gave_up_waiting = true;
        let snapshot = self
            .settings
            .snapshot
            .as_deref()
            .filter(|path| path.exists());
        if let Some(path) = snapshot {
            match snapshot::read(path) {
                Ok(snapshot) => {
                    tracing::warn!(
                        routes = snapshot.routes.len(),
                        age = humantime::format_duration(whole_seconds(snapshot.age())).to_string(),
                        "Redis does not answer or is not believed, serving the snapshot"
                    );
                    truth.set_snapshot(snapshot);
                    truth.publish();
                    truth.set_first_table();
                    return;
                }
                Err(error) => tracing::error!(error, "snapshot ignored"),
            }
        }
        if truth.master.static_keys().next().is_some() {
            tracing::warn!("Redis does not answer, serving the static routes alone");
            truth.set_first_table();
        } else {
            tracing::warn!(
                "Redis does not answer and there is nothing to serve with; waiting for it"
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
        let mut truth = self.truth.borrow_mut();
        if self.saving.is_some() || recent || !truth.take_unsaved() {
            return;
        }
        // What is set but not yet published belongs into it too, and is shared by this clone.
        truth.publish();
        let table = truth.master.table().clone();
        self.saved = Some(Instant::now());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            snapshot::write(&path, &table)
        }));
    }

    /// What could not be saved stays to be saved.
    fn note_saved(&mut self, saved: Result<io::Result<()>, JoinError>) {
        let error = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // The panic was reported by its hook.
            Err(_) => Some(String::from("the thread that wrote it panicked")),
        };
        let mut truth = self.truth.borrow_mut();
        let path = self.settings.snapshot.as_deref().unwrap_or(Path::new(""));
        let path = path.display().to_string();
        match &error {
            None => {
                truth.shared.set_snapshot_written(SystemTime::now());
                if self.save_error.is_some() {
                    tracing::info!(path, "the snapshot is written again");
                }
            }
            Some(error) => {
                truth.set_unsaved();
                if self.save_error.as_ref() != Some(error) {
                    tracing::error!(
                        error,
                        path,
                        "the snapshot cannot be written and is tried again; make its directory writable or change --snapshot"
                    );
                }
            }
        }
        truth
            .shared
            .update(|status| status.snapshot_error = error.clone());
        self.save_error = error;
    }
}

/// As a log line has room for.
pub(super) fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
