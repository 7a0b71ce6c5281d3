//! Reads the values one after the other and keeps all that is wrong with them, so that an operator
//! corrects everything in one go.

use std::cell::RefCell;

use super::super::error::{ConfigError, ConfigErrors, Fault};
use super::super::options::{OptionSpec, option};
use super::super::typed::{Typed, TypedValue};

/// What was typed, with what is wrong with it so far.
pub(in crate::config) struct Checker<'a> {
    pub typed: &'a Typed,
    faults: RefCell<Vec<ConfigError>>,
    /// The options whose values are wrong.
    wrong: RefCell<Vec<&'static str>>,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(typed: &'a Typed) -> Checker<'a> {
        Checker {
            typed,
            faults: RefCell::new(typed.faults.clone()),
            wrong: RefCell::default(),
        }
    }

    /// What was made of the values, if nothing was wrong.
    pub(crate) fn finish<T>(self, made: Result<T, ConfigError>) -> Result<T, ConfigErrors> {
        let mut faults = self.faults.into_inner();
        match made {
            Ok(made) if faults.is_empty() => return Ok(made),
            Ok(_) => {}
            Err(last) => faults.push(last),
        }
        Err(ConfigErrors::new(faults))
    }

    /// The value of an option that has a default, which stands in for a wrong one.
    ///
    /// # Errors
    /// When the default itself is wrong, which a test rules out.
    pub(crate) fn value<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<T, ConfigError> {
        match self.optional(name, &parse)? {
            Some(value) => Ok(value),
            None => parse(listed(name).default).map_err(|fault| fault.at(name)),
        }
    }

    /// The value of an option that may be missing, as a wrong one then is.
    ///
    /// # Errors
    /// None; it is for the callers to look the same.
    pub(crate) fn optional<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<Option<T>, ConfigError> {
        let value = self.first(name).map(|typed| parse(&typed.text));
        Ok(value.and_then(|value| value.map_err(|fault| self.note(name, fault)).ok()))
    }

    /// The values of a repeatable option, without the wrong ones.
    ///
    /// # Errors
    /// None; as with [`Checker::optional`].
    pub(crate) fn all<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<Vec<T>, ConfigError> {
        let typed = self.typed.values.get(name).into_iter().flatten();
        let values = typed.filter_map(|typed| {
            let value = parse(&typed.text);
            value
                .map_err(|fault| self.note_of(name, fault.of(listed(name), &typed.origin)))
                .ok()
        });
        Ok(values.collect())
    }

    /// Keeps what is wrong with an option, by itself or beside others.
    pub(crate) fn note(&self, name: &'static str, fault: Fault) {
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
    pub(crate) fn require_one_of(&self, names: &[&str], fault: Fault) {
        if !self.typed.lacks_file && !names.iter().any(|name| self.is_set(name)) {
            self.faults.borrow_mut().push(fault.at(names.join(", ")));
        }
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.typed.is_set(name)
    }

    /// Whether nothing was found to be wrong with these.
    pub(crate) fn are_right(&self, names: &[&str]) -> bool {
        !self.wrong.borrow().iter().any(|name| names.contains(name))
    }

    fn first(&self, name: &str) -> Option<&TypedValue> {
        self.typed.values.get(name)?.first()
    }
}

fn listed(name: &str) -> &'static OptionSpec {
    option(name).expect("only listed options are checked")
}
