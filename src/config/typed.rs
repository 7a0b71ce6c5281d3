//! What the first stage reads: the values of the options as text, each with the place where it was set.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{ConfigError, Origin};
use super::options::option;

/// What the process is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Run,
    Demo,
    Check,
    Unwrap,
}

/// A value as text. Has no Debug and no Display: it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TypedValue {
    pub text: String,
    pub origin: Origin,
}

/// The values that were set, by the names of the options. `Typed::validate` makes a configuration of them.
#[derive(Clone, Default)]
pub(crate) struct Typed {
    pub(super) values: BTreeMap<&'static str, Vec<TypedValue>>,
    /// Whether the options are those of `pointsman unwrap`.
    pub(super) unwrap: bool,
    /// The mistakes that were found while reading.
    pub(super) faults: Vec<ConfigError>,
    /// Whether the configuration file could not be read. Options that seem to be missing may be in it.
    pub(super) lacks_file: bool,
    /// The content of the files of `error-page`, or why one could not be read, by their paths as typed.
    pub(super) pages: BTreeMap<String, Result<Arc<[u8]>, String>>,
}

impl Typed {
    /// Adds the options of `lower` that are not set yet.
    pub(super) fn fill(&mut self, lower: BTreeMap<&'static str, Vec<TypedValue>>) {
        for (name, values) in lower {
            self.values.entry(name).or_insert(values);
        }
    }

    /// Sets an option, unless the operator has. For a subcommand with defaults of its own.
    ///
    /// # Panics
    /// When no option has this name.
    pub(crate) fn set_default(&mut self, subcommand: &'static str, name: &str, values: &[String]) {
        let spec = option(name).expect("a subcommand sets options that exist");
        self.values.entry(spec.name).or_insert_with(|| {
            let value = |text: &String| TypedValue {
                text: text.clone(),
                origin: Origin::Subcommand(subcommand),
            };
            values.iter().map(value).collect()
        });
    }

    /// Whether the operator set this option.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}
