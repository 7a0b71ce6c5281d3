//! How a host's backends are looked after: what is asked of them, how often, and how many answers
//! change a verdict. What an operator writes; who asks is elsewhere.

use std::time::Duration;

use super::host_options::EntryError;
use super::share::whole_number;
use crate::host::Host;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Between two questions; 2 s. A dead backend is noticed in three of them and costs nobody much
/// traffic.
const INTERVAL: Duration = Duration::from_secs(2);
/// For one answer; 1 s. A backend that is slower than that is no help to a client.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Good answers in a row that make a backend up again.
const RISE: u8 = 2;
/// Bad answers in a row that make it down. One may be chance.
const FALL: u8 = 3;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether it answers a ClientHello with the host's name with a ServerHello.
    Tls,
    /// Whether it answers a GET with an expected status.
    Http,
}

impl CheckKind {
    pub fn name(self) -> &'static str {
        match self {
            CheckKind::Tcp => "tcp",
            CheckKind::Tls => "tls",
            CheckKind::Http => "http",
        }
    }
}

/// One way of looking after a backend, complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    pub kind: CheckKind,
    /// What a GET asks for; only of [`CheckKind::Http`], `/` otherwise.
    pub path: Box<str>,
    /// The first and the last status that is good.
    pub status: (u16, u16),
    /// The name in hello or Host field; `None`: that of a host which has this check.
    pub name: Option<Box<str>>,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u8,
    pub fall: u8,
}

/// The options of a check as far as they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CheckOptions {
    kind: Option<CheckKind>,
    path: Option<Box<str>>,
    status: Option<(u16, u16)>,
    name: Option<Box<str>>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u8>,
    fall: Option<u8>,
}

impl CheckOptions {
    /// Takes in `check` or `check-…`. False: no such option.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Result<bool, EntryError> {
        let wrong = |want| EntryError::Form(format!("{name}={value}").into(), want);
        match name {
            "check" => {
                let kinds = [CheckKind::Tcp, CheckKind::Tls, CheckKind::Http];
                let kind = kinds.into_iter().find(|kind| kind.name() == value);
                self.kind = Some(kind.ok_or_else(|| wrong("check=tcp, check=tls or check=http"))?);
            }
            "check-path" => {
                let good =
                    value.starts_with('/') && value.bytes().all(|byte| byte.is_ascii_graphic());
                if !good || value.len() > 1024 {
                    return Err(wrong("a path without blanks, as in check-path=/health"));
                }
                self.path = Some(value.into());
            }
            "check-status" => {
                let (first, last) = value.split_once('-').unwrap_or((value, value));
                let status = |text| whole_number(text).and_then(|n| u16::try_from(n).ok());
                let both = status(first).zip(status(last));
                let good = both.filter(|(first, last)| {
                    (200..=599).contains(first) && (200..=599).contains(last) && first <= last
                });
                let want = "a status or a range of them, as in check-status=200-299";
                self.status = Some(good.ok_or_else(|| wrong(want))?);
            }
            "check-name" => {
                let host = Host::from_operator(value);
                let host =
                    host.map_err(|_| wrong("a host name, as in check-name=www.example.com"))?;
                self.name = Some(host.as_str().into());
            }
            "check-interval" => {
                let want = "a duration from 100ms to 1h, as in check-interval=2s";
                let span = duration(value, 100 * MILLISECOND, HOUR);
                self.interval = Some(span.ok_or_else(|| wrong(want))?);
            }
            "check-timeout" => {
                let want = "a duration from 10ms to 1h, as in check-timeout=1s";
                let span = duration(value, 10 * MILLISECOND, HOUR);
                self.timeout = Some(span.ok_or_else(|| wrong(want))?);
            }
            "check-rise" | "check-fall" => {
                let count = whole_number(value).and_then(|n| u8::try_from(n).ok());
                let count = count.filter(|count| (1..=100).contains(count));
                let count = count.ok_or_else(|| wrong("a number of answers from 1 to 100"))?;
                match name {
                    "check-rise" => self.rise = Some(count),
                    _ => self.fall = Some(count),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The check, if one is asked for.
    pub fn check(&self) -> Option<Check> {
        Some(Check {
            kind: self.kind?,
            path: self.path.clone().unwrap_or_else(|| "/".into()),
            status: self.status.unwrap_or((200, 399)),
            name: self.name.clone(),
            interval: self.interval.unwrap_or(INTERVAL),
            timeout: self.timeout.unwrap_or(TIMEOUT),
            rise: self.rise.unwrap_or(RISE),
            fall: self.fall.unwrap_or(FALL),
        })
    }

    /// Whether something is said about a check that does not take place.
    pub(super) fn is_idle_talk(&self) -> bool {
        self.kind.is_none() && *self != CheckOptions::default()
            || self.kind != Some(CheckKind::Http) && (self.path.is_some() || self.status.is_some())
    }

    pub(super) fn entries(&self, out: &mut Vec<(&'static str, String)>) {
        out.extend(self.kind.map(|kind| ("check", kind.name().to_owned())));
        out.extend(
            self.path
                .as_ref()
                .map(|path| ("check-path", path.to_string())),
        );
        out.extend(
            self.status
                .map(|(first, last)| ("check-status", format!("{first}-{last}"))),
        );
        out.extend(
            self.name
                .as_ref()
                .map(|name| ("check-name", name.to_string())),
        );
        out.extend(
            self.interval
                .map(|interval| ("check-interval", plain(interval))),
        );
        out.extend(
            self.timeout
                .map(|timeout| ("check-timeout", plain(timeout))),
        );
        out.extend(self.rise.map(|rise| ("check-rise", rise.to_string())));
        out.extend(self.fall.map(|fall| ("check-fall", fall.to_string())));
    }
}

/// A duration with its unit, within bounds; 0 needs none.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Option<Duration> {
    let span = humantime::parse_duration(text).ok()?;
    (least..=most).contains(&span).then_some(span)
}

/// The same in one word, to be read again.
pub(super) fn plain(span: Duration) -> String {
    humantime::format_duration(span)
        .to_string()
        .replace(' ', "")
}
