//! What kind of server Redis is, as far as the user may ask: a replica without link to its primary has
//! old data or none, and a node of a Cluster has a part of the keys.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::connection::Loss;

/// Said once to whoever connects to a node of a Cluster.
pub(super) const CLUSTER: &str = "this Redis is a node of a Redis Cluster, and of a Cluster only the keys of this one node are seen; use a Redis outside a Cluster, or keep all keys on this node with a hash tag in the prefix, as in --redis-prefix '{hostnames}:'";

/// Where the data of a server come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// From itself, or from a primary that it hears.
    Sound,
    /// From a primary that it does not hear, or not yet; in the server's words.
    Cut(String),
    /// The user may not ask.
    Unknown,
}

/// Asks by ROLE, or by INFO where that is not granted.
pub(super) async fn source(connection: &mut MultiplexedConnection) -> Result<Source, Loss> {
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
        Err(error) if is_refused(&error) => Ok(Source::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// Whether the server says that it is a node of a Cluster: by HELLO (Redis 6.2), or by INFO.
pub(super) async fn is_cluster(connection: &mut MultiplexedConnection) -> Result<bool, Loss> {
    let hello = redis::cmd("HELLO")
        .query_async::<HashMap<String, Value>>(connection)
        .await;
    match hello {
        Ok(hello) => {
            return Ok(hello
                .get("mode")
                .is_some_and(|mode| text(mode) == "cluster"));
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

/// Whether the server, or a balancer in front of it, answered but not this. In whatever words: what is
/// wrong with it as a whole shows with the commands that are needed.
fn is_refused(error: &RedisError) -> bool {
    error.code().is_some() || error.kind() == redis::ErrorKind::Parse
}

/// `master`, or `slave` with host, port and the state of the link: connect, connecting, handshake,
/// sync or connected. Words of other servers are no reason for doubt.
fn from_role(reply: &Value) -> Source {
    let Value::Array(reply) = reply else {
        return Source::Unknown;
    };
    match (reply.first().map(text), reply.get(3).map(text)) {
        (
            Some("slave"),
            Some(state @ ("none" | "connect" | "connecting" | "handshake" | "sync")),
        ) => Source::Cut(String::from(state)),
        _ => Source::Sound,
    }
}

fn from_info(info: &str) -> Source {
    match (field(info, "role"), field(info, "master_link_status")) {
        (Some("slave"), Some("down")) => Source::Cut(String::from("down")),
        (None, _) => Source::Unknown,
        _ => Source::Sound,
    }
}

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
    fn only_a_replica_whose_link_is_down_is_doubted() {
        let words = |words: &[&str]| {
            let words = words
                .iter()
                .map(|word| Value::BulkString(word.as_bytes().to_vec()));
            from_role(&Value::Array(words.collect()))
        };
        for state in ["none", "connect", "connecting", "handshake", "sync"] {
            let cut = Source::Cut(String::from(state));
            assert_eq!(words(&["slave", "10.0.0.1", "6379", state, "-1"]), cut);
        }
        assert_eq!(
            words(&["slave", "10.0.0.1", "6379", "connected", "5"]),
            Source::Sound
        );
        assert_eq!(words(&["master", "5", ""]), Source::Sound);
        assert_eq!(
            words(&["replica", "10.0.0.1", "6379", "online"]),
            Source::Sound
        );
        assert_eq!(from_role(&Value::Okay), Source::Unknown);
        let down = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n";
        assert_eq!(from_info(down), Source::Cut(String::from("down")));
        assert_eq!(from_info(&down.replace("down", "up")), Source::Sound);
        assert_eq!(
            from_info("role:master\r\nconnected_slaves:0\r\n"),
            Source::Sound
        );
        assert_eq!(from_info(""), Source::Unknown);
    }
}
