//! Redis keys ↔ what routes are filed under. The schema is that of the 2013 program:
//! `hostnames:<host>:backends`, and two defaults that no host name can collide with.

use std::fmt;

use crate::protocol::Protocol;
use crate::route::{Key, KeyError};

const SUFFIX: &str = ":backends";
/// Of the hash with the options of a host, beside the set of its backends.
const OPTIONS_SUFFIX: &str = ":options";
const DEFAULT_TLS: &str = "httpsDefault";
const DEFAULT_HTTP: &str = "httpDefault";

/// The keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keyspace {
    prefix: String,
}

/// Why a Redis key is no [`Key`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadKey {
    NotText,
    Key(KeyError),
}

impl fmt::Display for BadKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKey::NotText => write!(out, "the key is no UTF-8 text; remove it"),
            BadKey::Key(error) => error.fmt(out),
        }
    }
}

impl Keyspace {
    pub(super) fn new(prefix: &str) -> Keyspace {
        let prefix = prefix.to_owned();
        Keyspace { prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the key has the form of a route's; other keys under the prefix are not ours.
    pub(super) fn covers(&self, raw: &[u8]) -> bool {
        self.middle(raw).is_some()
    }

    /// What a Redis key files its route under. Several spellings may mean the same.
    pub(super) fn key(&self, raw: &[u8]) -> Result<Key, BadKey> {
        let middle = self.middle(raw).unwrap_or_default();
        match std::str::from_utf8(middle) {
            Ok(DEFAULT_TLS) => Ok(Key::Default(Protocol::Tls)),
            Ok(DEFAULT_HTTP) => Ok(Key::Default(Protocol::Http)),
            Ok(name) => Key::parse_name(name).map_err(BadKey::Key),
            Err(_) => Err(BadKey::NotText),
        }
    }

    /// The one canonical spelling.
    pub(super) fn raw(&self, key: &Key) -> Vec<u8> {
        let prefix = &self.prefix;
        match key {
            Key::Default(Protocol::Tls) => format!("{prefix}{DEFAULT_TLS}{SUFFIX}"),
            Key::Default(Protocol::Http) => format!("{prefix}{DEFAULT_HTTP}{SUFFIX}"),
            named => format!("{prefix}{named}{SUFFIX}"),
        }
        .into_bytes()
    }

    /// The key of the backends beside a key of options, and any other key as it is.
    pub(super) fn beside_options(&self, raw: Vec<u8>) -> Vec<u8> {
        match raw.strip_suffix(OPTIONS_SUFFIX.as_bytes()) {
            Some(name) => [name, SUFFIX.as_bytes()].concat(),
            None => raw,
        }
    }

    /// The key of the options beside a key of backends.
    pub(super) fn options_beside(&self, raw: &[u8]) -> Vec<u8> {
        let name = raw.strip_suffix(SUFFIX.as_bytes()).unwrap_or(raw);
        [name, OPTIONS_SUFFIX.as_bytes()].concat()
    }

    /// A glob-style pattern of all keys, the prefix taken literally; [`Keyspace::covers`] says of
    /// what it finds which are ours.
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

    fn middle<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        let rest = raw.strip_prefix(self.prefix.as_bytes())?;
        rest.strip_suffix(SUFFIX.as_bytes())
            .or_else(|| rest.strip_suffix(OPTIONS_SUFFIX.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_schema_and_back() {
        let keyspace = Keyspace::new("hostnames:");
        for (raw, key) in [
            ("hostnames:a.test:backends", "a.test"),
            ("hostnames:*.a.test:backends", "*.a.test"),
            ("hostnames:httpsDefault:backends", "default:https"),
            ("hostnames:httpDefault:backends", "default:http"),
            ("hostnames:httpdefault:backends", "httpdefault"),
        ] {
            let parsed = keyspace.key(raw.as_bytes()).unwrap();
            assert_eq!(parsed, Key::parse(key).unwrap());
            assert_eq!(keyspace.raw(&parsed), raw.as_bytes());
        }
        let odd = keyspace.key(b"hostnames:A.Test.:backends").unwrap();
        assert_eq!(keyspace.raw(&odd), b"hostnames:a.test:backends");
    }

    #[test]
    fn other_keys_are_not_ours_and_bad_ones_are_named() {
        let keyspace = Keyspace::new("p[*]:");
        assert_eq!(keyspace.pattern(), "p\\[\\*\\]:*:[bo]*s");
        assert!(!keyspace.covers(b"p[*]:a.test:hits") && !keyspace.covers(b"a.test:backends"));
        assert!(keyspace.covers(b"p[*]::backends"));
        assert!(keyspace.covers(b"p[*]:a.test:options"));
        let backends = keyspace.beside_options(b"p[*]:a.test:options".to_vec());
        assert_eq!(backends, b"p[*]:a.test:backends");
        assert_eq!(keyspace.options_beside(&backends), b"p[*]:a.test:options");
        assert_eq!(keyspace.key(b"p[*]:\xff:backends"), Err(BadKey::NotText));
        for bad in ["", "a.test:8080", "a b", "*", "default:https"] {
            let raw = format!("p[*]:{bad}:backends");
            assert!(
                matches!(keyspace.key(raw.as_bytes()), Err(BadKey::Key(_))),
                "{bad}"
            );
        }
    }
}
