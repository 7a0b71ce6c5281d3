//! Static routes: `--route` and the routes file. All of them are checked before any of them counts, and
//! every mistake is named.
//!
//! ```toml
//! [routes]
//! "a.example" = ["10.0.0.1:443", "10.0.0.2:443"]
//! "*.b.example" = "unix:/run/b.sock"
//!
//! [default]
//! https = ["10.0.0.9"]
//! http = ["10.0.0.9"]
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rejected_entries::MEMBERS_MAX;
use crate::config::{StaticRoute, SyncSettings};
use crate::protocol::Protocol;
use crate::route::{AddressPolicy, HostOptions, Key, Member, as_option, validate_entry};

/// Mistakes that are printed; the others are only counted. A file of another kind has one in every line.
const MISTAKES_PRINTED_MAX: usize = 20;

/// The members and options of each host.
pub(super) type Routes = HashMap<Key, Vec<String>>;

/// Everything that is wrong with the static routes; never empty. Each mistake is one text with its
/// place, cause and remedy. Printed one per line.
#[derive(Debug)]
pub(super) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = self.0.len().min(MISTAKES_PRINTED_MAX);
        out.write_str(&self.0[..printed].join("\n"))?;
        let more = self.0.len() - printed;
        if more > 0 {
            write!(out, "\nand {more} mistakes more")?;
        }
        Ok(())
    }
}

/// The routes of the file and of `--route`. Where both name a host, `--route` wins.
pub(super) fn load(settings: &SyncSettings) -> Result<Routes, Mistakes> {
    let policy = &settings.backend_policy;
    let of_file = match &settings.routes_file {
        Some(path) => read(path, policy),
        None => Ok(Routes::new()),
    };
    let of_options = from_options(&settings.static_routes, policy);
    match (of_file, of_options) {
        (Ok(mut routes), Ok(of_options)) => {
            routes.extend(of_options);
            Ok(routes)
        }
        (of_file, of_options) => {
            let mistakes = [of_file.err(), of_options.err()].into_iter().flatten();
            Err(Mistakes(mistakes.flat_map(|Mistakes(all)| all).collect()))
        }
    }
}

/// What is wrong with the entries of a host together: too many, two that contradict each other, or an
/// address that no backend may have.
fn conflicts(entries: &[String], policy: &AddressPolicy) -> Vec<String> {
    if entries.len() > MEMBERS_MAX {
        let count = entries.len();
        return vec![format!(
            "{count} members, and a host has at most {MEMBERS_MAX}; spread them over several hosts or put a \
            balancer in front"
        )];
    }
    let mut conflicts = Vec::new();
    let mut options = HostOptions::default();
    let mut members: Vec<Member> = Vec::new();
    for entry in entries {
        if let Some(option) = as_option(entry) {
            conflicts.extend(options.set(option).err().map(|error| error.to_string()));
            continue;
        }
        let member = match allowed_member(entry, policy) {
            Ok(member) => member,
            Err(problem) => {
                conflicts.push(format!("member {entry:?}: {problem}"));
                continue;
            }
        };
        let same = |known: &&Member| known.is_same_backend(&member);
        match members.iter().find(same) {
            Some(known) if *known != member => conflicts.push(format!(
                "members \"{known}\" and \"{member}\" are the same backend; leave the one that is meant"
            )),
            _ => members.push(member),
        }
    }
    for member in &options.acme {
        if let Err(problem) = allowed_member(member, policy) {
            conflicts.push(format!("option acme={member}: {problem}"));
        }
    }
    let together = options.validate();
    conflicts.extend(together.err().map(|error| error.to_string()));
    conflicts
}

/// A member whose address is allowed for backends.
fn allowed_member(text: &str, policy: &AddressPolicy) -> Result<Member, String> {
    let member = Member::parse(text).map_err(|error| error.to_string())?;
    let checked = policy.validate_member(&member);
    checked.map_err(|denied| denied.to_string())?;
    Ok(member)
}

fn from_options(options: &[StaticRoute], policy: &AddressPolicy) -> Result<Routes, Mistakes> {
    let mut routes = Routes::new();
    for StaticRoute { key, entry } in options {
        routes.entry(key.clone()).or_default().push(entry.clone());
    }
    let mut mistakes = Vec::new();
    for (key, entries) in &routes {
        let problems = conflicts(entries, policy).into_iter();
        mistakes.extend(problems.map(|problem| format!("route {key}: {problem}")));
    }
    if mistakes.is_empty() {
        return Ok(routes);
    }
    mistakes.sort_unstable();
    Err(Mistakes(mistakes))
}

