//! How numbers and durations are written in options.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A number of digits only. `str::parse` alone would accept a plus sign.
pub(crate) fn whole_number<N: FromStr>(text: &str) -> Option<N> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// A duration with its unit, as in `1500ms` or `1m30s`, within bounds. 0 needs no unit.
pub(crate) fn duration(text: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
    let span = humantime::parse_duration(text).ok()?;
    range.contains(&span).then_some(span)
}

/// A duration as [`duration`] reads it, without blanks.
pub(crate) fn duration_text(span: Duration) -> String {
    let text = humantime::format_duration(span).to_string();
    text.replace(' ', "")
}
