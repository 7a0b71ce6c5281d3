//! Takes Redis's replies about one key apart. An error is either a [`KeyProblem`], which concerns this key
//! alone: the key is rejected and the others are read. Or it is a [`ConnectionError`], which ends the
//! connection. A client that may write one key must not be able to end the reading of the others.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::super::rejected_entries::RejectedEntries;
use super::connection_error::ConnectionError;
use crate::route::option_entry;

/// Bytes of a member or an option. The longest useful entry is an option with a list of members.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// What is wrong with one key as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyProblem {
    /// The key exists and holds nothing that can be used.
    Unusable(String),
    /// Redis did not say what the key holds, so the last known value stays in use.
    Unreadable(String),
}

/// What the three replies about one key say.
#[derive(Debug, Default)]
pub(super) struct KeyReply {
    /// Members, and options in the form that they have among members.
    pub(super) entries: Vec<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) exists: bool,
    pub(super) problem: Option<KeyProblem>,
}

impl KeyReply {
    /// Takes the replies to SMEMBERS, PTTL and HGETALL. Entries that cannot be used go to `rejected`.
    pub(super) fn read(
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
        rejected: &mut RejectedEntries,
    ) -> Result<KeyReply, ConnectionError> {
        let set: Result<Vec<Vec<u8>>, CommandError> = next(replies)?;
        let ttl: Result<i64, CommandError> = next(replies)?;
        let options: Result<HashMap<Vec<u8>, Vec<u8>>, CommandError> = next(replies)?;
        let mut reply = KeyReply::default();
        match set {
            Ok(members) => {
                reply.exists = !members.is_empty();
                let members = members.into_iter().filter_map(|raw| member(raw, rejected));
                reply.entries.extend(members);
            }
            Err(error) => {
                reply.exists = true;
                let problem = error.key_problem("the key is not a set; delete it and use SADD")?;
                reply.problem = Some(problem);
            }
        }
        match ttl {
            Ok(ttl) => reply.ttl = u64::try_from(ttl).ok().map(Duration::from_millis),
            // A user who may not read the set may not read its TTL either.
            Err(error) => {
                let problem = error.key_problem("the key has no time to live")?;
                reply.problem.get_or_insert(problem);
            }
        }
        match options {
            Ok(options) => {
                reply.exists |= !options.is_empty();
                let options = options.into_iter();
                let options = options.filter_map(|(field, value)| option(&field, value, rejected));
                reply.entries.extend(options);
            }
            // For a user who may not read options there are none.
            Err(CommandError::Denied(_)) => {}
            Err(error) => {
                let problem = error
                    .key_problem("the key of the options is not a hash; delete it and use HSET")?;
                reply.problem.get_or_insert(problem);
            }
        }
        Ok(reply)
    }
}

/// Why one command about one key has no usable reply.
enum CommandError {
    /// The key holds another type than the command is for.
    WrongType,
    /// The reply is of a form that the command does not have.
    Form(String),
    /// The user may not read the key, or may not give the command at all.
    Denied(RedisError),
}

impl CommandError {
    /// What the error says about the key. It is an error of the connection when the user may not give the
    /// command at all.
    fn key_problem(self, wrong_type: &str) -> Result<KeyProblem, ConnectionError> {
        match self {
            CommandError::WrongType => Ok(KeyProblem::Unusable(String::from(wrong_type))),
            CommandError::Form(error) => Ok(KeyProblem::Unreadable(format!(
                "the reply is not understood: {error}"
            ))),
            // About a key it is "No permissions to access a key" (Redis 7) or "to access one of the keys"
            // (Redis 6), about a command "to run the 'smembers' command" (both).
            CommandError::Denied(error)
                if error.detail().is_some_and(|why| why.contains("access")) =>
            {
                Ok(KeyProblem::Unreadable(String::from(
                    "the Redis user may not read the key; grant it, or remove the key",
                )))
            }
            CommandError::Denied(error) => Err(error.into()),
        }
    }
}

fn next<T: FromRedisValue>(
    replies: &mut impl Iterator<Item = RedisResult<Value>>,
) -> Result<Result<T, CommandError>, ConnectionError> {
    let missing = || RedisError::from((ErrorKind::Client, "a reply is missing"));
    match replies.next().ok_or_else(missing)? {
        Ok(value) => {
            let value = redis::from_redis_value(value);
            Ok(value.map_err(|error| CommandError::Form(error.to_string())))
        }
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Err(CommandError::WrongType)),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Ok(Err(CommandError::Denied(error)))
        }
        Err(error) => Err(error.into()),
    }
}

fn member(raw: Vec<u8>, rejected: &mut RejectedEntries) -> Option<String> {
    if raw.len() > ENTRY_BYTES_MAX {
        rejected.add(|| {
            let member = shown(&raw);
            format!("member \"{member}\"… is longer than {ENTRY_BYTES_MAX} bytes; remove it")
        });
        return None;
    }
    let text = String::from_utf8(raw).map_err(|error| {
        let member = shown(error.as_bytes());
        rejected.add(|| format!("member \"{member}\" is not UTF-8; remove it"));
    });
    text.ok()
}

