//! The options of a host, as an operator writes them. In Redis they are a hash beside the set of members.
//! Everywhere else they stand among the members, each with an `@` in front: `@redirect=https`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::balance::Balance;
use super::host_policies::{ClientFinished, Removal, Reuse};
use super::member::{Member, MemberError};
use crate::health::{HealthCheckOptionError, HealthCheckOptions};
use crate::quantity::{duration, duration_text, whole_number};

/// Marks an entry that is an option.
const MARK: char = '@';

/// All options, for an error message.
const KNOWN: &str = "redirect, unknown, acme, balance, slow-start, queue, removal, reuse, \
    client-finished, max-connections, max-rate, check, check-path, check-status, check-name, \
    check-interval, check-timeout, check-rise and check-fall";

/// Most members that answer challenges of certificate authorities. They are tried one after the other, so
/// more would not help.
const ACME_MAX: usize = 64;

const SLOW_START_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest queue. A client behind so many others is better refused at once.
const QUEUE_MAX: u32 = 65_536;

/// The options of one host. `None`: the option is not set, and the proxy's own setting holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct HostOptions {
    /// HTTP requests are redirected to the same URL under https.
    pub(crate) redirects: bool,
    /// HTTP requests are answered with 404.
    pub(crate) is_unknown: bool,
    /// The members that get requests below `/.well-known/acme-challenge/`, whatever else is set.
    pub(crate) acme: Vec<Box<str>>,
    pub(crate) balance: Option<Balance>,
    /// A backend that has come back gets its full weight only after this long.
    pub(crate) slow_start: Option<Duration>,
    /// Most clients that wait while all backends have as many connections as they may.
    pub(crate) queue_max: Option<u32>,
    pub(crate) removal: Option<Removal>,
    pub(crate) reuse: Option<Reuse>,
    pub(crate) client_finished: Option<ClientFinished>,
    /// Most live connections of the host.
    pub(crate) connections_max: Option<NonZeroU32>,
    /// Most new connections of the host per second.
    pub(crate) rate_max: Option<NonZeroU32>,
    pub(crate) health_check: HealthCheckOptions,
}

/// Why a text is neither a member nor an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryError {
    Member(MemberError),
    /// There is no option of this name.
    Name(Box<str>),
    /// The value of `redirect`, `unknown` or `acme` is wrong; the whole option.
    Value(Box<str>),
    /// A member in the value of `acme` is wrong.
    Acme(MemberError),
    /// The value of another option is wrong: the whole option, and how to write a right one.
    Form(Box<str>, &'static str),
    /// An option of a health check is set, and the host has no health check that uses it.
    CheckMissing,
}

impl fmt::Display for EntryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryError::Member(error) => error.fmt(out),
            EntryError::Name(name) => {
                write!(out, "{name:?} is no option of a host; there are {KNOWN}")
            }
            EntryError::Value(option) => write!(
                out,
                "{option:?} has a wrong value; write redirect=https, unknown=404 or acme=MEMBER"
            ),
            EntryError::Acme(error) => write!(out, "acme: {error}"),
            EntryError::Form(option, want) => {
                write!(out, "{option:?} has a wrong value; write {want}")
            }
            EntryError::CheckMissing => write!(
                out,
                "an option check-… is set and no health check uses it; add check=tcp, check=tls or \
                 check=http (only check=http uses check-path and check-status)"
            ),
        }
    }
}

impl std::error::Error for EntryError {}

