//! Static routes: `--route` and the routes file. Checked whole before any of it counts.
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

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::config::SyncConfig;
use super::reply::MEMBERS_MAX;
use crate::protect::BackendPolicy;
use crate::protocol::Protocol;
use crate::route::{HostOptions, Key, Member, as_option, check_entry};

/// Members by what they are filed under.
pub(super) type Routes = HashMap<Key, Vec<String>>;

/// Everything static. The error names source, key and member, and the remedy.
pub(super) fn load(config: &SyncConfig) -> Result<Routes, String> {
    let mut routes = match &config.routes_file {
        Some(path) => read(path)?,
        None => Routes::new(),
    };
    routes.extend(from_options(&config.static_routes)?);
    for (key, entries) in &routes {
        check_together(entries, &config.backend_policy)
            .map_err(|error| format!("route {key}: {error}"))?;
    }
    Ok(routes)
}

/// What shows only when all that is said of a host is read.
fn check_together(entries: &[String], policy: &BackendPolicy) -> Result<(), String> {
    if entries.len() > MEMBERS_MAX {
        let count = entries.len();
        return Err(format!(
            "{count} members, and a host has at most {MEMBERS_MAX}; spread them over several hosts or put a balancer in front"
        ));
    }
    let mut said = HostOptions::default();
    let mut members: Vec<Member> = Vec::new();
    for entry in entries {
        match as_option(entry) {
            Some(option) => said.read(option).map_err(|error| error.to_string())?,
            None => {
                let member = Member::parse(entry).map_err(|error| error.to_string())?;
                let denied = |denied| format!("member {entry:?}: {denied}");
                policy.check_member(&member).map_err(denied)?;
                let same = |known: &&Member| known.is_same_backend(&member);
                if let Some(known) = members.iter().find(same).filter(|known| **known != member) {
                    return Err(format!(
                        "members \"{known}\" and \"{member}\" are the same backend; leave the one that is meant"
                    ));
                }
                members.push(member);
            }
        }
    }
    for text in &said.acme {
        let member = Member::parse(text).map_err(|error| error.to_string())?;
        let denied = |denied| format!("option acme={text}: {denied}");
        policy.check_member(&member).map_err(denied)?;
    }
    said.check_together().map_err(|error| error.to_string())
}

fn from_options(pairs: &[(String, String)]) -> Result<Routes, String> {
    let mut routes = Routes::new();
    for (host, members) in pairs {
        let said = |error: &dyn std::fmt::Display| format!("--route {host}={members}: {error}");
        let key = Key::parse(host).map_err(|error| said(&error))?;
        for member in members.split(',') {
            check_entry(member).map_err(|error| said(&format!("member {member:?}: {error}")))?;
            routes
                .entry(key.clone())
                .or_default()
                .push(member.to_owned());
        }
    }
    Ok(routes)
}

fn read(path: &Path) -> Result<Routes, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "{}: the routes file cannot be read: {error}; make it a readable TOML file or change --routes",
            path.display()
        )
    })?;
    parse(&text).map_err(|(offset, error)| {
        let line = text[..offset.min(text.len())].matches('\n').count() + 1;
        format!("{}:{line}: {error}", path.display())
    })
}

/// Where in the text, and what is wrong there.
type Fault = (usize, String);

fn parse(text: &str) -> Result<Routes, Fault> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (offset, format!("no valid TOML: {}", error.message()))
    })?;
    let mut routes = Routes::new();
    for (section, content) in document.get_ref() {
        let offset = section.span().start;
        let parse_key: fn(&str) -> Result<Key, String> = match &**section.get_ref() {
            "routes" => |name| Key::parse_name(name).map_err(|error| error.to_string()),
            "default" => |name| {
                let key = Key::parse(&format!("default:{name}"));
                let of_unwrap = |key: &Key| *key == Key::Default(Protocol::Tcp);
                let key = key.ok().filter(|key| !of_unwrap(key));
                key.ok_or_else(|| String::from("the defaults are https and http"))
            },
            other => {
                let error = format!("unknown section {other:?}; there are [routes] and [default]");
                return Err((offset, error));
            }
        };
        let DeValue::Table(table) = content.get_ref() else {
            let error = format!(
                "{:?} has to be a table; write [routes] or [default]",
                section.get_ref()
            );
            return Err((offset, error));
        };
        // In the order of the file, so that of two faults the first is named.
        let mut lines: Vec<_> = table.iter().collect();
        lines.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in lines {
            let offset = name.span().start;
            let key = parse_key(name.get_ref())
                .map_err(|error| (offset, format!("{:?}: {error}", name.get_ref())))?;
            let members = members(name.get_ref(), value)?;
            if routes.insert(key, members).is_some() {
                let error = format!("{:?} is there twice; merge the two lines", name.get_ref());
                return Err((offset, error));
            }
        }
    }
    Ok(routes)
}

fn members(name: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Fault> {
    let offset = value.span().start;
    let single = std::slice::from_ref(value);
    let list: &[Spanned<DeValue<'_>>] = match value.get_ref() {
        DeValue::Array(list) => list,
        _ => single,
    };
    if list.is_empty() {
        return Err((
            offset,
            format!("{name:?} has no members; remove the line or add one"),
        ));
    }
    let member = |value: &Spanned<DeValue<'_>>| {
        let offset = value.span().start;
        let DeValue::String(text) = value.get_ref() else {
            let error = format!("{name:?}: members are strings, as in [\"10.0.0.1:443\"]");
            return Err((offset, error));
        };
        check_entry(text)
            .map(|()| text.to_string())
            .map_err(|error| (offset, format!("{name:?}: member {text:?}: {error}")))
    };
    list.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn both_sections_and_both_forms_of_members() {
        let text = "[routes]\n\"A.test\" = [\"10.0.0.1 proxy=v2\", \"b:8080\"]\n\"*.a.test\" = \"unix:/run/a\"\n[default]\nhttps = [\"10.0.0.9\"]\n";
        let routes = parse(text).unwrap();
        assert_eq!(routes.len(), 3);
        assert_eq!(routes[&key("a.test")], ["10.0.0.1 proxy=v2", "b:8080"]);
        assert_eq!(routes[&key("*.a.test")], ["unix:/run/a"]);
        assert_eq!(routes[&key("default:https")], ["10.0.0.9"]);
        assert!(parse("").unwrap().is_empty());
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
            let error = read(&path).unwrap_err();
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
        let pair = |host: &str, members: &str| (host.to_owned(), members.to_owned());
        let config = SyncConfig {
            static_routes: vec![pair("a.test", "x,y proxy=v1"), pair("A.TEST", "z")],
            routes_file: Some(path),
            ..SyncConfig::default()
        };
        let routes = load(&config).unwrap();
        assert_eq!(routes[&key("a.test")], ["x", "y proxy=v1", "z"]);
        assert_eq!(routes[&key("b.test")], ["file"]);
        let bad = SyncConfig {
            static_routes: vec![pair("a.test", "x,y:0")],
            ..SyncConfig::default()
        };
        assert!(
            load(&bad)
                .unwrap_err()
                .starts_with("--route a.test=x,y:0: member \"y:0\"")
        );
    }
}
