//! What was typed, as text, each value with the place it came from.

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

/// One value as typed. Not printable: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TypedValue {
    pub text: String,
    pub origin: Origin,
}

/// Everything typed, by the names of the options. `Typed::validate` makes a configuration of it.
#[derive(Clone, Default)]
pub(crate) struct Typed {
    pub(super) values: BTreeMap<&'static str, Vec<TypedValue>>,
    /// Whether it is the receiving end that is configured.
    pub(super) unwrap: bool,
    /// What was wrong already when it was read.
    pub(super) faults: Vec<ConfigError>,
    /// Whether a file was named that could not be read, so that much may be missing here.
    pub(super) lacks_file: bool,
    /// What the files of `error-page` hold, by their paths as typed; the error when one was not read.
    pub(super) pages: BTreeMap<String, Result<Arc<[u8]>, String>>,
}

impl Typed {
    /// Takes from `lower` the options that are not set yet.
    pub(super) fn fill(&mut self, lower: BTreeMap<&'static str, Vec<TypedValue>>) {
        for (name, values) in lower {
            self.values.entry(name).or_insert(values);
        }
    }

    /// Sets an option that was not typed, for a subcommand that brings its own defaults.
    ///
    /// # Panics
    /// When there is no option of this name.
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