fn read(path: &Path, policy: &AddressPolicy) -> Result<Routes, Mistakes> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Mistakes(vec![format!(
            "{}: the routes file cannot be read: {error}; make it a readable TOML file or change --routes",
            path.display()
        )])
    })?;
    parse(&text, policy).map_err(|mistakes| {
        let with_line = |Mistake { offset, problem }: Mistake| {
            let line = text[..offset.min(text.len())].matches('\n').count() + 1;
            format!("{}:{line}: {problem}", path.display())
        };
        Mistakes(mistakes.into_iter().map(with_line).collect())
    })
}

/// One thing that is wrong with the routes file.
pub(super) struct Mistake {
    /// Where in the text, in bytes.
    pub offset: usize,
    problem: String,
}

/// The routes of a file, or its mistakes from its top to its end.
pub(super) fn parse(text: &str, policy: &AddressPolicy) -> Result<Routes, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = errors.iter().map(not_toml).collect();
    let mut routes = Routes::new();
    if mistakes.is_empty() {
        let mut reader = SectionReader {
            policy,
            routes,
            mistakes,
        };
        for (section, content) in document.get_ref() {
            reader.read_section(section, content);
        }
        (routes, mistakes) = (reader.routes, reader.mistakes);
    }
    if mistakes.is_empty() {
        return Ok(routes);
    }
    mistakes.sort_by_key(|mistake| mistake.offset);
    Err(mistakes)
}

fn not_toml(error: &toml::de::Error) -> Mistake {
    Mistake {
        offset: error.span().map_or(0, |span| span.start),
        problem: format!("not TOML: {}", error.message().replace('\n', ", ")),
    }
}

/// Collects the routes of a file, and what is wrong with it.
struct SectionReader<'p> {
    policy: &'p AddressPolicy,
    routes: Routes,
    mistakes: Vec<Mistake>,
}

impl SectionReader<'_> {
    fn read_section(&mut self, section: &Spanned<Cow<'_, str>>, content: &Spanned<DeValue<'_>>) {
        let offset = section.span().start;
        let section = section.get_ref();
        let parse_key = match &**section {
            "routes" => host_key,
            "default" => default_key,
            _ => {
                let problem =
                    format!("unknown section {section:?}; there are [routes] and [default]");
                return self.note(offset, problem);
            }
        };
        let DeValue::Table(table) = content.get_ref() else {
            let problem = format!("{section:?} has to be a table; write [routes] or [default]");
            return self.note(offset, problem);
        };
        // In the order of the file, so that of two lines for one host the second is the mistake.
        let mut lines: Vec<_> = table.iter().collect();
        lines.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in lines {
            let offset = name.span().start;
            let name = name.get_ref();
            match parse_key(name) {
                Ok(key) => self.read_route(offset, name, key, value),
                Err(problem) => self.note(offset, format!("{name:?}: {problem}")),
            }
        }
    }

    fn read_route(&mut self, offset: usize, name: &str, key: Key, value: &Spanned<DeValue<'_>>) {
        let single = std::slice::from_ref(value);
        let list: &[Spanned<DeValue<'_>>] = match value.get_ref() {
            DeValue::Array(list) => list,
            _ => single,
        };
        if list.is_empty() {
            let problem = format!("{name:?} has no members; remove the line or add one");
            self.note(value.span().start, problem);
        }
        let mut entries = Vec::new();
        for value in list {
            match entry(value.get_ref()) {
                Ok(entry) => entries.push(entry),
                Err(problem) => self.note(value.span().start, format!("{name:?}: {problem}")),
            }
        }
        for problem in conflicts(&entries, self.policy) {
            self.note(offset, format!("{name:?}: {problem}"));
        }
        if self.routes.insert(key, entries).is_some() {
            let problem = format!("{name:?} is there twice; merge the two lines");
            self.note(offset, problem);
        }
    }

    fn note(&mut self, offset: usize, problem: String) {
        self.mistakes.push(Mistake { offset, problem });
    }
}

fn host_key(name: &str) -> Result<Key, String> {
    Key::parse_name(name).map_err(|error| error.to_string())
}

fn default_key(name: &str) -> Result<Key, String> {
    match Key::parse(&format!("default:{name}")) {
        Ok(Key::Default(Protocol::Tcp)) | Err(_) => {
            Err(String::from("the defaults are https and http"))
        }
        Ok(key) => Ok(key),
    }
}

