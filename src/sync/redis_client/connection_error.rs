//! Why the connection to Redis is given up, and what an operator can do about it.

use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, RedisError};

/// What a node of a Redis Cluster means for the routes; logged once.
pub(in crate::sync) const CLUSTER_NODE: &str = "this Redis is a node of a Redis Cluster, and of a \
    Cluster only the keys of this one node are seen; use a Redis outside a Cluster, or keep all \
    keys on this node with a hash tag in the prefix, as in --redis-prefix '{hostnames}:'";

/// Why the connection to Redis is given up. Its text never holds the URL, which may hold a password.
#[derive(Debug)]
pub(in crate::sync) enum ConnectionError {
    Redis(RedisError),
    /// There was no answer within this time.
    Timeout(Duration),
    Closed,
    /// The server is a replica that is not connected to its primary; the state of that link, in the
    /// server's words.
    PrimaryLinkDown(String),
}

impl From<RedisError> for ConnectionError {
    fn from(error: RedisError) -> ConnectionError {
        ConnectionError::Redis(error)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionError::Redis(error) => error.fmt(out),
            ConnectionError::Timeout(after) => write!(out, "no answer within {after:?}"),
            ConnectionError::Closed => write!(out, "the connection was closed"),
            ConnectionError::PrimaryLinkDown(state) => write!(
                out,
                "this Redis is a replica whose link to its primary is {state:?}, so its data may be old or \
                missing and are not used"
            ),
        }
    }
}

impl ConnectionError {
    /// What an operator can do about it.
    pub(in crate::sync) fn remedy(&self) -> &'static str {
        let error = match self {
            ConnectionError::Redis(error) => error,
            ConnectionError::PrimaryLinkDown(_) => {
                return "check that its primary runs and is reached from it (INFO replication), or connect \
                to the primary";
            }
            ConnectionError::Timeout(_) | ConnectionError::Closed => {
                return "check that Redis runs and that the network lets it through";
            }
        };
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                "check user and password of the Redis URL"
            }
            (_, Some("NOPERM")) => {
                "grant the Redis user: +scan +smembers +hgetall +pttl +ping +client|tracking, on keys with \
                the prefix"
            }
            (_, Some("CLUSTERDOWN" | "MOVED" | "ASK" | "CROSSSLOT" | "TRYAGAIN")) => CLUSTER_NODE,
            (_, Some("LOADING" | "MASTERDOWN" | "READONLY")) => {
                "none needed, Redis is getting ready"
            }
            _ => "check that Redis runs, and host, port and TLS of the Redis URL",
        }
    }
}
