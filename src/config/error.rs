//! Mistakes in the configuration: where, what, and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use super::options::OptionSpec;

/// Where an option was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    Environment,
    /// Line numbers begin at 1.
    File {
        path: PathBuf,
        line: usize,
    },
    /// Set by a subcommand, not by the operator.
    Subcommand(&'static str),
}

impl Origin {
    /// How a message names the place.
    pub(super) fn place(&self, spec: &OptionSpec) -> String {
        match self {
            Origin::CommandLine => format!("--{}", spec.name),
            Origin::Environment => spec.environment_name(),
            Origin::File { path, line } => format!("{}:{line}: {}", path.display(), spec.name),
            Origin::Subcommand(name) => format!("{name}: {}", spec.name),
        }
    }
}

/// What is wrong with one value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub problem: String,
    pub remedy: String,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// As an error about something that is missing, and so has no place.
    pub(super) fn at(self, place: impl Into<String>) -> ConfigError {
        ConfigError {
            place: place.into(),
            problem: self.problem,
            remedy: self.remedy,
            position: Position::Nowhere,
        }
    }

    /// As an error about a line of a file.
    pub(super) fn in_file(self, path: &Path, line: usize) -> ConfigError {
        ConfigError {
            position: Position::Line(line),
            ..self.at(format!("{}:{line}", path.display()))
        }
    }

    /// As an error about the value of an option.
    pub(super) fn of(self, spec: &'static OptionSpec, origin: &Origin) -> ConfigError {
        ConfigError {
            position: match origin {
                Origin::CommandLine => Position::CommandLine,
                Origin::Environment => Position::Environment,
                Origin::File { line, .. } => Position::Line(*line),
                Origin::Subcommand(_) => Position::Nowhere,
            },
            ..self.at(origin.place(spec))
        }
    }

    /// As an error about an unknown flag of the command line.
    pub(super) fn of_flag(self, name: &str) -> ConfigError {
        ConfigError {
            position: Position::CommandLine,
            ..self.at(format!("--{name}"))
        }
    }

    /// As an error about a variable of the environment.
    pub(super) fn of_variable(self, name: &str) -> ConfigError {
        ConfigError {
            position: Position::Environment,
            ..self.at(name)
        }
    }
}

/// Errors are listed in this order; those in a file from its top to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Position {
    CommandLine,
    Environment,
    Line(usize),
    Nowhere,
}

/// A mistake in the configuration. Displayed as one line: place, problem, remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub place: String,
    pub problem: String,
    pub remedy: String,
    position: Position,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

/// All mistakes in the configuration, in the order of their places; never empty. Displayed as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> ConfigErrors {
        errors.sort_by_key(|error| error.position);
        ConfigErrors(errors)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(out, "{line_end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A configuration that is valid by itself, but names something that cannot be used: a file with mistakes,
/// an algorithm that this kernel lacks. The text has cause and remedy.
#[derive(Debug)]
pub(crate) struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}
