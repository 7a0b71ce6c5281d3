//! Pings Redis. TCP notices a frozen server, or a network that drops every packet, only after minutes.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::connection_error::ConnectionError;
use super::replication::{Replication, replication};

/// Pings on one connection.
pub(super) struct Pinger {
    pub(super) connection: MultiplexedConnection,
    /// Between two pings.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Whether the user may ask for the replication role. Then each ping does.
    pub(super) asks_replication: bool,
    /// When Redis last answered with data.
    pub(super) last_answer: Rc<Cell<Instant>>,
}

impl Pinger {
    /// Pings until no answer comes. `on_pong` is called with each answer to PING; it is not called when
    /// the server answers that this user may not ping.
    pub(super) async fn run(mut self, on_pong: impl Fn()) -> Result<Infallible, ConnectionError> {
        loop {
            tokio::time::sleep(self.interval).await;
            let sent = Instant::now();
            match tokio::time::timeout(self.timeout, self.ping()).await {
                Ok(Ok(Pong::Allowed)) => on_pong(),
                Ok(Ok(Pong::Refused)) => {}
                Ok(Err(error)) => return Err(error),
                // A long reply may be in front of the answer.
                Err(_) if self.last_answer.get() > sent => {}
                Err(_) => return Err(ConnectionError::Timeout(self.timeout)),
            }
        }
    }

    async fn ping(&mut self) -> Result<Pong, ConnectionError> {
        let ping = redis::cmd("PING");
        match ping.query_async::<Value>(&mut self.connection).await {
            Ok(_) => {}
            Err(error) if error.code().is_some() => return Ok(Pong::Refused),
            Err(error) => return Err(error.into()),
        }
        if self.asks_replication
            && let Replication::LinkDown(state) = replication(&mut self.connection).await?
        {
            return Err(ConnectionError::PrimaryLinkDown(state));
        }
        Ok(Pong::Allowed)
    }
}

/// An answer to PING. A refusal is one, too: the server is there.
enum Pong {
    Allowed,
    Refused,
}
