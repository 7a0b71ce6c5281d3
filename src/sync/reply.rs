//! What Redis answers about one key, taken apart. There are two kinds of error, in two types: a
//! [`KeyFault`] is about that key, which is rejected and named while all else goes on; a [`Loss`] is
//! about the connection. Whoever may write one key must not end the reading of the others.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::connection::Loss;
use crate::route::option_entry;

/// Members of one host that are used. A set has no end, and everything about a host is done once for
/// each of its members: choosing, counting, checking, on every core. No host needs more backends than
/// this, and that many are taken apart in some milliseconds.
pub(super) const MEMBERS_MAX: usize = 4_096;

/// Bytes of a member or an option. The longest that makes sense is an option with a list of members.
const ENTRY_MAX: usize = 64 * 1024;

/// Reasons of one key that are kept in words; the rest is a count, so that a set of a million
/// mistakes costs no million sentences.
const REASONS_MAX: usize = 5;

/// Characters of a reason; it may quote what has no bound of its own.
const REASON_MAX: usize = 300;

/// What is wrong with one key as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyFault {
    /// Known to be something else than what it should be: the name exists, with nothing usable.
    Unusable(String),
    /// Redis did not say what it holds, so what was known of it stays.
    Unreadable(String),
}

/// The entries of a host that are rejected.
#[derive(Debug, Default)]
pub(super) struct Faults {
    count: usize,
    reasons: Vec<String>,
}

impl Faults {
    pub(super) fn note(&mut self, reason: impl FnOnce() -> String) {
        self.note_many(1, reason);
    }

    /// Several for one reason.
    pub(super) fn note_many(&mut self, count: usize, reason: impl FnOnce() -> String) {
        self.count += count;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(format!("{:.REASON_MAX$}", reason()));
        }
    }

    /// Says whose the last reason is.
    pub(super) fn name_last(&mut self, name: impl FnOnce() -> String) {
        if self.count <= REASONS_MAX
            && let Some(last) = self.reasons.last_mut()
        {
            *last = format!("{}: {last}", name());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn into_reasons(self) -> Vec<String> {
        self.reasons
    }
}

/// What the three replies about one spelling of a name say.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Members, and options in their form among members.
    pub(super) entries: Vec<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) exists: bool,
    pub(super) fault: Option<KeyFault>,
}

impl Answer {
    /// Takes the replies to SMEMBERS, PTTL and HGETALL. Entries that cannot be used go to `faults`.
    pub(super) fn read(
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
        faults: &mut Faults,
    ) -> Result<Answer, Loss> {
        let set: Result<Vec<Vec<u8>>, Fault> = next(replies)?;
        let ttl: Result<i64, Fault> = next(replies)?;
        let options: Result<HashMap<Vec<u8>, Vec<u8>>, Fault> = next(replies)?;
        let mut answer = Answer::default();
        match set {
            Ok(members) => {
                answer.exists = !members.is_empty();
                let members = members.into_iter().filter_map(|raw| member(raw, faults));
                answer.entries.extend(members);
            }
            Err(fault) => {
                answer.exists = true;
                answer.fault = Some(fault.of_key("the key is no set; delete it and use SADD")?);
            }
        }
        match ttl {
            Ok(ttl) => answer.ttl = u64::try_from(ttl).ok().map(Duration::from_millis),
            // What denies the set denies this too.
            Err(fault) => {
                let fault = fault.of_key("the key has no time to live")?;
                answer.fault.get_or_insert(fault);
            }
        }
        match options {
            Ok(options) => {
                answer.exists |= !options.is_empty();
                let options = options.into_iter();
                let options = options.filter_map(|(field, value)| option(&field, value, faults));
                answer.entries.extend(options);
            }
            // A user who may not read options has none.
            Err(Fault::Denied(_)) => {}
            Err(fault) => {
                let fault =
                    fault.of_key("the key of the options is no hash; delete it and use HSET")?;
                answer.fault.get_or_insert(fault);
            }
        }
        Ok(answer)
    }
}

/// Why one command about one key has no usable reply.
enum Fault {
    Type,
    Form(String),
    Denied(RedisError),
}

impl Fault {
    /// What that says of the key; whoever may not give the command at all has lost the connection.
    fn of_key(self, wrong_type: &str) -> Result<KeyFault, Loss> {
        match self {
            Fault::Type => Ok(KeyFault::Unusable(String::from(wrong_type))),
            Fault::Form(error) => Ok(KeyFault::Unreadable(format!(
                "the reply is not understood: {error}"
            ))),
            // "No permissions to access a key" (Redis 7), "to access one of the keys" (6), and
            // "to run the 'smembers' command" in both.
            Fault::Denied(error) if error.detail().is_some_and(|why| why.contains("access")) => {
                Ok(KeyFault::Unreadable(String::from(
                    "the Redis user may not read the key; grant it, or remove the key",
                )))
            }
            Fault::Denied(error) => Err(error.into()),
        }
    }
}

