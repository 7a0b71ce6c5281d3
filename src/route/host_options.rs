//! What an operator says about a host besides its backends. In Redis a hash beside the set, everywhere
//! else among the members, each with an `@` in front: `@redirect=https`.

use std::fmt;

use super::member::{Member, MemberError};

/// What makes an option of an entry.
const MARK: char = '@';

/// The options of one host, as far as they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HostOptions {
    /// HTTP requests are sent to the same place under https.
    pub redirects: bool,
    /// HTTP requests are told 404.
    pub is_unknown: bool,
    /// Where requests below `/.well-known/acme-challenge/` go, whatever else is set; members.
    pub acme: Vec<Box<str>>,
}

/// Why a text is neither a member nor an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryError {
    Member(MemberError),
    /// No such option.
    Name(Box<str>),
    /// No such value.
    Value(Box<str>),
    /// A member that is named in an option.
    Acme(MemberError),
}

impl fmt::Display for EntryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryError::Member(error) => error.fmt(out),
            EntryError::Name(name) => write!(
                out,
                "{name:?} is no option of a host; there are redirect, unknown and acme"
            ),
            EntryError::Value(option) => write!(
                out,
                "{option:?} is no value of that option; write redirect=https, unknown=404 or acme=MEMBER"
            ),
            EntryError::Acme(error) => write!(out, "acme: {error}"),
        }
    }
}

impl std::error::Error for EntryError {}

impl HostOptions {
    /// Takes in one option without its mark; `acme` may come several times or list several members
    /// with blanks between, and none of them twice.
    pub fn read(&mut self, option: &str) -> Result<(), EntryError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || Err(EntryError::Value(option.into()));
        match (name.trim(), value.trim()) {
            ("redirect", "https") => self.redirects = true,
            ("unknown", "404") => self.is_unknown = true,
            ("acme", "") | ("redirect" | "unknown", _) => return wrong(),
            ("acme", members) => {
                for member in members.split_ascii_whitespace() {
                    Member::parse(member).map_err(EntryError::Acme)?;
                    if !self.acme.iter().any(|known| **known == *member) {
                        self.acme.push(member.into());
                    }
                }
                self.acme.sort_unstable();
            }
            (name, _) => return Err(EntryError::Name(name.into())),
        }
        Ok(())
    }

    /// The options as entries, to be read again.
    pub fn entries(&self) -> Vec<String> {
        let mut entries = Vec::new();
        if self.redirects {
            entries.push(format!("{MARK}redirect=https"));
        }
        if self.is_unknown {
            entries.push(format!("{MARK}unknown=404"));
        }
        entries.extend(
            self.acme
                .iter()
                .map(|member| format!("{MARK}acme={member}")),
        );
        entries
    }
}

/// The option that an entry is, without its mark; `None`: the entry is a member.
pub fn as_option(entry: &str) -> Option<&str> {
    entry.trim_ascii().strip_prefix(MARK)
}

/// The entry of an option as a hash holds it.
pub fn option_entry(field: &str, value: &str) -> String {
    format!("{MARK}{field}={value}")
}

/// Whether the entry is a member or an option.
pub fn check_entry(entry: &str) -> Result<(), EntryError> {
    match as_option(entry) {
        Some(option) => HostOptions::default().read(option),
        None => Member::parse(entry).map(drop).map_err(EntryError::Member),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_written_again() {
        let mut options = HostOptions::default();
        for entry in [
            "@redirect=https",
            " @unknown=404",
            "@acme=10.0.0.2:80 10.0.0.1",
            "@acme=10.0.0.1",
        ] {
            check_entry(entry).unwrap();
            options.read(as_option(entry).unwrap()).unwrap();
        }
        let entries = options.entries();
        assert_eq!(
            entries,
            [
                "@redirect=https",
                "@unknown=404",
                "@acme=10.0.0.1",
                "@acme=10.0.0.2:80"
            ]
        );
        let mut again = HostOptions::default();
        for entry in &entries {
            again.read(as_option(entry).unwrap()).unwrap();
        }
        assert_eq!(again, options);
        assert_eq!(as_option("10.0.0.1"), None);
        assert_eq!(option_entry("redirect", "https"), "@redirect=https");
    }

    #[test]
    fn what_is_no_option_is_named() {
        for (entry, want) in [
            ("@redirect=http", EntryError::Value("redirect=http".into())),
            ("@redirect", EntryError::Value("redirect".into())),
            ("@unknown=403", EntryError::Value("unknown=403".into())),
            ("@acme=", EntryError::Value("acme=".into())),
            ("@weight=3", EntryError::Name("weight".into())),
            ("@", EntryError::Name("".into())),
            ("", EntryError::Member(MemberError::Empty)),
        ] {
            assert_eq!(check_entry(entry), Err(want), "{entry}");
        }
        assert!(matches!(check_entry("@acme=::1"), Err(EntryError::Acme(_))));
    }
}
