//! The configuration file: TOML, one key per option, by the names of the command line. Keys and
//! values keep their line, so that whatever is wrong with them can be found.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Fault, Origin};
use super::options::option;
use super::typed::TypedValue;

/// Reads the options in `text`, which came from `path`.
pub(super) fn read(
    path: &Path,
    text: &str,
) -> Result<BTreeMap<&'static str, Vec<TypedValue>>, ConfigError> {
    let line = |offset: usize| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    };
    let place = |offset: usize| format!("{}:{}", path.display(), line(offset));
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        // The whole error would quote the line, which may hold the password of Redis.
        let problem = error.message().replace('\n', ", ");
        Fault::new(format!("not TOML: {problem}"), "correct the line").at(place(offset))
    })?;
    let mut settings = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let at_key = place(key.span().start);
        let name = key.get_ref().as_ref();
        let Some(spec) = option(name) else {
            let dashed = name.replace('_', "-");
            let remedy = match option(&dashed) {
                Some(meant) => format!("write {}", meant.name),
                None => String::from("correct or remove it; pointsman --help lists all options"),
            };
            return Err(Fault::new(format!("there is no option {name:?}"), remedy).at(at_key));
        };
        if spec.name == "config" {
            return Err(Fault::new(
                "a file cannot name another file",
                "remove it and put all options into one file",
            )
            .at(at_key));
        }
        let origin = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: line(offset),
        };
        let one = |value: &toml::Spanned<DeValue<'_>>| {
            let origin = origin(value.span().start);
            match scalar(value.get_ref()) {
                Some(text) => Ok(TypedValue { text, origin }),
                None => Err(Fault::new(
                    "the value is neither a text nor a whole number",
                    format!("write {} = \"...\"", spec.name),
                )
                .at(origin.place(spec))),
            }
        };
        let values = match value.get_ref() {
            DeValue::Array(values) if spec.repeatable => {
                values.iter().map(one).collect::<Result<Vec<_>, _>>()?
            }
            DeValue::Array(_) => {
                return Err(Fault::new(
                    "takes one value, not a list",
                    format!("write {} = \"...\"", spec.name),
                )
                .at(at_key));
            }
            _ => vec![one(value)?],
        };
        settings.insert(spec.name, values);
    }
    Ok(settings)
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}