fn next<T: FromRedisValue>(
    replies: &mut impl Iterator<Item = RedisResult<Value>>,
) -> Result<Result<T, Fault>, Loss> {
    let missing = || RedisError::from((ErrorKind::Client, "a reply is missing"));
    match replies.next().ok_or_else(missing)? {
        Ok(value) => {
            Ok(redis::from_redis_value(value).map_err(|error| Fault::Form(error.to_string())))
        }
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Err(Fault::Type)),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Ok(Err(Fault::Denied(error)))
        }
        Err(error) => Err(error.into()),
    }
}

fn member(raw: Vec<u8>, faults: &mut Faults) -> Option<String> {
    if raw.len() > ENTRY_MAX {
        faults.note(|| {
            let member = shown(&raw);
            format!("member \"{member}\"… is longer than {ENTRY_MAX} bytes; remove it")
        });
        return None;
    }
    let text = String::from_utf8(raw).map_err(|error| {
        let member = shown(error.as_bytes());
        faults.note(|| format!("member \"{member}\" is no UTF-8 text; remove it"));
    });
    text.ok()
}

fn option(field: &[u8], value: Vec<u8>, faults: &mut Faults) -> Option<String> {
    if field.len() + value.len() > ENTRY_MAX {
        faults.note(|| {
            let field = shown(field);
            format!("option \"{field}\" is longer than {ENTRY_MAX} bytes; shorten it")
        });
        return None;
    }
    match (std::str::from_utf8(field), std::str::from_utf8(&value)) {
        (Ok(field), Ok(value)) => Some(option_entry(field, value)),
        _ => {
            faults.note(|| {
                let (field, value) = (shown(field), shown(&value));
                format!("option \"{field}={value}\" is no UTF-8 text; set it anew or remove it")
            });
            None
        }
    }
}

/// The start of what may be no text and of any length, in characters that are safe to print.
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

    fn read(replies: [RedisResult<Value>; 3]) -> (Result<Answer, Loss>, Faults) {
        let mut faults = Faults::default();
        let answer = Answer::read(&mut replies.into_iter(), &mut faults);
        (answer, faults)
    }

    #[test]
    fn what_cannot_be_used_is_named_and_the_rest_counts() {
        let long = vec![b'x'; ENTRY_MAX];
        let (answer, faults) = read([
            set(&[b"10.0.0.1", b"\xff\xfe"]),
            Ok(Value::Int(1500)),
            hash(&[
                (b"balance", b"source"),
                (b"queue", b"\xff"),
                (b"\xfe", b"1"),
                (b"acme", &long),
            ]),
        ]);
        let answer = answer.unwrap();
        assert_eq!(answer.entries, ["10.0.0.1", "@balance=source"]);
        assert_eq!(answer.ttl, Some(Duration::from_millis(1500)));
        assert!(answer.exists && answer.fault.is_none());
        assert_eq!(faults.count(), 4);
        let mut reasons = faults.into_reasons();
        reasons.sort_unstable();
        assert!(
            reasons[0].starts_with("member \"\\xff\\xfe\" is no UTF-8"),
            "{reasons:?}"
        );
        assert!(
            reasons[1].starts_with("option \"\\xfe=1\" is no UTF-8"),
            "{reasons:?}"
        );
        assert!(
            reasons[2].starts_with("option \"acme\" is longer"),
            "{reasons:?}"
        );
        assert!(
            reasons[3].starts_with("option \"queue=\\xff\" is no UTF-8"),
            "{reasons:?}"
        );
    }

    #[test]
    fn an_error_about_a_key_is_no_loss_and_the_others_are() {
        let error = |code: &str, why: &str| {
            Err(redis::make_extension_error(
                code.to_owned(),
                Some(why.to_owned()),
            ))
        };
        let nothing = || Ok(Value::Map(Vec::new()));
        let no_ttl = || Ok(Value::Int(-1));
        let fault = |set, options| read([set, no_ttl(), options]).0.unwrap().fault;
        let unusable = |fault| matches!(fault, Some(KeyFault::Unusable(_)));
        let unreadable = |fault| matches!(fault, Some(KeyFault::Unreadable(_)));
        assert!(unusable(fault(error("WRONGTYPE", "wrong kind"), nothing())));
        assert!(unusable(fault(
            set(&[b"a"]),
            error("WRONGTYPE", "wrong kind")
        )));
        // Replies of a form that none of these commands has.
        assert!(unreadable(fault(Ok(Value::Int(7)), nothing())));
        assert!(unreadable(fault(set(&[b"a"]), Ok(Value::Boolean(true)))));
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
