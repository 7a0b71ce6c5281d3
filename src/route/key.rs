//! The key of a route: a name, a wildcard or the default of a protocol. Redis, the routes file, `--route`
//! and the snapshot all use this one type, so that a key means the same in all of them.

use std::fmt;

use crate::host::{Host, HostError};
use crate::protocol::Protocol;

/// The key of a route in the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Exactly this name.
    Host(Host),
    /// All names that have one or more labels in front of this name; not the name itself.
    Wildcard(Host),
    /// Names that no other key matches, and connections without a name.
    Default(Protocol),
}

/// Where a route comes from. Under one key a route from Redis wins over a static one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Static,
    Redis,
}

/// Why a text is no [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyError {
    Name(HostError),
    /// `*` elsewhere than in `*.` at the beginning.
    Wildcard,
    /// `default:` and an unknown protocol.
    Default,
}

impl fmt::Display for KeyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Name(error) => error.fmt(out),
            KeyError::Wildcard => write!(
                out,
                "a wildcard is '*.' in front of a domain, as in *.example.com; for every name set the default"
            ),
            KeyError::Default => write!(out, "the defaults are default:https and default:http"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// Reads `name`, `*.name`, `default:https`, `default:http`, or `default:tcp`, which only
    /// `pointsman unwrap` uses.
    pub(crate) fn parse(text: &str) -> Result<Key, KeyError> {
        if let Some(protocol) = text.strip_prefix("default:") {
            return match protocol {
                "https" => Ok(Key::Default(Protocol::Tls)),
                "http" => Ok(Key::Default(Protocol::Http)),
                "tcp" => Ok(Key::Default(Protocol::Tcp)),
                _ => Err(KeyError::Default),
            };
        }
        Key::parse_name(text)
    }

    /// Reads `name` or `*.name`, which is what a key in Redis has between its prefix and its suffix.
    pub(crate) fn parse_name(text: &str) -> Result<Key, KeyError> {
        let Some(suffix) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(KeyError::Wildcard);
            }
            return Host::from_operator(text)
                .map(Key::Host)
                .map_err(KeyError::Name);
        };
        let suffix = Host::from_operator(suffix).map_err(|error| match error {
            HostError::BadByte(b'*') => KeyError::Wildcard,
            other => KeyError::Name(other),
        })?;
        if suffix.is_ip_literal() {
            return Err(KeyError::Wildcard);
        }
        Ok(Key::Wildcard(suffix))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Host(host) => write!(out, "{host}"),
            Key::Wildcard(suffix) => write!(out, "*.{suffix}"),
            Key::Default(Protocol::Tls) => write!(out, "default:https"),
            Key::Default(Protocol::Http) => write!(out, "default:http"),
            Key::Default(Protocol::Tcp) => write!(out, "default:tcp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_prints_what_it_parses() {
        for text in [
            "a.test",
            "*.a.test",
            "default:https",
            "default:http",
            "default:tcp",
        ] {
            assert_eq!(Key::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Key::parse("*.A.Test.").unwrap().to_string(), "*.a.test");
    }

    #[test]
    fn misplaced_stars_and_unknown_defaults_are_refused() {
        for text in ["*", "a.*.test", "*.*.test", "*.10.0.0.1", "*a.test"] {
            assert_eq!(Key::parse(text), Err(KeyError::Wildcard), "{text}");
        }
        assert_eq!(Key::parse("default:ftp"), Err(KeyError::Default));
        assert!(matches!(Key::parse("a b"), Err(KeyError::Name(_))));
        assert!(matches!(
            Key::parse("*."),
            Err(KeyError::Name(HostError::Empty))
        ));
    }
}
