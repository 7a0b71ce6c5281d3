//! What an operator says about a host besides its backends. In Redis a hash beside the set, everywhere
//! else among the members, each with an `@` in front: `@redirect=https`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::balance::Balance;
use super::member::{Member, MemberError};
use crate::health::{HealthCheckOptionError, HealthCheckOptions};
use crate::quantity::{duration, duration_text, whole_number};

/// What makes an option of an entry.
const MARK: char = '@';

/// The options there are, as a message names them.
const KNOWN: &str = "redirect, unknown, acme, balance, slow-start, queue, removal, reuse, client-finished, max-connections, max-rate, check, check-path, check-status, check-name, check-interval, check-timeout, check-rise and check-fall";

/// Members that answer challenges; they are asked one after the other, so more help nobody.
const ACME_MAX: usize = 64;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest queue; a client that stands behind more than that is better told at once.
const QUEUE_MAX: u32 = 65_536;

/// The options of one host, as far as they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct HostOptions {
    /// HTTP requests are sent to the same place under https.
    pub(crate) redirects: bool,
    /// HTTP requests are told 404.
    pub(crate) is_unknown: bool,
    /// Where requests below `/.well-known/acme-challenge/` go, whatever else is set; members.
    pub(crate) acme: Vec<Box<str>>,
    /// How a backend is chosen; `None`: as everywhere.
    pub(crate) balance: Option<Balance>,
    /// A backend that has come back gets its full share only after this long.
    pub(crate) slow_start: Option<Duration>,
    /// How many clients may wait while every backend has as many connections as it may; `None`: as
    /// many as everywhere.
    pub(crate) queue_max: Option<u32>,
    /// What becomes of live connections to a backend that leaves the host.
    pub(crate) removal: Option<Removal>,
    /// Who may have a connection to a backend after the client that had it.
    pub(crate) reuse: Option<Reuse>,
    /// What becomes of a request whose client finishes first; `None`: as everywhere.
    pub(crate) client_finished: Option<ClientFinished>,
    /// Live connections of the host.
    pub(crate) connections_max: Option<NonZeroU32>,
    /// New connections of the host in a second.
    pub(crate) rate_max: Option<NonZeroU32>,
    pub(crate) health_check: HealthCheckOptions,
}

/// What becomes of live connections to a backend that leaves a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Removal {
    /// They go on until they end by themselves.
    #[default]
    Keep,
    /// They may go on for this long.
    Drain(Duration),
    /// They end at once.
    Cut,
}

impl Removal {
    fn parse(text: &str) -> Option<Removal> {
        match text {
            "keep" => Some(Removal::Keep),
            "cut" => Some(Removal::Cut),
            _ => {
                let span = text.strip_prefix("drain=")?;
                duration(span, Duration::from_millis(1)..=DAY).map(Removal::Drain)
            }
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removal::Keep => write!(out, "keep"),
            Removal::Drain(span) => write!(out, "drain={}", duration_text(*span)),
            Removal::Cut => write!(out, "cut"),
        }
    }
}

/// Who may have a connection to a backend after the client that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Reuse {
    /// Nobody else.
    Never,
    /// Anybody, until it has carried a body, which a backend may have left unread.
    #[default]
    Safe,
    /// Anybody.
    Always,
}

impl Reuse {
    const ALL: [Reuse; 3] = [Reuse::Never, Reuse::Safe, Reuse::Always];

    fn name(self) -> &'static str {
        match self {
            Reuse::Never => "never",
            Reuse::Safe => "safe",
            Reuse::Always => "always",
        }
    }
}

/// What becomes of a request whose HTTP client finishes sending before it has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum ClientFinished {
    /// It goes on, since the client may still read.
    #[default]
    Wait,
    /// It ends at once.
    Abort,
}

impl ClientFinished {
    pub(crate) const WORDS: [(&str, ClientFinished); 2] = [
        ("wait", ClientFinished::Wait),
        ("abort", ClientFinished::Abort),
    ];

    fn parse(text: &str) -> Option<ClientFinished> {
        let known = Self::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| *value)
    }

    fn name(self) -> &'static str {
        match self {
            ClientFinished::Wait => "wait",
            ClientFinished::Abort => "abort",
        }
    }
}

/// Why a text is neither a member nor an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryError {
    Member(MemberError),
    /// No such option.
    Name(Box<str>),
    /// No such value.
    Value(Box<str>),
    /// A member that is named in an option.
    Acme(MemberError),
    /// A wrong value of another option, and the form of a right one.
    Form(Box<str>, &'static str),
    /// Options of a check without the check that has them.
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
                "{option:?} is no value of that option; write redirect=https, unknown=404 or acme=MEMBER"
            ),
            EntryError::Acme(error) => write!(out, "acme: {error}"),
            EntryError::Form(option, want) => {
                write!(
                    out,
                    "{option:?} has no value that is understood; write {want}"
                )
            }
            EntryError::CheckMissing => write!(
                out,
                "check-… is set for a check that is not made; add check=tcp, check=tls or check=http, which check-path and check-status need"
            ),
        }
    }
}

impl std::error::Error for EntryError {}

