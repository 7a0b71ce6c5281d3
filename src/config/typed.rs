//! The first stage: what was typed, as text, each value with the place it came from. The command
//! line goes before the environment, the environment before the file. A repeatable option is taken
//! whole from the first of them that has it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::command::command;
use super::error::{ConfigError, Fault, Origin};
use super::options::{ENVIRONMENT_PREFIX, ENVIRONMENT_SEPARATOR, OPTIONS, option};
use super::{file, names};

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

/// Everything typed, by the names of the options; [`Typed::check`] makes a configuration of it.
#[derive(Clone, Default)]
pub(crate) struct Typed {
    pub(super) values: BTreeMap<&'static str, Vec<TypedValue>>,
    /// Whether it is the receiving end that is configured.
    pub(super) unwrap: bool,
    /// What was wrong already when it was read.
    pub(super) faults: Vec<ConfigError>,
    /// Whether a file was named that could not be read, so that much may be missing here.
    pub(super) lacks_file: bool,
}

/// Reads the command line (program name first), the environment and the file they name. What is wrong
/// with the latter two, [`Typed::check`] tells together with all else.
///
/// # Errors
/// Help or version was asked for, or the command line is wrong; it knows its text, its stream and
/// its exit status.
pub(crate) fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Action, Typed), clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let action = match matches.subcommand_name() {
        Some("demo") => Action::Demo,
        Some("check") => Action::Check,
        Some("unwrap") => Action::Unwrap,
        _ => Action::Run,
    };
    let mut typed = Typed::default();
    for spec in OPTIONS {
        if let Some(values) = matches.get_many::<String>(spec.name) {
            let values = values.map(|text| TypedValue {
                text: text.clone(),
                origin: Origin::CommandLine,
            });
            typed.values.insert(spec.name, values.collect());
        }
    }
    let from_environment = from_environment(environment, &mut typed.faults);
    typed.fill(from_environment);
    typed.read_file();
    typed.unwrap = match action {
        Action::Unwrap => true,
        Action::Check => typed.is_set("to") || typed.is_set("listen"),
        Action::Run | Action::Demo => false,
    };
    Ok((action, typed))
}

impl Typed {
    fn read_file(&mut self) {
        let Some(config) = self.values.get("config").and_then(|values| values.first()) else {
            return;
        };
        let path = PathBuf::from(&config.text);
        let read = std::fs::read_to_string(&path).map_err(|error| {
            let fault = Fault::new(
                format!("{} cannot be read: {error}", path.display()),
                "name a file that exists and may be read, or leave the option out",
            );
            fault.of(option("config").expect("config is listed"), &config.origin)
        });
        match read.and_then(|text| file::read(&path, &text, &mut self.faults)) {
            Ok(values) => self.fill(values),
            Err(error) => {
                self.faults.push(error);
                self.lacks_file = true;
            }
        }
    }

    /// Takes from `lower` the options that are not set yet.
    fn fill(&mut self, lower: BTreeMap<&'static str, Vec<TypedValue>>) {
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

fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<&'static str, Vec<TypedValue>> {
    let mut settings = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(ENVIRONMENT_PREFIX))
        else {
            continue;
        };
        let Some(spec) = OPTIONS.iter().find(|spec| spec.environment_name() == name) else {
            if !names::is_of_kubernetes(name, &value.to_string_lossy()) {
                let fault = Fault::new("there is no such option", names::remedy_for_variable(name));
                faults.push(fault.of_variable(name));
            }
            continue;
        };
        let Some(value) = value.to_str() else {
            let fault = Fault::new("the value is not UTF-8", "write it in UTF-8 or unset it");
            faults.push(fault.of_variable(name));
            continue;
        };
        let texts: Vec<&str> = if spec.repeatable {
            value.split(ENVIRONMENT_SEPARATOR).map(str::trim).collect()
        } else {
            vec![value]
        };
        // An empty variable is how shells and unit files unset one.
        let values: Vec<TypedValue> = texts
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| TypedValue {
                text: text.to_owned(),
                origin: Origin::Environment,
            })
            .collect();
        if !values.is_empty() {
            settings.insert(spec.name, values);
        }
    }
    settings
}
