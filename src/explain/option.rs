//! What is said about an option.

use std::fmt::Write as _;

use super::layout::{names, part, sentence};
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
    let mut page = String::from(
        "# Options\n\n\
         <!-- Made by: pointsman explain --markdown options > docs/options.md -->\n\n\
         ```\n\
         pointsman --https :443 --route 'www.example.com=10.0.0.7' --drain 1m\n\
         pointsman explain drain\n\
         ```\n\n\
         The second line prints what this page says about an option.\n\n\
         An option is set on the command line (`--drain 1m`), in the environment (`POINTSMAN_DRAIN=1m`) or in a TOML \
         file that `--config` names\n\
         (`drain = \"1m\"`; see [pointsman.toml](pointsman.toml)). The command line wins over the environment, the \
         environment over the file. One that may be there\n\
         several times is taken whole from the first of them that has it: several times on the command line, with `;` \
         between the values in the environment,\n\
         a list in the file.\n\n\
         Durations are written like `500ms`, `10s`, `5m` or `1h`, sizes like `65536`, `64KiB` or `1MiB`. An unknown name \
         is refused, wherever it is; variables\n\
         that Kubernetes sets for services called `pointsman…` (`POINTSMAN_METRICS_SERVICE_HOST`, \
         `POINTSMAN_PORT_80_TCP` and the like), and\n\
         `POINTSMAN_VERSION`, are not looked at. `pointsman check` with the same options says what is wrong, all at \
         once.\n",
    );
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
    let mut entry = format!(
        "\n### `--{}`\n\n`--{0} {}`: {}\n\n- Default: {}.\n",
        spec.name,
        spec.value,
        escaped(&sentence(spec.help)),
        markdown_default(spec)
    );
    let mut point = |title: &str, text: &str| {
        writeln!(entry, "- {title}: {text}.").expect("a String takes everything");
    };
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