impl HostOptions {
    /// Takes in one option without its mark; `acme` may come several times or list several members
    /// with blanks between, and none of them twice.
    pub(crate) fn set(&mut self, option: &str) -> Result<(), EntryError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || Err(EntryError::Value(option.into()));
        let want = |want| EntryError::Form(option.into(), want);
        let number = || whole_number(value.trim()).and_then(NonZeroU32::new);
        match (name.trim(), value.trim()) {
            ("redirect", "https") => self.redirects = true,
            ("unknown", "404") => self.is_unknown = true,
            ("acme", "") | ("redirect" | "unknown", _) => return wrong(),
            ("acme", members) => {
                for member in members.split_ascii_whitespace() {
                    Member::parse(member).map_err(EntryError::Acme)?;
                    if self.acme.iter().any(|known| **known == *member) {
                        continue;
                    }
                    if self.acme.len() == ACME_MAX {
                        return Err(want("at most 64 members in acme=MEMBER MEMBER"));
                    }
                    self.acme.push(member.into());
                }
                self.acme.sort_unstable();
            }
            ("balance", value) => {
                let balance = Balance::parse(value);
                let form = "balance=p2c, least, round-robin, random, source or first";
                self.balance = Some(balance.ok_or_else(|| want(form))?);
            }
            ("slow-start", value) => {
                let span = duration(value, Duration::ZERO..=DAY);
                self.slow_start =
                    Some(span.ok_or_else(|| want("a duration, as in slow-start=30s"))?);
            }
            ("queue", value) => {
                let count = whole_number(value).filter(|count| *count <= QUEUE_MAX);
                let form = "a number of clients up to 65536, as in queue=100";
                self.queue_max = Some(count.ok_or_else(|| want(form))?);
            }
            ("removal", value) => {
                let form = "removal=keep, removal=drain=30s or removal=cut";
                self.removal = Some(Removal::parse(value).ok_or_else(|| want(form))?);
            }
            ("reuse", value) => {
                let named = Reuse::ALL.into_iter().find(|reuse| reuse.name() == value);
                let form = "reuse=never, reuse=safe or reuse=always";
                self.reuse = Some(named.ok_or_else(|| want(form))?);
            }
            ("client-finished", value) => {
                let form = "client-finished=wait or client-finished=abort";
                let known = ClientFinished::parse(value);
                self.client_finished = Some(known.ok_or_else(|| want(form))?);
            }
            ("max-connections", _) => {
                let form = "a number of connections, as in max-connections=1000";
                self.connections_max = Some(number().ok_or_else(|| want(form))?);
            }
            ("max-rate", _) => {
                let form = "a number of new connections in a second, as in max-rate=200";
                self.rate_max = Some(number().ok_or_else(|| want(form))?);
            }
            (name, value) => self
                .health_check
                .set(name, value)
                .map_err(|error| match error {
                    HealthCheckOptionError::UnknownName => EntryError::Name(name.into()),
                    HealthCheckOptionError::Value(form) => want(form),
                })?,
        }
        Ok(())
    }

    /// What is wrong with all of them together.
    ///
    /// # Errors
    /// [`EntryError::CheckMissing`].
    pub(crate) fn validate(&self) -> Result<(), EntryError> {
        if self.health_check.has_unused_option() {
            return Err(EntryError::CheckMissing);
        }
        Ok(())
    }

    /// What becomes of live connections to a backend that leaves.
    pub(crate) fn removal(&self) -> Removal {
        self.removal.unwrap_or_default()
    }

    /// The options as entries, to be read again.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut said: Vec<(&str, String)> = Vec::new();
        if self.redirects {
            said.push(("redirect", "https".to_owned()));
        }
        if self.is_unknown {
            said.push(("unknown", "404".to_owned()));
        }
        said.extend(self.acme.iter().map(|member| ("acme", member.to_string())));
        let word = |balance: Balance| ("balance", balance.name().to_owned());
        said.extend(self.balance.map(word));
        said.extend(
            self.slow_start
                .map(|span| ("slow-start", duration_text(span))),
        );
        said.extend(self.queue_max.map(|count| ("queue", count.to_string())));
        said.extend(self.removal.map(|removal| ("removal", removal.to_string())));
        let reuse = |reuse: Reuse| ("reuse", reuse.name().to_owned());
        said.extend(self.reuse.map(reuse));
        let word = |finished: ClientFinished| ("client-finished", finished.name().to_owned());
        said.extend(self.client_finished.map(word));
        let count = |max: NonZeroU32| ("max-connections", max.to_string());
        said.extend(self.connections_max.map(count));
        said.extend(self.rate_max.map(|max| ("max-rate", max.to_string())));
        said.extend(self.health_check.entries());
        said.iter()
            .map(|(name, value)| option_entry(name, value))
            .collect()
    }
}

/// The option that an entry is, without its mark; `None`: the entry is a member.
pub(crate) fn as_option(entry: &str) -> Option<&str> {
    entry.trim_ascii().strip_prefix(MARK)
}

/// The entry of an option as a hash holds it.
pub(crate) fn option_entry(field: &str, value: &str) -> String {
    format!("{MARK}{field}={value}")
}

/// Whether the entry is a member or an option.
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
