//! The replication role of the server, as far as the user may ask for it. A replica without a link to its
//! primary has old data or none, and a node of a Cluster has only a part of the keys.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::connection_error::ConnectionError;

/// Whether a server's data are current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replication {
    /// It is a primary, or a replica that is connected to its primary.
    Current,
    /// It is a replica that is not connected to its primary; the state of the link, in its words.
    LinkDown(String),
    /// The user may not ask.
    Unknown,
}

/// Asks with ROLE, or with INFO where ROLE is not granted.
pub(super) async fn replication(
    connection: &mut MultiplexedConnection,
) -> Result<Replication, ConnectionError> {
    let role = redis::cmd("ROLE").query_async::<Value>(connection).await;
    match role {
        Ok(role) => return Ok(from_role(&role)),
        Err(error) if !is_refused(&error) => return Err(error.into()),
        Err(_) => {}
    }
    let mut info = redis::cmd("INFO");
    match info
        .arg("replication")
        .query_async::<String>(connection)
        .await
    {
        Ok(info) => Ok(from_info(&info)),
        Err(error) if is_refused(&error) => Ok(Replication::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// Whether the server says that it is a node of a Cluster: in HELLO (Redis 6.2), or in INFO.
pub(super) async fn is_cluster_node(
    connection: &mut MultiplexedConnection,
) -> Result<bool, ConnectionError> {
    let hello = redis::cmd("HELLO")
        .query_async::<HashMap<String, Value>>(connection)
        .await;
    match hello {
        Ok(hello) => {
            let mode = hello.get("mode").map(text);
            return Ok(mode == Some("cluster"));
        }
        Err(error) if !is_refused(&error) => return Err(error.into()),
        Err(_) => {}
    }
    let mut info = redis::cmd("INFO");
    match info.arg("server").query_async::<String>(connection).await {
        Ok(info) => Ok(field(&info, "redis_mode") == Some("cluster")),
        Err(error) if is_refused(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the server (or a balancer in front of it) answered, but refused this command. The reason does
/// not matter here: an error that concerns every command shows up with the commands that are needed.
fn is_refused(error: &RedisError) -> bool {
    error.code().is_some() || error.kind() == redis::ErrorKind::Parse
}

/// ROLE answers `master`, or `slave` with host, port and the state of the link: connect, connecting,
/// handshake, sync or connected. Any other answer, as of another kind of server, counts as current.
fn from_role(reply: &Value) -> Replication {
    let Value::Array(reply) = reply else {
        return Replication::Unknown;
    };
    match (reply.first().map(text), reply.get(3).map(text)) {
        (
            Some("slave"),
            Some(state @ ("none" | "connect" | "connecting" | "handshake" | "sync")),
        ) => Replication::LinkDown(String::from(state)),
        _ => Replication::Current,
    }
}

fn from_info(info: &str) -> Replication {
    match (field(info, "role"), field(info, "master_link_status")) {
        (Some("slave"), Some("down")) => Replication::LinkDown(String::from("down")),
        (None, _) => Replication::Unknown,
        _ => Replication::Current,
    }
}

/// The value of a field of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs
        .find(|(field, _)| *field == name)
        .map(|(_, value)| value.trim())
}

fn text(value: &Value) -> &str {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        Value::SimpleString(text) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replica_whose_link_is_down_has_old_data() {
        let words = |words: &[&str]| {
            let words = words
                .iter()
                .map(|word| Value::BulkString(word.as_bytes().to_vec()));
            from_role(&Value::Array(words.collect()))
        };
        for state in ["none", "connect", "connecting", "handshake", "sync"] {
            let cut = Replication::LinkDown(String::from(state));
            assert_eq!(words(&["slave", "10.0.0.1", "6379", state, "-1"]), cut);
        }
        assert_eq!(
            words(&["slave", "10.0.0.1", "6379", "connected", "5"]),
            Replication::Current
        );
        assert_eq!(words(&["master", "5", ""]), Replication::Current);
        assert_eq!(
            words(&["replica", "10.0.0.1", "6379", "online"]),
            Replication::Current
        );
        assert_eq!(from_role(&Value::Okay), Replication::Unknown);
        let down = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n";
        assert_eq!(from_info(down), Replication::LinkDown(String::from("down")));
        assert_eq!(from_info(&down.replace("down", "up")), Replication::Current);
        assert_eq!(
            from_info("role:master\r\nconnected_slaves:0\r\n"),
            Replication::Current
        );
        assert_eq!(from_info(""), Replication::Unknown);
    }
}
