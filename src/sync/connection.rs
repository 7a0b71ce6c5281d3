//! Opening a connection to Redis and having it tell what changes, by the best way it allows.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisError, ServerErrorKind, TlsCertificates, Value,
};
use tokio::task::JoinHandle;

use super::feed::Feed;
use super::keys::Keyspace;
use super::limits::CONNECT_DEADLINE;
use super::standing::{self, CLUSTER, Source};
use super::status::Mode;
use crate::config::RedisSettings;
use crate::protocol::Protocol;
use crate::route::Key;

/// Why Redis is lost. Never holds the URL.
#[derive(Debug)]
pub(super) enum Loss {
    Redis(RedisError),
    /// No answer within this time.
    Silent(Duration),
    Closed,
    /// It is a replica that does not hear its primary; the state of the link.
    NoPrimary(String),
}

impl From<RedisError> for Loss {
    fn from(error: RedisError) -> Loss {
        Loss::Redis(error)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Redis(error) => error.fmt(out),
            Loss::Silent(after) => write!(out, "no answer within {after:?}"),
            Loss::Closed => write!(out, "the connection was closed"),
            Loss::NoPrimary(state) => write!(
                out,
                "this Redis is a replica whose link to its primary is {state:?}, so what it has is not believed"
            ),
        }
    }
}

impl Loss {
    /// What an operator can do about it.
    pub(super) fn remedy(&self) -> &'static str {
        let error = match self {
            Loss::Redis(error) => error,
            Loss::NoPrimary(_) => {
                return "check that its primary runs and is reached from it (INFO replication), or connect to the primary";
            }
            Loss::Silent(_) | Loss::Closed => {
                return "check that Redis runs and that the network lets it through";
            }
        };
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                "check user and password of the Redis URL"
            }
            (_, Some("NOPERM")) => {
                "grant the Redis user: +scan +smembers +hgetall +pttl +ping +client|tracking, on keys with the prefix"
            }
            (_, Some("CLUSTERDOWN" | "MOVED" | "ASK" | "CROSSSLOT" | "TRYAGAIN")) => CLUSTER,
            (_, Some("LOADING" | "MASTERDOWN" | "READONLY")) => {
                "none needed, Redis is getting ready"
            }
            _ => "check that Redis runs, and host, port and TLS of the Redis URL",
        }
    }
}

/// What to connect to, both dialects.
pub(super) struct Dialer {
    client: Client,
    keyspace: Keyspace,
}

