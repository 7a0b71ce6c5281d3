//! What is said about an option.

use std::fmt::Write as _;

use super::layout::{names, paragraph, part, sentence};
use crate::config::{Kind, OptionSpec, SECTIONS, Section, option};

/// For the terminal.
pub(super) fn text(spec: &OptionSpec) -> String {
    let OptionSpec { name, example, .. } = spec;
    let mut text = format!("--{name} {}\n\n", spec.value);
    text += &part("meaning", &sentence(spec.help));
    text += &part("default", default(spec));
    if let Some(bounds) = bounds(spec) {
        text += &part("values", &bounds);
    }
    text += &part("example", &format!("--{name} '{example}'"));
    text += &part(
        "environment",
        &format!("{}='{example}'", spec.environment_name()),
    );
    text += &part("in the file", &file_line(spec));
    if !spec.see.is_empty() {
        text += &part("see also", &spec.see.join(", "));
    }
    text += &part("page", &format!("docs/{}", section_of(spec).page));
    text
}

pub(super) fn list() -> String {
    let mut text = String::new();
    for section in shown_sections() {
        let list = names(shown(section).map(|spec| spec.name));
        write!(text, "{}\n{list}\n", section.title).expect("a String takes everything");
    }
    text
}

/// `docs/options.md`.
pub(super) fn page() -> String {
    let mut page = String::from(include_str!("options.md"));
    for section in shown_sections() {
        let Section {
            title, page: more, ..
        } = section;
        write!(page, "\n## {title}\n\nMore: [{more}]({more}).\n")
            .expect("a String takes everything");
        shown(section).for_each(|spec| page += &entry(spec));
    }
    page
}

fn entry(spec: &OptionSpec) -> String {
    let mut entry = format!("\n### `--{}`\n\n", spec.name);
    let meaning = escaped(&sentence(spec.help));
    entry += &paragraph("", &format!("`--{} {}`: {meaning}", spec.name, spec.value));
    entry.push('\n');
    let mut point = |title: &str, text: &str| {
        entry += &paragraph("- ", &format!("{title}: {text}."));
    };
    point("Default", &markdown_default(spec));
    if let Some(bounds) = bounds(spec) {
        point("Values", &bounds);
    }
    if spec.repeatable {
        point("Repeatable", "yes");
    }
    point("Example", &format!("`{}`", file_line(spec)));
    if !spec.see.is_empty() {
        let see: Vec<String> = spec.see.iter().map(|name| link(name)).collect();
        point("See also", &see.join(", "));
    }
    entry
}

/// A link to another option of this page, or to an outcome.
fn link(name: &str) -> String {
    if option(name).is_some() {
        format!("[`--{name}`](#--{name})")
    } else {
        format!("[`{name}`](outcomes.md#{name})")
    }
}

/// What Markdown would take for marks of its own.
fn escaped(text: &str) -> String {
    text.replace('*', "\\*").replace('|', "\\|")
}

fn markdown_default(spec: &OptionSpec) -> String {
    if spec.default.is_empty() {
        String::from("none")
    } else {
        format!("`{}`", spec.default)
    }
}

fn default(spec: &OptionSpec) -> &'static str {
    if spec.default.is_empty() {
        "none"
    } else {
        spec.default
    }
}

fn bounds(spec: &OptionSpec) -> Option<String> {
    let bounds = match &spec.kind {
        Kind::Text => return None,
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::Count(bounds) => {
            format!("a whole number from {} to {}", bounds.start(), bounds.end())
        }
        Kind::Duration(bounds) => format!(
            "a duration from {} to {}",
            humantime::format_duration(*bounds.start()),
            humantime::format_duration(*bounds.end())
        ),
        Kind::Bytes(bounds) => {
            format!("from {} to {}", size(*bounds.start()), size(*bounds.end()))
        }
    };
    Some(bounds)
}

/// In the largest unit that leaves a whole number.
fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 2] = [(1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = |(unit, _): &(usize, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match UNITS.into_iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// As the configuration file has it.
fn file_line(spec: &OptionSpec) -> String {
    let OptionSpec { name, example, .. } = spec;
    match spec.kind {
        Kind::Count(_) => format!("{name} = {example}"),
        _ if spec.repeatable => format!("{name} = [\"{example}\"]"),
        _ => format!("{name} = \"{example}\""),
    }
}

fn section_of(spec: &OptionSpec) -> &'static Section {
    let holds = |section: &&Section| section.options.iter().any(|other| other.name == spec.name);
    SECTIONS
        .iter()
        .find(holds)
        .expect("every option is in a section")
}

fn shown_sections() -> impl Iterator<Item = &'static Section> {
    SECTIONS
        .iter()
        .filter(|section| shown(section).next().is_some())
}

fn shown(section: &Section) -> impl Iterator<Item = &'static OptionSpec> + use<> {
    section.options.iter().filter(|spec| !spec.hidden)
}
