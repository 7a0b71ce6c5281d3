//! Where routes come from, checked. Kept apart from the thread that uses it, so that checking a
//! configuration needs neither Redis nor a thread.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Sources of routes and the intervals at which they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSettings {
    pub redis: Option<RedisUrl>,
    /// In front of every Redis key; `hostnames:`.
    pub redis_prefix: String,
    /// (host, member), one pair per member, in the order typed. The defaults are the hosts
    /// `default:https` and `default:http`.
    pub static_routes: Vec<(String, String)>,
    pub routes_file: Option<PathBuf>,
    /// The table as last known, for a start while Redis is away.
    pub snapshot: Option<PathBuf>,
    /// Between two comparisons of the whole table with Redis; 60 s. The floor under the live
    /// changes: what every other way of noticing missed is found after this.
    pub full_comparison: Duration,
    /// Between two pings of the change feed; 2 s.
    pub ping: Duration,
    /// Without an answer for this long the connection is dropped; 2 s. TCP alone notices a frozen
    /// server after minutes.
    pub ping_timeout: Duration,
    /// How long a table that suddenly became empty is not believed; 10 s. FLUSHALL by mistake
    /// followed by a reload goes unnoticed by clients.
    pub hold: Duration,
    /// A DNS answer is used at least this long, whatever its TTL; 5 s.
    pub dns_ttl_min: Duration,
    /// A DNS answer is asked for again after this, whatever its TTL; 5 min.
    pub dns_ttl_max: Duration,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings {
            redis: None,
            redis_prefix: String::from("hostnames:"),
            static_routes: Vec::new(),
            routes_file: None,
            snapshot: None,
            full_comparison: Duration::from_secs(60),
            ping: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(2),
            hold: Duration::from_secs(10),
            dns_ttl_min: Duration::from_secs(5),
            dns_ttl_max: Duration::from_secs(300),
        }
    }
}

/// A Redis URL. Printing it leaves the password out; only [`RedisUrl::secret`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    url: String,
}

impl RedisUrl {
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