fn option(field: &[u8], value: Vec<u8>, rejected: &mut RejectedEntries) -> Option<String> {
    if field.len() + value.len() > ENTRY_BYTES_MAX {
        rejected.add(|| {
            let field = shown(field);
            format!("option \"{field}\" is longer than {ENTRY_BYTES_MAX} bytes; shorten it")
        });
        return None;
    }
    match (std::str::from_utf8(field), std::str::from_utf8(&value)) {
        (Ok(field), Ok(value)) => Some(option_entry(field, value)),
        _ => {
            rejected.add(|| {
                let (field, value) = (shown(field), shown(&value));
                format!("option \"{field}={value}\" is not UTF-8; set it anew or remove it")
            });
            None
        }
    }
}

/// The start of bytes that may be of any kind and length, in characters that are safe to print.
fn shown(raw: &[u8]) -> impl fmt::Display + '_ {
    raw[..raw.len().min(100)].escape_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &[u8]) -> Value {
        Value::BulkString(text.to_vec())
    }

    fn set(members: &[&[u8]]) -> RedisResult<Value> {
        Ok(Value::Set(members.iter().map(|one| bulk(one)).collect()))
    }

    fn hash(options: &[(&[u8], &[u8])]) -> RedisResult<Value> {
        let pairs = options
            .iter()
            .map(|(field, value)| (bulk(field), bulk(value)));
        Ok(Value::Map(pairs.collect()))
    }

    fn read(
        replies: [RedisResult<Value>; 3],
    ) -> (Result<KeyReply, ConnectionError>, RejectedEntries) {
        let mut rejected = RejectedEntries::default();
        let reply = KeyReply::read(&mut replies.into_iter(), &mut rejected);
        (reply, rejected)
    }

    #[test]
    fn entries_that_cannot_be_used_are_named_and_the_others_are_used() {
        let long = vec![b'x'; ENTRY_BYTES_MAX];
        let (reply, rejected) = read([
            set(&[b"10.0.0.1", b"\xff\xfe"]),
            Ok(Value::Int(1500)),
            hash(&[
                (b"balance", b"source"),
                (b"queue", b"\xff"),
                (b"\xfe", b"1"),
                (b"acme", &long),
            ]),
        ]);
        let reply = reply.unwrap();
        assert_eq!(reply.entries, ["10.0.0.1", "@balance=source"]);
        assert_eq!(reply.ttl, Some(Duration::from_millis(1500)));
        assert!(reply.exists && reply.problem.is_none());
        assert_eq!(rejected.count(), 4);
        let mut reasons = rejected.into_reasons();
        reasons.sort_unstable();
        assert!(
            reasons[0].starts_with("member \"\\xff\\xfe\" is not UTF-8"),
            "{reasons:?}"
        );
        assert!(
            reasons[1].starts_with("option \"\\xfe=1\" is not UTF-8"),
            "{reasons:?}"
        );
        assert!(
            reasons[2].starts_with("option \"acme\" is longer"),
            "{reasons:?}"
        );
        assert!(
            reasons[3].starts_with("option \"queue=\\xff\" is not UTF-8"),
            "{reasons:?}"
        );
    }

    #[test]
    fn an_error_about_a_key_does_not_close_the_connection_and_the_others_do() {
        let error = |code: &str, why: &str| {
            Err(redis::make_extension_error(
                code.to_owned(),
                Some(why.to_owned()),
            ))
        };
        let nothing = || Ok(Value::Map(Vec::new()));
        let no_ttl = || Ok(Value::Int(-1));
        let problem = |set, options| read([set, no_ttl(), options]).0.unwrap().problem;
        let unusable = |problem| matches!(problem, Some(KeyProblem::Unusable(_)));
        let unreadable = |problem| matches!(problem, Some(KeyProblem::Unreadable(_)));
        assert!(unusable(problem(
            error("WRONGTYPE", "wrong kind"),
            nothing()
        )));
        assert!(unusable(problem(
            set(&[b"a"]),
            error("WRONGTYPE", "wrong kind")
        )));
        // Replies of a form that none of these commands has.
        assert!(unreadable(problem(Ok(Value::Int(7)), nothing())));
        assert!(unreadable(problem(set(&[b"a"]), Ok(Value::Boolean(true)))));
        for code in [
            "LOADING",
            "MASTERDOWN",
            "NOAUTH",
            "MOVED",
            "CLUSTERDOWN",
            "ERR",
        ] {
            for place in 0..3 {
                let mut replies = [set(&[b"a"]), no_ttl(), nothing()];
                replies[place] = error(code, "not now");
                assert!(read(replies).0.is_err(), "{code} at {place}");
            }
        }
    }
}
