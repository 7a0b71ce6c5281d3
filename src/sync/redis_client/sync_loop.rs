//! Keeps the table equal to what Redis has. The order makes sure that no change is missed: subscribe to
//! changes, then read everything, then read what changed. After a lost connection everything is read
//! again.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::super::routing_state::RoutingState;
use super::super::snapshot::Snapshot;
use super::super::status::{ChangeDetection, RedisState, SharedStatus};
use super::backoff::Backoff;
use super::comparison::Comparison;
use super::connection::{Connection, Connector};
use super::connection_error::{CLUSTER_NODE, ConnectionError};
use super::invalidations::Invalidations;
use super::key_reader::KeyReader;
use super::ping::Pinger;
use super::replication::{Replication, replication};
use crate::config::SyncSettings;

/// Between two updates of the cores: five hundred a second at most, each a wake-up of some microseconds
/// on every core. A burst of writes becomes one update. A change waits at most this long behind another.
const PUBLISH_GAP: Duration = Duration::from_millis(2);

/// The pause after a comparison is at least this many times its duration, so that comparing takes at most
/// a tenth of the thread and of Redis, however many hosts there are.
const COMPARISON_PAUSE: u32 = 9;

/// What the log says once and not with each connection.
#[derive(Default)]
struct LoggedOnce {
    cluster_node: bool,
    unknown_replication: bool,
}

/// What is known about Redis beyond one connection.
pub(in crate::sync) struct SyncLoop {
    state: Rc<RefCell<RoutingState>>,
    status: Arc<SharedStatus>,
    settings: Rc<SyncSettings>,
    connector: Connector,
    reader: KeyReader,
    /// Whether a comparison came to its end. Before that, aliases of a host may be unknown.
    has_compared: bool,
    logged: LoggedOnce,
    backoff: Backoff,
    last_answer: Rc<Cell<Instant>>,
}

impl SyncLoop {
    pub(in crate::sync) fn new(
        state: Rc<RefCell<RoutingState>>,
        settings: Rc<SyncSettings>,
        connector: Connector,
        last_answer: Rc<Cell<Instant>>,
    ) -> SyncLoop {
        let status = Arc::clone(&state.borrow().status);
        SyncLoop {
            status,
            reader: KeyReader::new(
                Rc::clone(&state),
                connector.schema().clone(),
                settings.hold,
                Rc::clone(&last_answer),
            ),
            state,
            settings,
            connector,
            has_compared: false,
            logged: LoggedOnce::default(),
            backoff: Backoff::new(),
            last_answer,
        }
    }

