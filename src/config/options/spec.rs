//! What is said about an option, and the constructors that the list is written with.

use std::ops::RangeInclusive;
use std::time::Duration;

/// One option: `--head-deadline`, `POINTSMAN_HEAD_DEADLINE`, or `head-deadline` in the file.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    pub name: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    pub kind: Kind,
    pub repeatable: bool,
    /// As an operator would write it; empty: none.
    pub default: &'static str,
    /// What it does, and the reason for the default. Without a full stop at its end.
    pub help: &'static str,
    /// A value that is not the default.
    pub example: &'static str,
    /// Options and outcomes that it works together with.
    pub see: &'static [&'static str],
    /// For tests; in no help and no page.
    pub hidden: bool,
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Of a form of its own, which the help describes.
    Text,
    Word(&'static [&'static str]),
    Duration(RangeInclusive<Duration>),
    Count(RangeInclusive<u32>),
    Bytes(RangeInclusive<usize>),
}

/// Options of one subject.
#[derive(Debug)]
pub(crate) struct Section {
    pub title: &'static str,
    /// The page of the docs about it.
    pub page: &'static str,
    pub options: &'static [OptionSpec],
}

pub(in crate::config) const ENVIRONMENT_PREFIX: &str = "POINTSMAN_";

/// Separates the values of a repeatable option in the environment: addresses hold colons, routes
/// commas, and members may hold blanks.
pub(in crate::config) const ENVIRONMENT_SEPARATOR: char = ';';

impl OptionSpec {
    pub(crate) fn environment_name(&self) -> String {
        let name = self.name.replace('-', "_").to_ascii_uppercase();
        format!("{ENVIRONMENT_PREFIX}{name}")
    }

    pub(super) const fn new(
        name: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            name,
            value,
            kind: Kind::Text,
            repeatable: false,
            default: "",
            help,
            example: "",
            see: &[],
            hidden: false,
        }
    }

    /// An option that may be there several times.
    pub(super) const fn many(
        name: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            repeatable: true,
            ..OptionSpec::new(name, value, help)
        }
    }

    pub(super) const fn word(
        name: &'static str,
        words: &'static [&'static str],
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            kind: Kind::Word(words),
            ..OptionSpec::new(name, "WORD", help)
        }
    }

    /// `no` unless `yes` is said.
    pub(super) const fn switch(name: &'static str, help: &'static str) -> OptionSpec {
        OptionSpec::word(name, &["yes", "no"], help)
            .default("no")
            .example("yes")
    }

    pub(super) const fn duration(
        name: &'static str,
        bounds: RangeInclusive<Duration>,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            kind: Kind::Duration(bounds),
            ..OptionSpec::new(name, "DURATION", help)
        }
    }

    pub(super) const fn count(
        name: &'static str,
        bounds: RangeInclusive<u32>,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            kind: Kind::Count(bounds),
            ..OptionSpec::new(name, "COUNT", help)
        }
    }

    pub(super) const fn bytes(
        name: &'static str,
        bounds: RangeInclusive<usize>,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            kind: Kind::Bytes(bounds),
            ..OptionSpec::new(name, "BYTES", help)
        }
    }

    pub(super) const fn value(self, value: &'static str) -> OptionSpec {
        OptionSpec { value, ..self }
    }

    pub(super) const fn default(self, default: &'static str) -> OptionSpec {
        OptionSpec { default, ..self }
    }

    pub(super) const fn example(self, example: &'static str) -> OptionSpec {
        OptionSpec { example, ..self }
    }

    pub(super) const fn see(self, see: &'static [&'static str]) -> OptionSpec {
        OptionSpec { see, ..self }
    }

    pub(super) const fn hidden(self) -> OptionSpec {
        OptionSpec {
            hidden: true,
            ..self
        }
    }
}

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const NINE_HOURS: Duration = Duration::from_secs(9 * 60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
