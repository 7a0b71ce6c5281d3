//! Parses values one after the other and keeps all mistakes, so that an operator can correct all of them at
//! once.

use std::cell::RefCell;
use std::time::Duration;

use crate::config::error::{ConfigError, ConfigErrors, Fault};
use crate::config::options::{Kind, OptionSpec, option};
use crate::config::typed::{Typed, TypedValue};
use crate::config::value;

/// The values that were set, and the mistakes found so far.
pub(super) struct Validator<'a> {
    pub typed: &'a Typed,
    faults: RefCell<Vec<ConfigError>>,
    /// The options whose values are wrong.
    wrong: RefCell<Vec<&'static str>>,
}

impl<'a> Validator<'a> {
    pub(super) fn new(typed: &'a Typed) -> Validator<'a> {
        Validator {
            typed,
            faults: RefCell::new(typed.faults.clone()),
            wrong: RefCell::default(),
        }
    }

    /// Returns `made`, unless there are mistakes.
    pub(super) fn finish<T>(self, made: T) -> Result<T, ConfigErrors> {
        let faults = self.faults.into_inner();
        if faults.is_empty() {
            Ok(made)
        } else {
            Err(ConfigErrors::new(faults))
        }
    }

    /// The value of an option that has a default. The default replaces a wrong value.
    ///
    /// # Panics
    /// When the default itself is wrong, which a test excludes.
    pub(super) fn value<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> T {
        self.optional(name, &parse).unwrap_or_else(|| {
            let default = parse(listed(name).default);
            default.unwrap_or_else(|fault| panic!("the default of {name}: {}", fault.problem))
        })
    }

    /// The value of an option that may be missing. A wrong value counts as missing.
    pub(super) fn optional<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = parse(&self.first(name)?.text);
        value.map_err(|fault| self.note(name, fault)).ok()
    }

    /// A duration within the bounds of its option.
    pub(super) fn duration(&self, name: &'static str) -> Duration {
        self.value(name, |text| duration(name, text))
    }

    /// As [`Validator::duration`], without a default.
    pub(super) fn optional_duration(&self, name: &'static str) -> Option<Duration> {
        self.optional(name, |text| duration(name, text))
    }

    /// A count within the bounds of its option.
    pub(super) fn count(&self, name: &'static str) -> u32 {
        self.value(name, |text| count(name, text))
    }

    /// As [`Validator::count`], without a default.
    pub(super) fn optional_count(&self, name: &'static str) -> Option<u32> {
        self.optional(name, |text| count(name, text))
    }

    /// A number of bytes within the bounds of its option.
    pub(super) fn bytes(&self, name: &'static str) -> usize {
        self.value(name, |text| match &listed(name).kind {
            Kind::Bytes(bounds) => value::bytes(text, bounds.clone()),
            other => unreachable!("{name} is {other:?}"),
        })
    }

    /// The values of a repeatable option, without the wrong ones.
    pub(super) fn all<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<T> {
        let typed = self.typed.values.get(name).into_iter().flatten();
        let values = typed.filter_map(|typed| {
            let value = parse(&typed.text);
            value
                .map_err(|fault| self.note_of(name, fault.of(listed(name), &typed.origin)))
                .ok()
        });
        values.collect()
    }

    /// Keeps a mistake in an option.
    pub(super) fn note(&self, name: &'static str, fault: Fault) {
        let error = match self.first(name) {
            Some(typed) => fault.of(listed(name), &typed.origin),
            None => fault.at(name),
        };
        self.note_of(name, error);
    }

    fn note_of(&self, name: &'static str, error: ConfigError) {
        self.faults.borrow_mut().push(error);
        self.wrong.borrow_mut().push(name);
    }

    /// Keeps a mistake when none of these options is set, be its value right or wrong. A configuration
    /// file that could not be read may set one of them.
    pub(super) fn require_one_of(&self, names: &[&str], fault: Fault) {
        if !self.typed.lacks_file && !names.iter().any(|name| self.is_set(name)) {
            self.faults.borrow_mut().push(fault.at(names.join(", ")));
        }
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.typed.is_set(name)
    }

    /// Whether no mistake was found in these options.
    pub(super) fn are_valid(&self, names: &[&str]) -> bool {
        !self.wrong.borrow().iter().any(|name| names.contains(name))
    }

    fn first(&self, name: &str) -> Option<&TypedValue> {
        self.typed.values.get(name)?.first()
    }
}

fn listed(name: &str) -> &'static OptionSpec {
    option(name).expect("only listed options are validated")
}

fn duration(name: &str, text: &str) -> Result<Duration, Fault> {
    match &listed(name).kind {
        Kind::Duration(bounds) => value::duration(text, bounds.clone()),
        other => unreachable!("{name} is {other:?}"),
    }
}

fn count(name: &str, text: &str) -> Result<u32, Fault> {
    match &listed(name).kind {
        Kind::Count(bounds) => value::count(text, bounds.clone()),
        other => unreachable!("{name} is {other:?}"),
    }
}
