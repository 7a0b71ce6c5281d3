//! The options of a host about its health check: `check` and `check-…`, as an operator writes them.

use std::time::Duration;

use super::check::{HealthCheck, HealthCheckKind, StatusRange};
use crate::host::Host;
use crate::quantity::{duration, duration_text, whole_number};

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
const PATH_BYTES_MAX: usize = 1024;
const IN_A_ROW_MAX: u8 = 100;

/// Default interval. With [`FALL`] a dead backend is down after 6 s, and the checks are hardly any
/// traffic.
const INTERVAL: Duration = Duration::from_secs(2);
/// Default timeout. A backend that takes longer is of no use to a client.
const TIMEOUT: Duration = Duration::from_secs(1);
const RISE: u8 = 2;
/// A single bad answer may be chance.
const FALL: u8 = 3;

/// The options that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct HealthCheckOptions {
    kind: Option<HealthCheckKind>,
    path: Option<Box<str>>,
    status: Option<StatusRange>,
    name: Option<Box<str>>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u8>,
    fall: Option<u8>,
}

/// Why an option was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthCheckOptionError {
    /// There is no option of this name.
    UnknownName,
    /// The value is wrong; this is how to write a right one.
    Value(&'static str),
}

impl HealthCheckOptions {
    /// Sets one option.
    ///
    /// # Errors
    /// When the name or the value is unknown. Nothing is set then.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), HealthCheckOptionError> {
        use HealthCheckOptionError::{UnknownName, Value};
        match name {
            "check" => {
                let want = "check=tcp, check=tls or check=http";
                self.kind = Some(HealthCheckKind::parse(value).ok_or(Value(want))?);
            }
            "check-path" => {
                let want = "a path without blanks, as in check-path=/health";
                self.path = Some(parse_path(value).ok_or(Value(want))?);
            }
            "check-status" => {
                let want = "a status or a range of them, as in check-status=200-299";
                self.status = Some(parse_status(value).ok_or(Value(want))?);
            }
            "check-name" => {
                let want = "a host name, as in check-name=www.example.com";
                let host = Host::from_operator(value).map_err(|_| Value(want))?;
                self.name = Some(host.as_str().into());
            }
            "check-interval" => {
                let want = "a duration from 100ms to 1h, as in check-interval=2s";
                self.interval = Some(duration(value, INTERVAL_MIN..=HOUR).ok_or(Value(want))?);
            }
            "check-timeout" => {
                let want = "a duration from 10ms to 1h, as in check-timeout=1s";
                self.timeout = Some(duration(value, TIMEOUT_MIN..=HOUR).ok_or(Value(want))?);
            }
            "check-rise" => self.rise = Some(parse_in_a_row(value)?),
            "check-fall" => self.fall = Some(parse_in_a_row(value)?),
            _ => return Err(UnknownName),
        }
        Ok(())
    }

    /// The complete check; `None` when the option `check` is not set.
    pub(crate) fn health_check(&self) -> Option<HealthCheck> {
        Some(HealthCheck {
            kind: self.kind?,
            path: self.path.clone().unwrap_or_else(|| "/".into()),
            status: self.status.unwrap_or_default(),
            name: self.name.clone(),
            interval: self.interval.unwrap_or(INTERVAL),
            timeout: self.timeout.unwrap_or(TIMEOUT),
            rise: self.rise.unwrap_or(RISE),
            fall: self.fall.unwrap_or(FALL),
        })
    }

    /// Whether an option is set that no check of this kind uses.
    pub(crate) fn has_unused_option(&self) -> bool {
        let has_option_without_check =
            self.kind.is_none() && *self != HealthCheckOptions::default();
        let has_http_option = self.path.is_some() || self.status.is_some();
        has_option_without_check || self.kind != Some(HealthCheckKind::Http) && has_http_option
    }

    /// Name and value of every option that is set, as [`HealthCheckOptions::set`] takes them.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
        let status = |range: StatusRange| format!("{}-{}", range.first, range.last);
        let values = [
            ("check", self.kind.map(|kind| kind.name().to_owned())),
            ("check-path", self.path.as_deref().map(str::to_owned)),
            ("check-status", self.status.map(status)),
            ("check-name", self.name.as_deref().map(str::to_owned)),
            ("check-interval", self.interval.map(duration_text)),
            ("check-timeout", self.timeout.map(duration_text)),
            ("check-rise", self.rise.map(|rise| rise.to_string())),
            ("check-fall", self.fall.map(|fall| fall.to_string())),
        ];
        let set = |(name, value): (_, Option<String>)| value.map(|value| (name, value));
        values.into_iter().filter_map(set).collect()
    }
}

fn parse_path(value: &str) -> Option<Box<str>> {
    let is_path = value.starts_with('/') && value.bytes().all(|byte| byte.is_ascii_graphic());
    (is_path && value.len() <= PATH_BYTES_MAX).then(|| value.into())
}

fn parse_status(value: &str) -> Option<StatusRange> {
    let status = |text| {
        let status = u16::try_from(whole_number::<u32>(text)?).ok()?;
        (200..=599).contains(&status).then_some(status)
    };
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let range = StatusRange {
        first: status(first)?,
        last: status(last)?,
    };
    (range.first <= range.last).then_some(range)
}

fn parse_in_a_row(value: &str) -> Result<u8, HealthCheckOptionError> {
    let count = whole_number::<u32>(value).and_then(|count| u8::try_from(count).ok());
    count
        .filter(|count| (1..=IN_A_ROW_MAX).contains(count))
        .ok_or(HealthCheckOptionError::Value(
            "a number of answers from 1 to 100",
        ))
}
