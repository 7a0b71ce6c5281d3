//! Where routes come from: the validated settings of the redis-sync thread. They are apart from the thread,
//! so that validating a configuration needs neither Redis nor a thread.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Fault;
use crate::route::{AddressPolicy, Key};

/// Sources of routes, and the intervals at which they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSettings {
    /// `None`: no Redis, only static routes.
    pub redis: Option<RedisSettings>,
    /// In the order typed; members of the same host add up. They win over the routes file.
    pub static_routes: Vec<StaticRoute>,
    pub routes_file: Option<PathBuf>,
    /// The table as last known, for a start while Redis does not answer.
    pub snapshot: Option<PathBuf>,
    /// Between two comparisons of the whole table with Redis. They find what live changes missed.
    pub full_comparison: Duration,
    /// Between two pings of Redis.
    pub ping: Duration,
    /// Without an answer for this long the connection to Redis is dropped. TCP alone notices a frozen
    /// server after minutes.
    pub ping_timeout: Duration,
    /// How long hosts stay after Redis has lost more than half of them; 0: they are removed at once. With
    /// a hold no client notices a FLUSHALL by mistake that is followed by a reload of the data.
    pub hold: Duration,
    /// Name servers; empty: those of resolv.conf.
    pub dns_servers: Vec<SocketAddr>,
    /// A DNS answer is used at least this long, whatever its TTL.
    pub dns_ttl_min: Duration,
    /// A DNS name is looked up again after this, whatever the TTL of its answer.
    pub dns_ttl_max: Duration,
    /// Which addresses may be a backend's.
    pub backend_policy: AddressPolicy,
}

/// Which Redis, and under which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    pub url: RedisUrl,
    /// In front of every key.
    pub prefix: String,
    /// Certificates (PEM) to trust for `rediss://`; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// One member or option of a host that `--route` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    /// The host, wildcard or default.
    pub key: Key,
    /// As in a Redis set: a member, or an option of the host.
    pub entry: String,
}

/// A Redis URL of a known form. Printing it leaves the password out; only [`RedisUrl::secret`]
/// gives the password away.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    url: String,
}

impl RedisUrl {
    /// Checks the form: `redis://` or `rediss://` with `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`,
    /// or `unix:///PATH[?db=DATABASE&user=USER&pass=PASSWORD]`. No fault quotes the URL.
    pub(super) fn parse(url: &str) -> Result<RedisUrl, Fault> {
        const FORMS: &str = "write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], the same with \
                             rediss:// for TLS, or unix:///PATH[?db=DATABASE]";
        let fault = |problem: &str| Fault::new(problem, FORMS);
        if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(fault("the URL holds blanks or control characters"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(fault("the value is no URL"));
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, query),
            None => (rest, ""),
        };
        let known_keys: &[&str] = match scheme {
            "redis" | "rediss" => {
                check_server(rest).map_err(fault)?;
                &["protocol"]
            }
            "unix" | "redis+unix" => {
                if !rest.starts_with('/') || rest.len() == 1 {
                    return Err(fault("the path of the socket does not begin with a slash"));
                }
                &["db", "user", "pass", "protocol"]
            }
            _ => return Err(fault("the scheme is none of redis, rediss and unix")),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let key = pair.split('=').next().unwrap_or(pair);
            if !known_keys.contains(&key) {
                return Err(fault("the part behind the question mark is not understood"));
            }
        }
        Ok(RedisUrl {
            url: url.to_owned(),
        })
    }

    /// The whole URL, password included, for the one who connects.
    pub fn secret(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&redact(&self.url))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RedisUrl({})", redact(&self.url))
    }
}

/// `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, or what is wrong with it.
fn check_server(text: &str) -> Result<(), &'static str> {
    let (user, server) = match text.rsplit_once('@') {
        Some((user, server)) => (user, server),
        None => ("", text),
    };
    if user.contains(['/', '#', '@']) || server.contains('#') {
        return Err("user or password holds /, # or @, which must be written %2F, %23 or %40");
    }
    let (server, database) = match server.split_once('/') {
        Some((server, database)) => (server, database),
        None => (server, ""),
    };
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err("the database is no number");
    }
    let (host, port) = match server.strip_prefix('[') {
        Some(literal) => {
            let Some((address, port)) = literal.split_once(']') else {
                return Err("the bracket around the address is not closed");
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("what the brackets hold is no IPv6 address");
            }
            (address, port)
        }
        None => match server.find(':') {
            Some(colon) => server.split_at(colon),
            None => (server, ""),
        },
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err("the port is no number from 1 to 65535"),
    }
}

/// `url` without anything that may be a password: user info keeps its user, a query its keys.
fn redact(url: &str) -> String {
    let (base, query) = match url.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (url, None),
    };
    let mut text = match (base.find("://"), base.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            let user = base[scheme + 3..at].split(':').next().unwrap_or("");
            format!("{}{user}:***{}", &base[..scheme + 3], &base[at..])
        }
        _ => base.to_owned(),
    };
    if let Some(query) = query {
        let keys: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((key @ "db", value)) => format!("{key}={value}"),
                Some((key, _)) => format!("{key}=***"),
                None => pair.to_owned(),
            })
            .collect();
        text.push('?');
        text.push_str(&keys.join("&"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_redis_urls() {
        for url in [
            "redis://127.0.0.1",
            "redis://redis.internal:6380/3",
            "rediss://user:p%40ss@redis.internal:6380/0",
            "redis://:password@[::1]:6379",
            "redis://localhost/",
            "unix:///run/redis.sock?db=2&pass=secret",
            "redis+unix:///run/redis.sock",
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap().secret(), url);
        }
        for url in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:0",
            "redis://host:0",
            "redis://host:65536",
            "redis://host:port",
            "redis://host/one",
            "redis://[::1",
            "redis://[nothing]:6379",
            "redis://a b",
            "redis://user:sec/ret@host",
            "redis://user:sec#ret@host",
            "redis://host?pass=secret",
            "unix://run/redis.sock",
            "unix:///run/redis.sock?password=secret",
        ] {
            let fault = RedisUrl::parse(url).expect_err(url);
            assert!(!fault.problem.contains("secret"), "{fault:?}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        for (url, printed) in [
            ("redis://host:1/2", "redis://host:1/2"),
            ("redis://user:secret@host:1/2", "redis://user:***@host:1/2"),
            ("redis://:secret@host", "redis://:***@host"),
            ("unix:///s?db=1&pass=secret", "unix:///s?db=1&pass=***"),
        ] {
            let url = RedisUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), printed);
            assert!(!format!("{url:?}").contains("secret"));
        }
    }
}
