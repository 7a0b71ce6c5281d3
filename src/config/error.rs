//! A configuration that makes no sense: what, where, and the remedy.

use std::fmt;
use std::path::PathBuf;

use super::options::OptionSpec;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
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
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    pub fn at(self, place: impl Into<String>) -> ConfigError {
        ConfigError {
            place: place.into(),
            problem: self.problem,
            remedy: self.remedy,
        }
    }
}

/// Why the configuration is refused. Prints as one line: place, problem, remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub place: String,
    pub problem: String,
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}
