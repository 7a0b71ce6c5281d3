//! Fuzz entry for the routes file.

use std::collections::BTreeMap;

use super::static_routes::{Routes, parse};
use crate::route::{AddressPolicy, Key};

/// Asserts that routes that are understood are understood again when they are written, and that
/// mistakes lie within the file.
#[doc(hidden)]
pub fn fuzz_routes_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = AddressPolicy::default();
    match parse(text, &policy) {
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let within = |offset| offset <= text.len();
            assert!(mistakes.iter().all(|mistake| within(mistake.offset)));
        }
        Ok(routes) => {
            let written = written(&routes);
            assert_eq!(parse(&written, &policy).ok(), Some(routes), "{written}");
        }
    }
}

fn written(routes: &Routes) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<String, &[String]>> = BTreeMap::new();
    for (key, entries) in routes {
        let name = key.to_string();
        let (section, name) = match key {
            Key::Default(_) => ("default", name.replace("default:", "")),
            Key::Host(_) | Key::Wildcard(_) => ("routes", name),
        };
        sections.entry(section).or_default().insert(name, entries);
    }
    toml::to_string(&sections).expect("tables of lists of text")
}
