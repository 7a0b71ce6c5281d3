//! The configuration file: TOML, with a key for each option, by the names of the command line. Each value
//! keeps its line, for errors to name.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Fault, Origin};
use super::names;
use super::options::{OptionSpec, option};
use super::typed::TypedValue;

/// Reads the options in `text`, the content of the file at `path`. Mistakes in single options are added to
/// `faults`.
///
/// # Errors
/// The text is not TOML, so that none of it could be read.
pub(super) fn read(
    path: &Path,
    text: &str,
    faults: &mut Vec<ConfigError>,
) -> Result<BTreeMap<&'static str, Vec<TypedValue>>, ConfigError> {
    let line = |offset: usize| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        // The whole error quotes the line, which may hold the password of Redis.
        let problem = error.message().replace('\n', ", ");
        let fault = Fault::new(format!("not TOML: {problem}"), "correct the line");
        fault.in_file(path, line(offset))
    })?;
    let mut settings = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let at_key = |fault: Fault| fault.in_file(path, line(key.span().start));
        let spec = match option_of(key.get_ref(), value.get_ref()) {
            Ok(spec) => spec,
            Err(fault) => {
                faults.push(at_key(fault));
                continue;
            }
        };
        let as_text = || format!("write {} = \"...\"", spec.name);
        let list = match value.get_ref() {
            DeValue::Array(list) if spec.repeatable => list.iter().collect(),
            DeValue::Array(_) => {
                faults.push(at_key(Fault::new("takes one value, not a list", as_text())));
                continue;
            }
            _ => vec![value],
        };
        let values: &mut Vec<TypedValue> = settings.entry(spec.name).or_default();
        for value in list {
            let origin = Origin::File {
                path: path.to_owned(),
                line: line(value.span().start),
            };
            match scalar(value.get_ref()) {
                Some(text) => values.push(TypedValue { text, origin }),
                None => {
                    let fault = Fault::new(
                        "the value is neither a string nor a whole number",
                        as_text(),
                    );
                    faults.push(fault.of(spec, &origin));
                }
            }
        }
    }
    Ok(settings)
}

/// The option of this key.
fn option_of(name: &str, value: &DeValue<'_>) -> Result<&'static OptionSpec, Fault> {
    match option(name) {
        Some(spec) if spec.name == "config" => Err(Fault::new(
            "a file cannot name another file",
            "remove it and put all options into one file",
        )),
        Some(spec) => Ok(spec),
        None => {
            let remedy = match value {
                DeValue::Table(_) => {
                    String::from("remove the line in brackets: the file has no sections")
                }
                _ => names::remedy_for_key(name),
            };
            Err(Fault::new(format!("there is no option {name:?}"), remedy))
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}