    /// Runs for ever, over any number of connections.
    pub(in crate::sync) async fn run(mut self) -> Infallible {
        self.status
            .update(|status| status.redis = RedisState::Connecting);
        loop {
            let Err(error) = self.run_connection().await;
            self.status.update(|status| status.redis = RedisState::Lost);
            let retry_in = self.backoff.next();
            let serving = if self.state.borrow().has_first_table() {
                "the last known table"
            } else {
                "nothing yet"
            };
            tracing::warn!(
                server.address = self.connector.server_address(),
                server.port = self.connector.server_port(),
                db.namespace = self.connector.database(),
                error = error.to_string(),
                remedy = error.remedy(),
                retry_in_s = retry_in.as_secs_f64(),
                serving,
                "connection to Redis lost"
            );
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, until it is lost.
    async fn run_connection(&mut self) -> Result<Infallible, ConnectionError> {
        let invalidations = Arc::new(Invalidations::default());
        let connection = self.connector.connect(&invalidations).await?;
        self.check_server(&connection)?;
        let detection = connection.detection;
        self.status.update(|status| {
            status.redis = RedisState::Loading;
            status.mode = Some(detection);
        });
        tracing::info!(
            server.address = self.connector.server_address(),
            server.port = self.connector.server_port(),
            db.namespace = self.connector.database(),
            mode = detection.name(),
            "connected to Redis, reading the table"
        );
        let pinger = Pinger {
            connection: connection.commands.clone(),
            interval: self.settings.ping,
            timeout: self.settings.ping_timeout,
            asks_replication: connection.replication != Replication::Unknown,
            last_answer: Rc::clone(&self.last_answer),
        };
        let is_live = Cell::new(false);
        let status = Arc::clone(&self.status);
        // With tracking, Redis sends invalidations before its answer to a later ping, so an answer means
        // that no change is on its way.
        let on_pong = || {
            if detection == ChangeDetection::Tracking && is_live.get() {
                status.confirm_table();
            }
        };
        tokio::select! {
            lost = self.apply_changes(&connection, &invalidations, &is_live) => lost,
            silent = pinger.run(on_pong) => silent,
            () = invalidations.wait_closed() => Err(ConnectionError::Closed),
        }
    }

    /// Logs what is unusual about the server. Refuses a replica without link to its primary.
    fn check_server(&mut self, connection: &Connection) -> Result<(), ConnectionError> {
        if connection.is_cluster_node && !std::mem::replace(&mut self.logged.cluster_node, true) {
            tracing::warn!(
                server.address = self.connector.server_address(),
                server.port = self.connector.server_port(),
                "{CLUSTER_NODE}"
            );
        }
        match &connection.replication {
            Replication::Current => {}
            Replication::LinkDown(state) => {
                return Err(ConnectionError::PrimaryLinkDown(state.clone()));
            }
            Replication::Unknown => {
                if !std::mem::replace(&mut self.logged.unknown_replication, true) {
                    tracing::info!(
                        "the Redis user may give neither ROLE nor INFO, so a replica that has lost its \
                        primary would go unnoticed; grant +role"
                    );
                }
            }
        }
        Ok(())
    }

    /// Compares the table with Redis, now and at intervals, and applies every change in between.
    async fn apply_changes(
        &mut self,
        connection: &Connection,
        invalidations: &Invalidations,
        is_live: &Cell<bool>,
    ) -> Result<Infallible, ConnectionError> {
        let mut commands = connection.commands.clone();
        let mut compare_at = Instant::now();
        let mut uses_events = false;
        loop {
            let now = Instant::now();
            if now >= compare_at {
                self.compare(connection, invalidations).await?;
                compare_at = self.next_comparison(now.elapsed());
                if !is_live.replace(true) {
                    self.set_live();
                }
            }
            let published = Instant::now();
            let expiry = self.reader.next_expiry();
            let next = expiry.map_or(compare_at, |expiry| expiry.min(compare_at));
            tokio::select! {
                () = invalidations.wait() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            tokio::time::sleep_until((published + PUBLISH_GAP).into()).await;
            if invalidations.are_events_proven() && !std::mem::replace(&mut uses_events, true) {
                tracing::info!("keyspace events arrive, changes are seen at once");
                let mode = Some(ChangeDetection::KeyspaceEvents);
                self.status.update(|status| status.mode = mode);
            }
            let pending = invalidations.take();
            if pending.all {
                compare_at = Instant::now();
                continue;
            }
            let read = self.reader.read(&mut commands, pending.keys);
            if read.await?.is_some() {
                self.reader.publish();
            }
            let decision_due = self.reader.removals.decision_due();
            compare_at = decision_due.map_or(compare_at, |due| due.min(compare_at));
        }
    }

    fn set_live(&mut self) {
        self.backoff.reset();
        self.status.update(|status| status.redis = RedisState::Live);
        let mut state = self.state.borrow_mut();
        let hosts = state.master.redis_names();
        tracing::info!(hosts, "table read from Redis, following its changes");
        state.set_first_table();
    }

    fn next_comparison(&self, took: Duration) -> Instant {
        let pause = self.settings.full_comparison.max(took * COMPARISON_PAUSE);
        let regular = Instant::now() + pause;
        let decision_due = self.reader.removals.decision_due();
        decision_due.map_or(regular, |due| due.min(regular))
    }

    /// Makes the table equal to all that Redis has.
    async fn compare(
        &mut self,
        connection: &Connection,
        invalidations: &Invalidations,
    ) -> Result<(), ConnectionError> {
        let mut hosts_before = self.state.borrow().master.redis_names();
        let snapshot = self.open_snapshot();
        let mut commands = connection.commands.clone();
        let comparison = Comparison::new(
            &mut self.reader,
            commands.clone(),
            invalidations,
            self.has_compared,
        );
        let seen = comparison.run().await?;
        // A replica may have lost its data meanwhile, to fetch them anew from its primary.
        if connection.replication != Replication::Unknown
            && let Replication::LinkDown(state) = replication(&mut commands).await?
        {
            return Err(ConnectionError::PrimaryLinkDown(state));
        }
        if let Some(snapshot) = snapshot {
            match snapshot.await {
                Ok(Ok(snapshot)) => self.reader.removals.compare_snapshot(&snapshot, &seen),
                Ok(Err(error)) => tracing::error!(error, "snapshot ignored"),
                // The panic hook has logged it.
                Err(_) => {}
            }
            let hosts = self.state.borrow().master.redis_names();
            hosts_before = hosts_before.max(hosts);
        }
        self.reader.removals.remove_unseen(hosts_before, &seen);
        self.has_compared = true;
        self.status.confirm_table();
        self.state.borrow_mut().set_compared();
        self.reader.publish();
        Ok(())
    }

    /// Reads the hosts of the snapshot during the first comparison, to find out which are gone since the
    /// run before. `None` when that is not needed.
    fn open_snapshot(&self) -> Option<JoinHandle<Result<Snapshot, String>>> {
        let path = self.settings.snapshot.as_ref()?;
        let is_needed = !self.has_compared && !self.settings.hold.is_zero() && path.exists();
        let path = path.clone();
        is_needed.then(|| tokio::task::spawn_blocking(move || Snapshot::open(&path)))
    }
}