impl HostOptions {
    /// Sets one option, written without its mark. Several `acme` options add up.
    ///
    /// # Errors
    /// When the name or the value is wrong.
    pub(crate) fn set(&mut self, option: &str) -> Result<(), EntryError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let (name, value) = (name.trim(), value.trim());
        let want = |form| EntryError::Form(option.into(), form);
        let count = || whole_number(value).and_then(NonZeroU32::new);
        match name {
            "redirect" if value == "https" => self.redirects = true,
            "unknown" if value == "404" => self.is_unknown = true,
            "redirect" | "unknown" => return Err(EntryError::Value(option.into())),
            "acme" => self.add_acme(option, value)?,
            "balance" => {
                let form = "balance=p2c, least, round-robin, random, source or first";
                self.balance = Some(Balance::parse(value).ok_or_else(|| want(form))?);
            }
            "slow-start" => {
                let span = duration(value, Duration::ZERO..=SLOW_START_MAX);
                let form = "a duration, as in slow-start=30s";
                self.slow_start = Some(span.ok_or_else(|| want(form))?);
            }
            "queue" => {
                let count = whole_number(value).filter(|count| *count <= QUEUE_MAX);
                let form = "a number of clients up to 65536, as in queue=100";
                self.queue_max = Some(count.ok_or_else(|| want(form))?);
            }
            "removal" => {
                let form = "removal=keep, removal=drain=30s or removal=cut";
                self.removal = Some(Removal::parse(value).ok_or_else(|| want(form))?);
            }
            "reuse" => {
                let form = "reuse=never, reuse=safe or reuse=always";
                self.reuse = Some(Reuse::parse(value).ok_or_else(|| want(form))?);
            }
            "client-finished" => {
                let form = "client-finished=wait or client-finished=abort";
                let finished = ClientFinished::parse(value);
                self.client_finished = Some(finished.ok_or_else(|| want(form))?);
            }
            "max-connections" => {
                let form = "a number of connections, as in max-connections=1000";
                self.connections_max = Some(count().ok_or_else(|| want(form))?);
            }
            "max-rate" => {
                let form = "a number of new connections in a second, as in max-rate=200";
                self.rate_max = Some(count().ok_or_else(|| want(form))?);
            }
            _ => {
                let set = self.health_check.set(name, value);
                set.map_err(|error| match error {
                    HealthCheckOptionError::UnknownName => EntryError::Name(name.into()),
                    HealthCheckOptionError::Value(form) => want(form),
                })?;
            }
        }
        Ok(())
    }

    /// Adds the members of one `acme` option, separated by blanks, none of them twice.
    fn add_acme(&mut self, option: &str, members: &str) -> Result<(), EntryError> {
        if members.is_empty() {
            return Err(EntryError::Value(option.into()));
        }
        for member in members.split_ascii_whitespace() {
            Member::parse(member).map_err(EntryError::Acme)?;
            if self.acme.iter().any(|known| **known == *member) {
                continue;
            }
            if self.acme.len() == ACME_MAX {
                let form = "at most 64 members in acme=MEMBER MEMBER";
                return Err(EntryError::Form(option.into(), form));
            }
            self.acme.push(member.into());
        }
        self.acme.sort_unstable();
        Ok(())
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// [`EntryError::CheckMissing`].
    pub(crate) fn validate(&self) -> Result<(), EntryError> {
        if self.health_check.has_unused_option() {
            return Err(EntryError::CheckMissing);
        }
        Ok(())
    }

    /// What happens to live connections of a removed backend.
    pub(crate) fn removal(&self) -> Removal {
        self.removal.unwrap_or_default()
    }

    /// The options as entries, which [`HostOptions::set`] reads again.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut set: Vec<(&str, String)> = Vec::new();
        if self.redirects {
            set.push(("redirect", "https".to_owned()));
        }
        if self.is_unknown {
            set.push(("unknown", "404".to_owned()));
        }
        set.extend(self.acme.iter().map(|member| ("acme", member.to_string())));
        let values = [
            ("balance", self.balance.map(|one| one.name().to_owned())),
            ("slow-start", self.slow_start.map(duration_text)),
            ("queue", self.queue_max.map(|max| max.to_string())),
            ("removal", self.removal.map(|removal| removal.to_string())),
            ("reuse", self.reuse.map(|reuse| reuse.name().to_owned())),
            (
                "client-finished",
                self.client_finished.map(|one| one.name().to_owned()),
            ),
            (
                "max-connections",
                self.connections_max.map(|max| max.to_string()),
            ),
            ("max-rate", self.rate_max.map(|max| max.to_string())),
        ];
        let is_set = |(name, value): (_, Option<String>)| value.map(|value| (name, value));
        set.extend(values.into_iter().filter_map(is_set));
        set.extend(self.health_check.entries());
        set.iter()
            .map(|(name, value)| option_entry(name, value))
            .collect()
    }
}

/// The option in an entry, without its mark; `None`: the entry is a member.
pub(crate) fn as_option(entry: &str) -> Option<&str> {
    entry.trim_ascii().strip_prefix(MARK)
}

/// The entry for an option that a hash in Redis holds.
pub(crate) fn option_entry(field: &str, value: &str) -> String {
    format!("{MARK}{field}={value}")
}

