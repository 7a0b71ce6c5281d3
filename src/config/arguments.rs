//! Sorts the unknown options out of a command line. The parser ends at the first of them; an operator wants
//! to know of all, and of the wrong values as well.

use std::ffi::OsString;

use super::error::{ConfigError, Fault};
use super::names;
use super::options::option;

/// Flags that clap itself knows.
const OF_CLAP: [&str; 2] = ["help", "version"];
const SUBCOMMANDS: [&str; 5] = ["demo", "check", "unwrap", "explain", "help"];

/// The arguments without the unknown options and their values. Each unknown option is added to `faults`.
pub(super) fn without_unknown(
    arguments: impl IntoIterator<Item = OsString>,
    faults: &mut Vec<ConfigError>,
) -> Vec<OsString> {
    let mut arguments = arguments.into_iter().peekable();
    let mut known = Vec::new();
    while let Some(argument) = arguments.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let name = flag.map(|flag| flag.split('=').next().unwrap_or(flag).to_owned());
        let Some(name) = name.filter(|name| !name.is_empty() && !OF_CLAP.contains(&name.as_str()))
        else {
            known.push(argument);
            continue;
        };
        let has_value = flag.is_some_and(|flag| flag.contains('='));
        let is_known = option(&name).is_some();
        if is_known {
            known.push(argument);
        } else {
            let fault = Fault::new("there is no such option", names::remedy_for_flag(&name));
            faults.push(fault.of_flag(&name));
        }
        // The next argument is the value, also of an unknown option, which may be a misspelt one.
        if !has_value && let Some(value) = arguments.next_if(|next| is_value(next, is_known)) {
            known.extend(is_known.then_some(value));
        }
    }
    known
}

/// Whether this argument is a value of the option before it.
fn is_value(argument: &OsString, of_known: bool) -> bool {
    let Some(text) = argument.to_str() else {
        return true;
    };
    !text.starts_with('-') && (of_known || !SUBCOMMANDS.contains(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut faults = Vec::new();
        let known = without_unknown(arguments.iter().map(OsString::from), &mut faults);
        let known = known
            .into_iter()
            .map(|argument| argument.into_string().unwrap());
        (
            known.collect(),
            faults.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn every_unknown_option_is_named_and_the_rest_stays() {
        let (known, faults) = sorted(&[
            "pointsman",
            "--drian",
            "1s",
            "check",
            "--baklog=5",
            "--http",
            ":80",
            "--foo",
            "--log",
            "debug",
        ]);
        assert_eq!(
            known,
            ["pointsman", "check", "--http", ":80", "--log", "debug"]
        );
        assert_eq!(
            faults,
            [
                "--drian: there is no such option; write --drain",
                "--baklog: there is no such option; write --backlog",
                "--foo: there is no such option; correct or remove it; pointsman --help lists all options",
            ]
        );
    }

    #[test]
    fn nothing_else_is_taken_out() {
        for arguments in [
            &["pointsman", "--drian", "check"][..2],
            &[
                "pointsman",
                "-x",
                "--",
                "--help",
                "-h",
                "--version",
                "chekc",
            ],
            &["pointsman", "--drain", "--http=:80", "--log", "check"],
        ] {
            let (known, faults) = sorted(arguments);
            assert_eq!(known.len() + faults.len(), arguments.len(), "{arguments:?}");
        }
        // A subcommand is no value of an unknown option.
        assert_eq!(
            sorted(&["pointsman", "--drian", "check"]).0,
            ["pointsman", "check"]
        );
    }
}
