//! The names of keys in Redis. A host's members are in `hostnames:<host>:backends`, its options in
//! `hostnames:<host>:options`; two names that are no host names stand for the defaults. Other programs
//! have used this schema since 2013.

use std::fmt;

use crate::protocol::Protocol;
use crate::route::{Key, KeyError};

/// Ends the key of the set with the members of a host.
const SUFFIX: &str = ":backends";
/// Ends the key of the hash with the options of a host.
const OPTIONS_SUFFIX: &str = ":options";
const DEFAULT_TLS: &str = "httpsDefault";
const DEFAULT_HTTP: &str = "httpDefault";

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct KeySchema {
    prefix: String,
}

/// Why a Redis key names no host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadKey {
    NotText,
    Key(KeyError),
}

impl fmt::Display for BadKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKey::NotText => write!(out, "the key is not UTF-8; remove it"),
            BadKey::Key(error) => error.fmt(out),
        }
    }
}

impl KeySchema {
    pub(super) fn new(prefix: &str) -> KeySchema {
        let prefix = prefix.to_owned();
        KeySchema { prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the key is one of a host. Other programs may have other keys below the prefix.
    pub(super) fn covers(&self, redis_key: &[u8]) -> bool {
        self.name(redis_key).is_some()
    }

    /// The host, wildcard or default that a Redis key is of. Several Redis keys may be of the same one.
    pub(super) fn key(&self, redis_key: &[u8]) -> Result<Key, BadKey> {
        let name = self.name(redis_key).unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(DEFAULT_TLS) => Ok(Key::Default(Protocol::Tls)),
            Ok(DEFAULT_HTTP) => Ok(Key::Default(Protocol::Http)),
            Ok(name) => Key::parse_name(name).map_err(BadKey::Key),
            Err(_) => Err(BadKey::NotText),
        }
    }

    /// The Redis key of the members, as it is written canonically.
    pub(super) fn redis_key(&self, key: &Key) -> Vec<u8> {
        let prefix = &self.prefix;
        match key {
            Key::Default(Protocol::Tls) => format!("{prefix}{DEFAULT_TLS}{SUFFIX}"),
            Key::Default(Protocol::Http) => format!("{prefix}{DEFAULT_HTTP}{SUFFIX}"),
            named => format!("{prefix}{named}{SUFFIX}"),
        }
        .into_bytes()
    }

    /// The key of the members of the same host, for a key of options; any other key as it is.
    pub(super) fn members_key(&self, redis_key: Vec<u8>) -> Vec<u8> {
        match redis_key.strip_suffix(OPTIONS_SUFFIX.as_bytes()) {
            Some(name) => [name, SUFFIX.as_bytes()].concat(),
            None => redis_key,
        }
    }

    /// The key of the options of the same host, for a key of members.
    pub(super) fn options_key(&self, members_key: &[u8]) -> Vec<u8> {
        let name = members_key.strip_suffix(SUFFIX.as_bytes());
        let name = name.unwrap_or(members_key);
        [name, OPTIONS_SUFFIX.as_bytes()].concat()
    }

    /// A glob-style pattern that matches all keys of hosts, and maybe others. In the prefix no character
    /// has a special meaning.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "*:[bo]*s"
    }

    /// What stands between prefix and suffix.
    fn name<'a>(&self, redis_key: &'a [u8]) -> Option<&'a [u8]> {
        let rest = redis_key.strip_prefix(self.prefix.as_bytes())?;
        rest.strip_suffix(SUFFIX.as_bytes())
            .or_else(|| rest.strip_suffix(OPTIONS_SUFFIX.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_schema_and_back() {
        let schema = KeySchema::new("hostnames:");
        for (raw, key) in [
            ("hostnames:a.test:backends", "a.test"),
            ("hostnames:*.a.test:backends", "*.a.test"),
            ("hostnames:httpsDefault:backends", "default:https"),
            ("hostnames:httpDefault:backends", "default:http"),
            ("hostnames:httpdefault:backends", "httpdefault"),
        ] {
            let parsed = schema.key(raw.as_bytes()).unwrap();
            assert_eq!(parsed, Key::parse(key).unwrap());
            assert_eq!(schema.redis_key(&parsed), raw.as_bytes());
        }
        let odd = schema.key(b"hostnames:A.Test.:backends").unwrap();
        assert_eq!(schema.redis_key(&odd), b"hostnames:a.test:backends");
    }

    #[test]
    fn keys_of_other_programs_are_left_alone_and_bad_ones_are_named() {
        let schema = KeySchema::new("p[*]:");
        assert_eq!(schema.pattern(), "p\\[\\*\\]:*:[bo]*s");
        assert!(!schema.covers(b"p[*]:a.test:hits") && !schema.covers(b"a.test:backends"));
        assert!(schema.covers(b"p[*]::backends"));
        assert!(schema.covers(b"p[*]:a.test:options"));
        let backends = schema.members_key(b"p[*]:a.test:options".to_vec());
        assert_eq!(backends, b"p[*]:a.test:backends");
        assert_eq!(schema.options_key(&backends), b"p[*]:a.test:options");
        assert_eq!(schema.key(b"p[*]:\xff:backends"), Err(BadKey::NotText));
        for bad in ["", "a.test:8080", "a b", "*", "default:https"] {
            let raw = format!("p[*]:{bad}:backends");
            assert!(
                matches!(schema.key(raw.as_bytes()), Err(BadKey::Key(_))),
                "{bad}"
            );
        }
    }
}
