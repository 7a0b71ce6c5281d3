//! The report of `pointsman check`: a line per item, and the exit status of the command.

use std::fmt;

use crate::config::ConfigErrors;

/// What an item amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// The process starts, but something keeps it from running well.
    Warn,
    /// The process does not start on this machine.
    Fail,
    /// The process starts on no machine: the configuration is wrong.
    Refused,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub remedy: String,
}

impl Item {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Item {
        Item {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    pub(super) fn warn(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Item {
        Item {
            verdict: Verdict::Warn,
            remedy: remedy.into(),
            ..Item::ok(name, found)
        }
    }

    pub(super) fn refused(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Item {
        Item {
            verdict: Verdict::Refused,
            ..Item::fail(name, found, remedy)
        }
    }

    pub(super) fn fail(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Item {
        Item {
            verdict: Verdict::Fail,
            remedy: remedy.into(),
            ..Item::ok(name, found)
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail | Verdict::Refused => "FAIL",
        };
        write!(out, "{verdict:<5} {:<14} {}", self.name, self.found)?;
        if !self.remedy.is_empty() {
            write!(out, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All items. Displayed as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(super) items: Vec<Item>,
}

impl Report {
    /// The report about a configuration that is refused.
    pub(crate) fn of_errors(errors: &ConfigErrors) -> Report {
        let items = errors.iter().map(|error| {
            let found = format!("{}: {}", error.place, error.problem);
            Item::refused("configuration", found, error.remedy.clone())
        });
        Report {
            items: items.collect(),
        }
    }

    /// The status that a start would exit with: 2 when the configuration is wrong, 1 when something else
    /// keeps it from starting.
    pub(crate) fn exit_code(&self) -> u8 {
        let is = |verdict| self.items.iter().any(|item| item.verdict == verdict);
        if is(Verdict::Refused) {
            2
        } else {
            u8::from(is(Verdict::Fail))
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items
            .iter()
            .try_for_each(|item| writeln!(out, "{item}"))
    }
}
