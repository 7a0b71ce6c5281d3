//! Opens a connection to Redis and subscribes to changes, in the best way that the server allows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisError, ServerErrorKind, TlsCertificates, Value,
};
use tokio::task::JoinHandle;

use super::super::status::ChangeDetection;
use super::connection_error::ConnectionError;
use super::invalidations::Invalidations;
use super::key_schema::KeySchema;
use super::replication::{Replication, is_cluster_node, replication};
use crate::config::RedisSettings;
use crate::protocol::Protocol;
use crate::route::Key;

/// For each attempt to connect, log in and subscribe.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Knows how to connect to Redis.
pub(in crate::sync) struct Connector {
    client: Client,
    schema: KeySchema,
}

/// An open connection whose changes arrive as invalidations.
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    pub(super) detection: ChangeDetection,
    pub(super) replication: Replication,
    pub(super) is_cluster_node: bool,
    /// Reads the keyspace events, on a second connection.
    event_reader: Option<JoinHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(reader) = &self.event_reader {
            reader.abort();
        }
    }
}

/// How the changes arrive.
struct Subscription {
    detection: ChangeDetection,
    event_reader: Option<JoinHandle<()>>,
}

/// What one attempt to use Redis found out.
pub(in crate::sync) struct Probed {
    pub(in crate::sync) detection: ChangeDetection,
    pub(in crate::sync) is_cluster_node: bool,
}

