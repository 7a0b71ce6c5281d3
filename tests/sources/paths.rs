//! The paths that code names: what `use` items import, written out one by one, and what stands in the
//! code with a `::`.

/// Each path as its segments, such as `["crate", "ring", "Ring"]`. A glob ends with `*`.
pub(crate) fn paths(code: &str) -> Vec<Vec<&str>> {
    let tokens = tokens(code);
    let before = |at: usize| at.checked_sub(1).map_or("", |before| tokens[before]);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1).copied().unwrap_or_default();
        let begins = is_name(tokens[at]) && !["::", "."].contains(&before(at));
        if begins && tokens[at] == "use" && next != "<" {
            at = read_tree(&tokens, at + 1, &[], &mut found);
        } else if begins && next == "::" {
            let start = at;
            let mut path = vec![tokens[at]];
            while tokens.get(at + 1) == Some(&"::")
                && tokens.get(at + 2).is_some_and(|t| is_name(t))
            {
                at += 2;
                path.push(tokens[at]);
            }
            // `pub(in crate::config)` imports nothing.
            if before(start) != "in" || start < 2 || tokens[start - 2] != "(" {
                found.push(path);
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one tree of a `use` item, which stands behind `prefix`. Returns where it ends.
fn read_tree<'a>(
    tokens: &[&'a str],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<Vec<&'a str>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(&token) = tokens.get(at) {
        match token {
            "::" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = read_tree(tokens, at, &path, found);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "as" => at += 1,
            // In braces it is what stands before them.
            "self" if !prefix.is_empty() => {}
            _ if is_name(token) || token == "*" => path.push(token),
            _ => break,
        }
        at += 1;
    }
    found.push(path);
    at
}

fn is_name(token: &str) -> bool {
    let first = token.chars().next();
    first.is_some_and(|first| first.is_alphabetic() || first == '_')
}

/// Words, `::` and single other characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if of_word(first) {
            rest.find(|c| !of_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn every_path_is_written_out() {
    let code = "pub(in crate::no) use a::{self, b::{C as D, e::*}, f}; use crate::g; use ::h::I;\n\
                fn f<'x>(x: &'x super::J) -> impl K + use<'x> { self::l::m::<crate::N>(x.o) } use std::{fs};";
    let found: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
    let expected = [
        "a",
        "a::b::C",
        "a::b::e::*",
        "a::f",
        "crate::g",
        "h::I",
        "super::J",
        "self::l::m",
        "crate::N",
        "std::fs",
    ];
    assert_eq!(found, expected);
}