/// Checks that the entry is a member or an option.
///
/// # Errors
/// Why it is neither.
pub(crate) fn validate_entry(entry: &str) -> Result<(), EntryError> {
    match as_option(entry) {
        Some(option) => HostOptions::default().set(option),
        None => Member::parse(entry).map(drop).map_err(EntryError::Member),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::StatusRange;

    fn read(entries: &[&str]) -> HostOptions {
        let mut options = HostOptions::default();
        for entry in entries {
            validate_entry(entry).unwrap();
            options.set(as_option(entry).unwrap()).unwrap();
        }
        options
    }

    #[test]
    fn options_are_read_and_written_again() {
        let options = read(&[
            "@redirect=https",
            " @unknown=404",
            "@acme=10.0.0.2:80 10.0.0.1",
            "@acme=10.0.0.1",
            "@balance=source",
            "@slow-start=90s",
            "@queue=0",
            "@removal=drain=1500ms",
            "@reuse=never",
            "@client-finished=abort",
            "@max-connections=1000",
            "@max-rate=20",
            "@check=http",
            "@check-path=/health?deep=1",
            "@check-status=200",
            "@check-name=Www.Example.com",
            "@check-interval=500ms",
            "@check-timeout=1s",
            "@check-rise=1",
            "@check-fall=5",
        ]);
        let entries = options.entries();
        assert_eq!(
            entries,
            [
                "@redirect=https",
                "@unknown=404",
                "@acme=10.0.0.1",
                "@acme=10.0.0.2:80",
                "@balance=source",
                "@slow-start=1m30s",
                "@queue=0",
                "@removal=drain=1s500ms",
                "@reuse=never",
                "@client-finished=abort",
                "@max-connections=1000",
                "@max-rate=20",
                "@check=http",
                "@check-path=/health?deep=1",
                "@check-status=200-200",
                "@check-name=www.example.com",
                "@check-interval=500ms",
                "@check-timeout=1s",
                "@check-rise=1",
                "@check-fall=5"
            ]
        );
        let again: Vec<&str> = entries.iter().map(String::as_str).collect();
        assert_eq!(read(&again), options);
        assert_eq!(options.validate(), Ok(()));
        assert_eq!(as_option("10.0.0.1"), None);
        assert_eq!(option_entry("redirect", "https"), "@redirect=https");
    }

    #[test]
    fn a_check_is_complete_and_its_options_alone_are_refused() {
        let check = read(&["@check=tls"]).health_check.health_check().unwrap();
        assert_eq!((check.rise, check.fall), (2, 3));
        assert_eq!((&*check.path, check.status), ("/", StatusRange::default()));
        assert_eq!(read(&[]).health_check.health_check(), None);
        for entries in [
            &["@check-interval=1s"][..],
            &["@check=tcp", "@check-path=/"],
            &["@check=tls", "@check-status=200"],
        ] {
            let together = read(entries).validate();
            assert_eq!(together, Err(EntryError::CheckMissing), "{entries:?}");
        }
    }

    #[test]
    fn what_is_no_option_is_named() {
        for (entry, want) in [
            ("@redirect=http", EntryError::Value("redirect=http".into())),
            ("@redirect", EntryError::Value("redirect".into())),
            ("@unknown=403", EntryError::Value("unknown=403".into())),
            ("@acme=", EntryError::Value("acme=".into())),
            ("@weight=3", EntryError::Name("weight".into())),
            ("@", EntryError::Name("".into())),
            ("", EntryError::Member(MemberError::Empty)),
        ] {
            assert_eq!(validate_entry(entry), Err(want), "{entry}");
        }
        assert!(matches!(
            validate_entry("@acme=::1"),
            Err(EntryError::Acme(_))
        ));
        for entry in [
            "@balance=fair",
            "@slow-start=30",
            "@queue=70000",
            "@queue=-1",
            "@removal=drain",
            "@client-finished=go-on",
            "@removal=drain=0s",
            "@reuse=often",
            "@max-connections=0",
            "@max-rate=many",
            "@check=icmp",
            "@check-path=health",
            "@check-status=99",
            "@check-status=300-200",
            "@check-name=a b",
            "@check-interval=1ms",
            "@check-timeout=2h",
            "@check-rise=0",
            "@check-fall=1000",
        ] {
            let error = validate_entry(entry).unwrap_err();
            assert!(matches!(error, EntryError::Form(..)), "{entry}: {error:?}");
            assert!(error.to_string().contains("; write "), "{error}");
        }
    }
}