impl Connector {
    /// Checks the URL and reads the certificates. The error says cause and remedy, never the URL.
    pub(in crate::sync) fn new(settings: &RedisSettings) -> Result<Connector, String> {
        // The crypto provider is compiled in; an Err says that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = settings.url.secret().into_connection_info();
        let client = match &settings.ca_file {
            None => info.and_then(Client::open),
            Some(path) => {
                let certificates = std::fs::read(path).map_err(|error| {
                    format!("{}: the CA file cannot be read: {error}", path.display())
                })?;
                let tls = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(certificates),
                };
                info.and_then(|info| Client::build_with_tls(info, tls))
            }
        };
        let client = client.map_err(|error| {
            format!(
                "the Redis URL cannot be used: {error}; write \
                redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS or unix:///PATH"
            )
        })?;
        Ok(Connector {
            client,
            schema: KeySchema::new(&settings.prefix),
        })
    }

    pub(super) fn schema(&self) -> &KeySchema {
        &self.schema
    }

    /// The server's host, or the path of its socket; without secrets.
    pub(in crate::sync) fn server_address(&self) -> &str {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            ConnectionAddr::Unix(path) => path.to_str().unwrap_or_default(),
            _ => "",
        }
    }

    pub(in crate::sync) fn server_port(&self) -> Option<u16> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => Some(*port),
            _ => None,
        }
    }

    /// The number of the database.
    pub(in crate::sync) fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Connects as [`Connector::connect`] does and gives each command once that reading the table needs.
    pub(in crate::sync) async fn probe(&self) -> Result<Probed, ConnectionError> {
        let connection = self.connect(&Arc::default()).await?;
        if let Replication::LinkDown(state) = &connection.replication {
            return Err(ConnectionError::PrimaryLinkDown(state.clone()));
        }
        let key = self.schema.redis_key(&Key::Default(Protocol::Tls));
        let mut commands = redis::pipe();
        commands
            .cmd("SCAN")
            .arg(&["0", "MATCH", &self.schema.pattern()]);
        commands.cmd("SMEMBERS").arg(&key).cmd("PTTL").arg(&key);
        let mut to_redis = connection.commands.clone();
        let reading = commands.query_async::<Value>(&mut to_redis);
        let read = tokio::time::timeout(CONNECT_TIMEOUT, reading).await;
        read.map_err(|_| ConnectionError::Timeout(CONNECT_TIMEOUT))??;
        Ok(Probed {
            detection: connection.detection,
            is_cluster_node: connection.is_cluster_node,
        })
    }

    /// Connects, logs in and subscribes to changes. From then on no change is missed.
    pub(super) async fn connect(
        &self,
        invalidations: &Arc<Invalidations>,
    ) -> Result<Connection, ConnectionError> {
        let connecting = self.connect_without_timeout(invalidations);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or(Err(ConnectionError::Timeout(CONNECT_TIMEOUT)))
    }

    async fn connect_without_timeout(
        &self,
        invalidations: &Arc<Invalidations>,
    ) -> Result<Connection, ConnectionError> {
        let opened = self.open(ProtocolVersion::RESP3, Some(invalidations)).await;
        let (mut commands, refusal) = match opened {
            Ok(mut commands) => {
                let refusal = self.enable_tracking(&mut commands).await?;
                (commands, refusal)
            }
            // Without RESP3 there are no invalidation messages.
            Err(error) if is_hello_refused(&error) => {
                let commands = self.open(ProtocolVersion::RESP2, None).await?;
                (commands, Some(error))
            }
            Err(error) => return Err(error.into()),
        };
        let Subscription {
            detection,
            event_reader,
        } = match refusal {
            None => Subscription {
                detection: ChangeDetection::Tracking,
                event_reader: None,
            },
            Some(refusal) => {
                self.subscribe_to_events(&mut commands, invalidations, &refusal)
                    .await
            }
        };
        Ok(Connection {
            replication: replication(&mut commands).await?,
            is_cluster_node: is_cluster_node(&mut commands).await?,
            commands,
            detection,
            event_reader,
        })
    }

    /// Asks for invalidation messages. Gives back the server's refusal, if it refuses.
    async fn enable_tracking(
        &self,
        commands: &mut MultiplexedConnection,
    ) -> Result<Option<RedisError>, RedisError> {
        let tracking: Result<Value, RedisError> = redis::cmd("CLIENT")
            .arg(&["TRACKING", "ON", "BCAST", "PREFIX", self.schema.prefix()])
            .query_async(commands)
            .await;
        match tracking {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.code(), Some("ERR" | "NOPERM")) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    async fn open(
        &self,
        protocol: ProtocolVersion,
        invalidations: Option<&Arc<Invalidations>>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = self.with_protocol(protocol)?;
        // The pings notice silence; a timeout here would take a long reply for it.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        if let Some(invalidations) = invalidations {
            let (invalidations, schema) = (Arc::clone(invalidations), self.schema.clone());
            config = config.set_push_sender(move |push: PushInfo| {
                receive(&invalidations, &schema, push);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    fn with_protocol(&self, protocol: ProtocolVersion) -> Result<Client, RedisError> {
        let info = self.client.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(protocol);
        Client::open(info.set_redis_settings(redis))
    }

    /// Subscribes to keyspace events where the server sends any, because it refused tracking.
    async fn subscribe_to_events(
        &self,
        commands: &mut MultiplexedConnection,
        invalidations: &Arc<Invalidations>,
        refusal: &RedisError,
    ) -> Subscription {
        let answer: Result<HashMap<String, String>, RedisError> = redis::cmd("CONFIG")
            .arg(&["GET", "notify-keyspace-events"])
            .query_async(commands)
            .await;
        let flags = answer
            .ok()
            .map(|reply| reply.into_values().next().unwrap_or_default());
        let events = KeyspaceEvents::of(flags.as_deref());
        let event_reader = match events {
            KeyspaceEvents::None => None,
            _ => self.read_events(invalidations, events).await,
        };
        let detection = match (&event_reader, events) {
            (Some(_), KeyspaceEvents::All) => ChangeDetection::KeyspaceEvents,
            _ => ChangeDetection::Polling,
        };
        tracing::warn!(
            error = refusal.to_string(),
            mode = detection.name(),
            keyspace_events = events.text(),
            "Redis refuses CLIENT TRACKING; to see changes at once, allow it (Redis 6, +client|tracking) or \
            set notify-keyspace-events to KA"
        );
        Subscription {
            detection,
            event_reader,
        }
    }

    async fn read_events(
        &self,
        invalidations: &Arc<Invalidations>,
        events: KeyspaceEvents,
    ) -> Option<JoinHandle<()>> {
        let database = self.database();
        let channel = format!("__keyspace@{database}__:");
        let client = self.with_protocol(ProtocolVersion::RESP2).ok()?;
        let mut subscription = client.get_async_pubsub().await.ok()?;
        let pattern = format!("{channel}{}", self.schema.pattern());
        subscription.psubscribe(pattern).await.ok()?;
        let (invalidations, schema) = (Arc::clone(invalidations), self.schema.clone());
        Some(tokio::spawn(async move {
            let mut messages = subscription.into_on_message();
            while let Some(message) = messages.next().await {
                let redis_key = message.get_channel_name().strip_prefix(&channel);
                if let Some(redis_key) = redis_key.filter(|key| schema.covers(key.as_bytes())) {
                    if events == KeyspaceEvents::Unknown {
                        invalidations.set_events_proven();
                    }
                    invalidations.add(redis_key.as_bytes().to_vec());
                }
            }
            invalidations.set_closed();
        }))
    }
}

/// Which keyspace events the server sends, by its `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyspaceEvents {
    /// For every command that changes a route.
    All,
    /// For some of them.
    Some,
    None,
    /// This user may not ask.
    Unknown,
}

impl KeyspaceEvents {
    fn of(flags: Option<&str>) -> KeyspaceEvents {
        let Some(flags) = flags else {
            return KeyspaceEvents::Unknown;
        };
        // Of sets, of hashes, of any type (DEL, RENAME, EXPIRE), and of keys that expire.
        let classes = ['s', 'h', 'g', 'x'];
        let sent = |class: &char| flags.contains(*class) || flags.contains('A');
        match classes.iter().filter(|class| sent(class)).count() {
            _ if !flags.contains('K') => KeyspaceEvents::None,
            4 => KeyspaceEvents::All,
            0 => KeyspaceEvents::None,
            _ => KeyspaceEvents::Some,
        }
    }

    fn text(self) -> &'static str {
        match self {
            KeyspaceEvents::All => "all",
            KeyspaceEvents::Some => "some, so a change may be found only by the next comparison",
            KeyspaceEvents::None => "none",
            KeyspaceEvents::Unknown => {
                "unknown until the first arrives, because CONFIG GET is not granted"
            }
        }
    }
}

fn receive(invalidations: &Invalidations, schema: &KeySchema, push: PushInfo) {
    match push.kind {
        PushKind::Disconnection => invalidations.set_closed(),
        PushKind::Invalidate => match push.data.into_iter().next() {
            Some(Value::Array(redis_keys)) => {
                for redis_key in redis_keys {
                    if let Value::BulkString(redis_key) = redis_key
                        && schema.covers(&redis_key)
                    {
                        invalidations.add(redis_key);
                    }
                }
            }
            // FLUSHALL and FLUSHDB name no keys.
            _ => invalidations.add_all(),
        },
        _ => {}
    }
}

/// Whether the server does not know RESP3, or does not let this user ask for it.
fn is_hello_refused(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::RESP3NotSupported | ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || error.code() == Some("NOPROTO")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_enough_only_when_they_name_keys_and_cover_every_change() {
        for (flags, events) in [
            ("", KeyspaceEvents::None),
            ("K", KeyspaceEvents::None),
            ("AE", KeyspaceEvents::None),
            ("gshxE", KeyspaceEvents::None),
            ("K$lz", KeyspaceEvents::None),
            ("Ks", KeyspaceEvents::Some),
            ("gsxK", KeyspaceEvents::Some),
            ("AK", KeyspaceEvents::All),
            ("AKE", KeyspaceEvents::All),
            ("gshxK", KeyspaceEvents::All),
        ] {
            assert_eq!(KeyspaceEvents::of(Some(flags)), events, "{flags:?}");
        }
        assert_eq!(KeyspaceEvents::of(None), KeyspaceEvents::Unknown);
    }
}