/// A member or an option.
fn entry(value: &DeValue<'_>) -> Result<String, String> {
    let DeValue::String(text) = value else {
        return Err(String::from(
            "members are strings, as in [\"10.0.0.1:443\"]",
        ));
    };
    let kind = if as_option(text).is_some() {
        "option"
    } else {
        "member"
    };
    match validate_entry(text) {
        Ok(()) => Ok(text.to_string()),
        Err(error) => Err(format!("{kind} {text:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Routes {
        let parsed = parse(text, &AddressPolicy::default());
        parsed.unwrap_or_else(|mistakes| panic!("{}", mistakes[0].problem))
    }

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn both_sections_and_both_forms_of_members() {
        let text = "[routes]\n\"A.test\" = [\"10.0.0.1 proxy=v2\", \"b:8080\"]\n\"*.a.test\" = \
        \"unix:/run/a\"\n[default]\nhttps = [\"10.0.0.9\"]\n";
        let routes = parsed(text);
        assert_eq!(routes.len(), 3);
        assert_eq!(routes[&key("a.test")], ["10.0.0.1 proxy=v2", "b:8080"]);
        assert_eq!(routes[&key("*.a.test")], ["unix:/run/a"]);
        assert_eq!(routes[&key("default:https")], ["10.0.0.9"]);
        assert!(parsed("").is_empty());
    }

    #[test]
    fn faults_name_line_key_and_member() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.toml");
        for (text, line, said) in [
            (
                "[routes]\n\"a.test\" = [\"10.0.0.1\",\n \"10.0.0.2:0\"]\n",
                3,
                "\"10.0.0.2:0\"",
            ),
            (
                "[routes]\n\"a.test\" = \"10.0.0.1 proxy=v9\"\n",
                2,
                "write proxy=v1 or proxy=v2",
            ),
            ("[routes]\n\"a b\" = [\"10.0.0.1\"]\n", 2, "\"a b\""),
            ("[routes]\n\"a.test\" = []\n", 2, "no members"),
            ("[routes]\n\"a.test\" = 5\n", 2, "strings"),
            (
                "[routes]\n\"a.test\" = \"x\"\n\"A.test\" = \"x\"\n",
                3,
                "twice",
            ),
            ("\n[route]\n", 2, "unknown section"),
            ("[default]\nftp = \"x\"\n", 2, "https and http"),
            ("[default]\ntcp = \"x\"\n", 2, "https and http"),
            ("routes = 1\n", 1, "table"),
            ("[routes]\n\n\"a.test\" = [\n", 3, "TOML"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path, &AddressPolicy::default()).unwrap_err();
            assert_eq!(error.count(), 1, "{error}");
            let error = error.to_string();
            assert!(
                error.contains(&format!("routes.toml:{line}: ")),
                "{text:?}: {error}"
            );
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn options_add_up_and_win_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.toml");
        std::fs::write(
            &path,
            "[routes]\n\"a.test\" = \"file\"\n\"b.test\" = \"file\"\n",
        )
        .unwrap();
        let settings = SyncSettings {
            routes_file: Some(path),
            ..SyncSettings::of_options(&[("route", "a.test=x,y proxy=v1,z")]).unwrap()
        };
        let routes = load(&settings).unwrap();
        assert_eq!(routes[&key("a.test")], ["x", "y proxy=v1", "z"]);
        assert_eq!(routes[&key("b.test")], ["file"]);
    }

    #[test]
    fn every_mistake_is_named_in_the_order_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.toml");
        let text = "[default]\nftp = \"x\"\n[routes]\n\"b b\" = \"x\"\n\"a.test\" = [\"x:0\",\n 5]\n\
            \"c.test\" = [\"169.254.169.254\", \"@ejects=1\", \"@queue=x\"]\n[more]\n";
        std::fs::write(&path, text).unwrap();
        let settings = SyncSettings {
            routes_file: Some(path.clone()),
            ..SyncSettings::of_options(&[("route", "o.test=10.0.0.1 weight=1,10.0.0.1 weight=2")])
                .unwrap()
        };
        let mistakes = load(&settings).unwrap_err().to_string();
        let places: Vec<&str> = mistakes
            .lines()
            .map(|line| line.rsplit("routes.toml:").next().unwrap())
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            places,
            ["2", "4", "5", "6", "7", "7", "7", "8", "route o.test"],
            "{mistakes}"
        );
    }

    #[test]
    fn a_file_of_another_kind_is_not_printed_line_by_line() {
        let text = "not = toml\n".repeat(1000);
        let mistakes = parse(&text, &AddressPolicy::default()).unwrap_err();
        let mistakes = Mistakes(mistakes.into_iter().map(|one| one.problem).collect());
        assert!(mistakes.count() >= 1000);
        assert_eq!(
            mistakes.to_string().lines().count(),
            MISTAKES_PRINTED_MAX + 1
        );
    }
}
