//! The first stage: reads the command line, the environment, the configuration file and the pages that it
//! names. The command line overrides the environment, the environment the file. The values of a repeatable
//! option all come from the first of them that sets it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::arguments::without_unknown;
use super::command::command;
use super::error::{ConfigError, Fault, Origin};
use super::options::{ENVIRONMENT_PREFIX, ENVIRONMENT_SEPARATOR, option, options};
use super::typed::{Action, Typed, TypedValue};
use super::{file, files, names};

/// Reads the command line, which begins with the name of the program, the environment and the file that
/// they name. Mistakes in the latter two, and unknown options, are kept; `Typed::validate` reports them
/// together with all others.
///
/// # Errors
/// The command line cannot be understood, or asks for help or the version. The error knows its text, its
/// stream and its exit status.
pub(crate) fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Action, Typed), clap::Error> {
    let mut typed = Typed::default();
    let arguments = without_unknown(arguments, &mut typed.faults);
    let matches = command().try_get_matches_from(arguments)?;
    let action = match matches.subcommand_name() {
        Some("explain") => {
            let words = "explain needs no options; write it first, as in pointsman explain drain";
            return Err(command().error(ErrorKind::ArgumentConflict, words));
        }
        Some("demo") => Action::Demo,
        Some("check") => Action::Check,
        Some("unwrap") => Action::Unwrap,
        _ => Action::Run,
    };
    for spec in options() {
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
    read_file(&mut typed);
    read_pages(&mut typed);
    typed.unwrap = match action {
        Action::Unwrap => true,
        Action::Check => typed.is_set("to") || typed.is_set("listen"),
        Action::Run | Action::Demo => false,
    };
    Ok((action, typed))
}

fn read_file(typed: &mut Typed) {
    let Some(config) = typed.values.get("config").and_then(|values| values.first()) else {
        return;
    };
    let path = PathBuf::from(&config.text);
    let read = files::text(&path).map_err(|error| {
        let fault = Fault::new(
            format!("{} cannot be read: {error}", path.display()),
            "name a file that exists and may be read, or leave the option out",
        );
        fault.of(option("config").expect("config is listed"), &config.origin)
    });
    match read.and_then(|text| file::read(&path, &text, &mut typed.faults)) {
        Ok(values) => typed.fill(values),
        Err(error) => {
            typed.faults.push(error);
            typed.lacks_file = true;
        }
    }
}

/// Reads the files of `error-page`, so that validation need not.
fn read_pages(typed: &mut Typed) {
    for value in typed.values.get("error-page").into_iter().flatten() {
        if let Some((_, path)) = value.text.split_once('=') {
            let page = files::page(Path::new(path.trim()));
            let page = page.map_err(|error| error.to_string());
            typed.pages.insert(path.trim().to_owned(), page);
        }
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
        let Some(spec) = options().find(|spec| spec.environment_name() == name) else {
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
        // Shells and unit files unset a variable by setting it to nothing.
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