/// An open connection that feeds.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) mode: Mode,
    pub(super) source: Source,
    pub(super) is_cluster: bool,
    /// Reads the keyspace events, on a connection of its own.
    reader: Option<JoinHandle<()>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Dialer {
    /// Checks the URL and reads the certificates. The error says cause and remedy, never the URL.
    pub(super) fn new(settings: &RedisSettings) -> Result<Dialer, String> {
        // The crypto provider is compiled in once; an Err says that someone installed it before.
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
                "the Redis URL cannot be used: {error}; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS or unix:///PATH"
            )
        })?;
        Ok(Dialer {
            client,
            keyspace: Keyspace::new(&settings.prefix),
        })
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Where this connects to, without secrets.
    pub(super) fn address(&self) -> String {
        let info = self.client.get_connection_info();
        format!("{}/{}", info.addr(), info.redis_settings().db())
    }

    /// Connects as [`Dialer::open`] does and reads a little with each command that is needed. Says how
    /// changes are noticed, and whether it is a node of a Cluster.
    pub(super) async fn try_out(&self) -> Result<(Mode, bool), Loss> {
        let link = self.open(&Arc::default()).await?;
        if let Source::Cut(state) = &link.source {
            return Err(Loss::NoPrimary(state.clone()));
        }
        let key = self.keyspace.raw(&Key::Default(Protocol::Tls));
        let mut commands = redis::pipe();
        commands
            .cmd("SCAN")
            .arg(&["0", "MATCH", &self.keyspace.pattern()]);
        commands.cmd("SMEMBERS").arg(&key).cmd("PTTL").arg(&key);
        let mut connection = link.connection.clone();
        let reading = commands.query_async::<Value>(&mut connection);
        let read = tokio::time::timeout(CONNECT_DEADLINE, reading).await;
        read.map_err(|_| Loss::Silent(CONNECT_DEADLINE))??;
        Ok((link.mode, link.is_cluster))
    }

    /// Connects, logs in and asks for changes; from then on none is missed.
    pub(super) async fn open(&self, feed: &Arc<Feed>) -> Result<Link, Loss> {
        let opening = self.open_unhurried(feed);
        let opened = tokio::time::timeout(CONNECT_DEADLINE, opening).await;
        opened.unwrap_or(Err(Loss::Silent(CONNECT_DEADLINE)))
    }

    async fn open_unhurried(&self, feed: &Arc<Feed>) -> Result<Link, Loss> {
        let (mut connection, refused) = match self.connect(ProtocolVersion::RESP3, Some(feed)).await
        {
            Err(error) if is_hello_refused(&error) => {
                let connection = self.connect(ProtocolVersion::RESP2, None).await?;
                (connection, Some(error))
            }
            other => (other?, None),
        };
        let refused = match refused {
            None => self.track(&mut connection).await?,
            refused => refused,
        };
        let (mode, reader) = match refused {
            None => (Mode::Tracking, None),
            Some(error) => {
                self.with_keyspace_events(&mut connection, feed, error)
                    .await
            }
        };
        Ok(Link {
            source: standing::source(&mut connection).await?,
            is_cluster: standing::is_cluster(&mut connection).await?,
            connection,
            mode,
            reader,
        })
    }

    /// Asks for changes; gives back why the server does not tell this client of them.
    async fn track(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<RedisError>, RedisError> {
        let tracking: Result<Value, RedisError> = redis::cmd("CLIENT")
            .arg(&["TRACKING", "ON", "BCAST", "PREFIX", self.keyspace.prefix()])
            .query_async(connection)
            .await;
        match tracking {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.code(), Some("ERR" | "NOPERM")) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    async fn connect(
        &self,
        protocol: ProtocolVersion,
        feed: Option<&Arc<Feed>>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = self.speaking(protocol)?;
        // Silence is noticed by pings, so that a long reply is not mistaken for it.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        if let Some(feed) = feed {
            let (feed, keyspace) = (Arc::clone(feed), self.keyspace.clone());
            config = config.set_push_sender(move |push: PushInfo| {
                receive(&feed, &keyspace, push);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    fn speaking(&self, protocol: ProtocolVersion) -> Result<Client, RedisError> {
        let info = self.client.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(protocol);
        Client::open(info.set_redis_settings(redis))
    }

    /// The second best way, or else none: `refused` says why not tracking.
    async fn with_keyspace_events(
        &self,
        connection: &mut MultiplexedConnection,
        feed: &Arc<Feed>,
        refused: RedisError,
    ) -> (Mode, Option<JoinHandle<()>>) {
        let refused = refused.to_string();
        let asked: Result<HashMap<String, String>, RedisError> = redis::cmd("CONFIG")
            .arg(&["GET", "notify-keyspace-events"])
            .query_async(connection)
            .await;
        let flags = asked
            .ok()
            .map(|reply| reply.into_values().next().unwrap_or_default());
        let events = Events::of(flags.as_deref());
        let reader = match events {
            Events::None => None,
            _ => self.subscribe(feed, events == Events::Unknown).await,
        };
        let mode = match (&reader, events) {
            (Some(_), Events::All) => Mode::Keyspace,
            _ => Mode::Poll,
        };
        tracing::warn!(
            refused,
            mode = mode.name(),
            events = events.said(),
            "Redis does not track changes for this client; allow CLIENT TRACKING (Redis 6, +client|tracking) to have them at once, or set notify-keyspace-events to KA"
        );
        (mode, reader)
    }

    /// `proves`: the first event is the proof that there are any.
    async fn subscribe(&self, feed: &Arc<Feed>, proves: bool) -> Option<JoinHandle<()>> {
        let database = self.client.get_connection_info().redis_settings().db();
        let channel = format!("__keyspace@{database}__:");
        let client = self.speaking(ProtocolVersion::RESP2).ok()?;
        let mut subscription = client.get_async_pubsub().await.ok()?;
        let pattern = format!("{channel}{}", self.keyspace.pattern());
        subscription.psubscribe(pattern).await.ok()?;
        let (feed, keyspace) = (Arc::clone(feed), self.keyspace.clone());
        Some(tokio::spawn(async move {
            let mut messages = subscription.into_on_message();
            while let Some(message) = messages.next().await {
                let raw = message.get_channel_name().strip_prefix(&channel);
                if let Some(raw) = raw.filter(|raw| keyspace.covers(raw.as_bytes())) {
                    if proves {
                        feed.prove_events();
                    }
                    feed.changed(raw.as_bytes().to_vec());
                }
            }
            feed.set_lost();
        }))
    }
}

/// Which keyspace events the server sends, by its `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Events {
    /// For every command that changes a route.
    All,
    /// For some of them.
    Some,
    None,
    /// This user may not ask.
    Unknown,
}

impl Events {
    fn of(flags: Option<&str>) -> Events {
        let Some(flags) = flags else {
            return Events::Unknown;
        };
        // Of sets, of hashes, of any type (DEL, RENAME, EXPIRE), and of keys that expire.
        let classes = ['s', 'h', 'g', 'x'];
        let sent = |class: &char| flags.contains(*class) || flags.contains('A');
        match classes.iter().filter(|class| sent(class)).count() {
            _ if !flags.contains('K') => Events::None,
            4 => Events::All,
            0 => Events::None,
            _ => Events::Some,
        }
    }

    fn said(self) -> &'static str {
        match self {
            Events::All => "all",
            Events::Some => "some, so changes may come with the next comparison only",
            Events::None => "none",
            Events::Unknown => "unknown until the first comes: CONFIG is not granted",
        }
    }
}

fn receive(feed: &Feed, keyspace: &Keyspace, push: PushInfo) {
    match push.kind {
        PushKind::Disconnection => feed.set_lost(),
        PushKind::Invalidate => match push.data.into_iter().next() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    if let Value::BulkString(raw) = key
                        && keyspace.covers(&raw)
                    {
                        feed.changed(raw);
                    }
                }
            }
            // FLUSHALL and FLUSHDB name no keys.
            _ => feed.all_changed(),
        },
        _ => {}
    }
}

/// Whether the server knows no RESP3, or does not let this user ask for it.
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
    fn events_count_only_when_they_name_keys_and_cover_every_change() {
        for (flags, events) in [
            ("", Events::None),
            ("K", Events::None),
            ("AE", Events::None),
            ("gshxE", Events::None),
            ("K$lz", Events::None),
            ("Ks", Events::Some),
            ("gsxK", Events::Some),
            ("AK", Events::All),
            ("AKE", Events::All),
            ("gshxK", Events::All),
        ] {
            assert_eq!(Events::of(Some(flags)), events, "{flags:?}");
        }
        assert_eq!(Events::of(None), Events::Unknown);
    }
}
