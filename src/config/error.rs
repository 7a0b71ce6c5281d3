//! A configuration that makes no sense: what, where, and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use super::options::OptionSpec;

/// Where a value was set.
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
    /// The name an operator would look for.
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

    /// In no place of its own: something is missing.
    pub(super) fn at(self, place: impl Into<String>) -> ConfigError {
        ConfigError {
            place: place.into(),
            problem: self.problem,
            remedy: self.remedy,
            position: Position::Nowhere,
        }
    }

    /// Behind a place in a file.
    pub(super) fn in_file(self, path: &Path, line: usize) -> ConfigError {
        ConfigError {
            position: Position::Line(line),
            ..self.at(format!("{}:{line}", path.display()))
        }
    }

    /// Of the value of an option.
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

    /// Of a variable of the environment.
    pub(super) fn of_variable(self, name: &str) -> ConfigError {
        ConfigError {
            position: Position::Environment,
            ..self.at(name)
        }
    }
}

/// In the order in which they are told, the file from its top to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Position {
    CommandLine,
    Environment,
    Line(usize),
    Nowhere,
}

/// One reason why the configuration is refused. Prints as one line: place, problem, remedy.
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

/// All that is wrong with the configuration, in the order of its places; never empty. Prints as one
/// line each.
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

/// A configuration whose values make sense, but which names something that does not: a file that is
/// wrong, an algorithm that this kernel lacks. With cause and remedy in its text.
#[derive(Debug)]
pub(crate) struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}
