//! Reads the values one after the other and keeps all that is wrong with them, so that an operator
//! corrects everything in one go.

use std::cell::RefCell;
use std::time::Duration;

use crate::config::error::{ConfigError, ConfigErrors, Fault};
use crate::config::options::{Kind, OptionSpec, option};
use crate::config::typed::{Typed, TypedValue};
use crate::config::value;

/// What was typed, with what is wrong with it so far.
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

    /// What was made of the values, if nothing was wrong.
    pub(super) fn finish<T>(self, made: T) -> Result<T, ConfigErrors> {
        let faults = self.faults.into_inner();
        if faults.is_empty() {
            Ok(made)
        } else {
            Err(ConfigErrors::new(faults))
        }
    }

    /// The value of an option that has a default, which stands in for a wrong one.
    ///
    /// # Panics
    /// When the default itself is wrong, which a test rules out.
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

    /// Keeps what is wrong with an option, by itself or beside others.
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

    /// At least one of some options has to be there, right or wrong. What a file says that cannot be
    /// read is not known.
    pub(super) fn require_one_of(&self, names: &[&str], fault: Fault) {
        if !self.typed.lacks_file && !names.iter().any(|name| self.is_set(name)) {
            self.faults.borrow_mut().push(fault.at(names.join(", ")));
        }
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.typed.is_set(name)
    }

    /// Whether nothing was found to be wrong with these.
    pub(super) fn are_right(&self, names: &[&str]) -> bool {
        !self.wrong.borrow().iter().any(|name| names.contains(name))
    }

    fn first(&self, name: &str) -> Option<&TypedValue> {
        self.typed.values.get(name)?.first()
    }
}

fn listed(name: &str) -> &'static OptionSpec {
    option(name).expect("only listed options are checked")
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
