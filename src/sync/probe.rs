//! Pings Redis. Silence is the only sign of a frozen server and of a network that drops everything.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::connection::Loss;
use super::standing::{self, Source};
use super::status::Shared;

/// Notices a server that is frozen or no longer reached, which TCP does not for minutes.
pub(super) struct Prober {
    pub(super) connection: MultiplexedConnection,
    pub(super) ping: Duration,
    pub(super) timeout: Duration,
    /// Whether the user may ask where the data come from; then each ping does.
    pub(super) asks_source: bool,
    pub(super) last_answer: Rc<Cell<Instant>>,
    /// With live tracking, an answer means that no change is under way: the table is confirmed.
    pub(super) confirms: Option<(Rc<Cell<bool>>, Arc<Shared>)>,
}

impl Prober {
    /// Pings until no answer comes.
    pub(super) async fn run(mut self) -> Result<Infallible, Loss> {
        loop {
            tokio::time::sleep(self.ping).await;
            let sent = Instant::now();
            let ping = redis::cmd("PING");
            let asks_source = self.asks_source;
            let connection = &mut self.connection;
            let answer = async {
                match ping.query_async::<Value>(connection).await {
                    Ok(_) => {}
                    // A refusal is an answer too: the user may have no right to ping.
                    Err(error) if error.code().is_some() => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
                if asks_source && let Source::Cut(state) = standing::source(connection).await? {
                    return Err(Loss::NoPrimary(state));
                }
                Ok(true)
            };
            match tokio::time::timeout(self.timeout, answer).await {
                Ok(Ok(true)) => {
                    if let Some((live, shared)) = &self.confirms
                        && live.get()
                    {
                        shared.confirm();
                    }
                }
                Ok(Ok(false)) => {}
                Ok(Err(loss)) => return Err(loss),
                // A long reply may be in front of this one.
                Err(_) if self.last_answer.get() > sent => {}
                Err(_) => return Err(Loss::Silent(self.timeout)),
            }
        }
    }
}
