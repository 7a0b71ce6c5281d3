//! `pointsman explain`: what the docs say about an option or an outcome, offline; and the pages of the
//! docs that are made of the same words. Pure: everything comes from the tables of `config` and
//! `outcome`.

mod layout;
mod option;
mod outcome;

use crate::config::options;
use crate::outcome::Outcome;

/// How alike a word has to be to a name to be taken for it, as for the keys of the file; 1 is the same.
const ALIKE: f64 = 0.8;

/// A word that names nothing that can be explained.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    word: String,
    /// The name that is most like it.
    meant: Option<&'static str>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "no option and no outcome is called {:?}; ", self.word)?;
        match self.meant {
            Some(name) => write!(out, "did you mean {name}?"),
            None => out.write_str("pointsman explain lists them all"),
        }
    }
}

impl std::error::Error for Unknown {}

/// All that is known about `word`, the name of an option, with or without `--`, or of an outcome.
///
/// # Errors
/// Nothing has this name.
pub(crate) fn explain(word: &str) -> Result<String, Unknown> {
    let name = word.trim_start_matches("--").to_ascii_lowercase();
    let as_option = name
        .strip_prefix("pointsman_")
        .unwrap_or(&name)
        .replace('_', "-");
    let is_named = |outcome: &Outcome| outcome.name() == name;
    if let Some(outcome) = Outcome::all().find(is_named) {
        return Ok(outcome::text(outcome));
    }
    let mut shown = options().filter(|spec| !spec.hidden);
    if let Some(spec) = shown.find(|spec| spec.name == as_option) {
        return Ok(option::text(spec));
    }
    let alike = |known: &'static str| {
        let spelled = if known.contains('_') {
            name.replace('-', "_")
        } else {
            as_option.clone()
        };
        (strsim::jaro(known, &spelled), known)
    };
    let meant = names().map(alike).filter(|(alike, _)| *alike > ALIKE);
    let meant = meant.max_by(|(a, _), (b, _)| a.total_cmp(b));
    Err(Unknown {
        word: word.to_owned(),
        meant: meant.map(|(_, name)| name),
    })
}

/// The names of everything that can be explained.
pub(crate) fn list() -> String {
    format!(
        "Options (pointsman explain OPTION):\n\n{}\nOutcomes (pointsman explain OUTCOME):\n\n{}",
        option::list(),
        outcome::list()
    )
}

/// A page of the docs: `options` or `outcomes`.
///
/// # Panics
/// When it is another.
pub(crate) fn page(name: &str) -> String {
    match name {
        "options" => option::page(),
        "outcomes" => outcome::page(),
        other => unreachable!("the command line takes no {other}"),
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    let options = options().filter(|spec| !spec.hidden);
    options
        .map(|spec| spec.name)
        .chain(Outcome::all().map(Outcome::name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option;

    #[test]
    fn everything_named_is_explained() {
        for name in names() {
            let text = explain(name).unwrap();
            assert!(
                text.starts_with(name) || text.starts_with(&format!("--{name} ")),
                "{text}"
            );
            assert!(list().split_whitespace().any(|word| word == name), "{name}");
        }
    }

    #[test]
    fn an_option_is_known_by_each_of_its_spellings() {
        let text = explain("head-deadline").unwrap();
        for spelling in [
            "--head-deadline",
            "head_deadline",
            "POINTSMAN_HEAD_DEADLINE",
        ] {
            assert_eq!(explain(spelling).as_ref(), Ok(&text), "{spelling}");
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        for (word, meant) in [
            ("--haed-deadline", Some("head-deadline")),
            ("backend-timeout", Some("backend_timeout")),
            ("unkown_name", Some("unknown_name")),
            ("xyz", None),
            ("kernel-mask", None),
        ] {
            assert_eq!(explain(word).unwrap_err().meant, meant, "{word}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for spec in options() {
            for see in spec.see {
                let is_outcome = Outcome::all().any(|outcome| outcome.name() == *see);
                assert!(is_outcome || option(see).is_some(), "{}: {see}", spec.name);
                assert_ne!(*see, spec.name);
            }
        }
    }

    /// A table that is cut off at a wrong place, or a word that ends a cell, would show here.
    #[test]
    fn pages_are_tables_of_whole_rows() {
        for name in ["options", "outcomes"] {
            let page = page(name);
            let mut columns = None;
            for line in page.lines() {
                if !line.starts_with('|') {
                    columns = None;
                    continue;
                }
                assert!(line.ends_with('|'), "{line}");
                let count = line.replace("\\|", "").matches('|').count();
                assert_eq!(*columns.get_or_insert(count), count, "{line}");
            }
        }
    }
}
