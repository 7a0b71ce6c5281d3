//! Which file imports which. A module of the crate is a file or a folder of `src`; a file is known by
//! its path in the crate, such as `ring::wheel`, and `ring` is `src/ring/mod.rs` or `src/ring.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::paths;
use crate::source::Source;

/// The imports of a crate between its files, without those of unit tests. What `use` and any other
/// path names counts, and so does a parent that re-exports what its child has.
pub(crate) struct Graph {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(crate) fn of(sources: &[Source]) -> Graph {
        let mut test_files = BTreeSet::new();
        for source in sources {
            let names = source.test_modules();
            test_files.extend(names.map(|name| below(&source.module_path(), name)));
        }
        let is_of_test = |file: &str| {
            let mut above = ancestors(file);
            above.any(|file| test_files.contains(file))
        };
        let files = sources.iter().map(|source| (source.module_path(), source));
        // The crate's root puts the rest together.
        let files: BTreeMap<String, &Source> = files
            .filter(|(file, _)| !file.is_empty() && !is_of_test(file))
            .collect();
        let imports = files.iter().map(|(file, source)| {
            let paths = paths(source.code_without_tests());
            let named = paths
                .iter()
                .filter_map(|path| file_of(path, file, |name| files.contains_key(name)));
            (file.clone(), named.filter(|named| named != file).collect())
        });
        Graph {
            imports: imports.collect(),
        }
    }

    /// The modules of the crate.
    pub(crate) fn modules(&self) -> BTreeSet<&str> {
        self.imports.keys().map(|file| module_of(file)).collect()
    }

    /// Imports of one module by another that do not lead to a lower number, by the two modules, with
    /// the files that make them.
    pub(crate) fn not_downward(
        &self,
        numbers: &BTreeMap<String, u32>,
    ) -> BTreeMap<(String, String), Vec<String>> {
        let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (from, named) in &self.imports {
            for to in named {
                let (importer, imported) = (module_of(from), module_of(to));
                if importer != imported && numbers.get(importer) <= numbers.get(imported) {
                    let modules = (importer.to_owned(), imported.to_owned());
                    found
                        .entry(modules)
                        .or_default()
                        .push(format!("{from} -> {to}"));
                }
            }
        }
        found
    }

    /// The imports that make circles between the files of a module, by module.
    pub(crate) fn circles(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for file in self.imports.keys() {
            let module = module_of(file);
            for next in self.inside(file, module) {
                if self.reaches(next, file, module) {
                    let imports = found.entry(module.to_owned()).or_default();
                    imports.push(format!("{file} -> {next}"));
                }
            }
        }
        found
    }

    fn inside<'a>(&'a self, file: &str, module: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.imports[file].iter().map(String::as_str);
        named.filter(move |named| module_of(named) == module)
    }

    fn reaches(&self, from: &str, to: &str, module: &str) -> bool {
        let mut seen = BTreeSet::from([from]);
        let mut waiting = vec![from];
        while let Some(file) = waiting.pop() {
            if file == to {
                return true;
            }
            waiting.extend(self.inside(file, module).filter(|next| seen.insert(next)));
        }
        false
    }
}

/// The file that `path` names where it stands in `file`: the longest beginning of it that is one. A
/// path that begins with neither `crate`, `self`, `super` nor a child of the file is another crate's.
fn file_of(path: &[&str], file: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    let mut base = file.to_owned();
    let mut rest = path;
    match path.first() {
        Some(&"crate") => {
            base.clear();
            rest = &path[1..];
        }
        Some(&"self") => rest = &path[1..],
        Some(&"super") => {
            while let Some((&"super", after)) = rest.split_first() {
                base = base
                    .rsplit_once("::")
                    .map_or("", |(parent, _)| parent)
                    .to_owned();
                rest = after;
            }
        }
        Some(name) if exists(&below(&base, name)) => {}
        _ => return None,
    }
    for name in rest {
        let inner = below(&base, name);
        if !exists(&inner) {
            break;
        }
        base = inner;
    }
    (!base.is_empty()).then_some(base)
}

fn below(file: &str, name: &str) -> String {
    if file.is_empty() {
        name.to_owned()
    } else {
        format!("{file}::{name}")
    }
}

/// A file and what it lies below, from the outermost inward.
fn ancestors(file: &str) -> impl Iterator<Item = &str> {
    let ends = file.match_indices("::").map(|(at, _)| at);
    ends.chain([file.len()]).map(|end| &file[..end])
}

fn module_of(file: &str) -> &str {
    file.split("::").next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let sources = files.iter().map(|(path, text)| Source::new(path, text));
        Graph::of(&sources.collect::<Vec<_>>())
    }

    fn upward(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let numbers = [("low", 1), ("other", 1), ("high", 2)];
        let numbers = numbers.map(|(module, number)| (module.to_owned(), number));
        graph(files)
            .not_downward(&numbers.into())
            .into_keys()
            .collect()
    }

    #[test]
    fn a_planted_upward_import_is_found_in_every_form() {
        const HIGH: (&str, &str) = ("src/high/mod.rs", "mod deep;\nuse crate::low::F;");
        const DEEP: (&str, &str) = ("src/high/deep.rs", "");
        for (path, text) in [
            ("src/low.rs", "use crate::high::deep::A;"),
            ("src/low.rs", "use crate::{high};"),
            (
                "src/low.rs",
                "use std::{fs, io};\npub(crate) use crate::{\n    high::{deep::A, B},\n};",
            ),
            ("src/low.rs", "fn f() { super::high::g() }"),
            ("src/low/mod.rs", "fn f(x: &crate::high::T) {}"),
            ("src/low/inner.rs", "use super::super::high;"),
        ] {
            let low = if path == "src/low.rs" {
                ("src/other.rs", "")
            } else {
                ("src/low/mod.rs", "mod inner;")
            };
            let found = upward(&[HIGH, DEEP, low, (path, text)]);
            assert_eq!(found, [("low".into(), "high".into())], "{path}: {text}");
        }
    }

    #[test]
    fn modules_of_one_number_do_not_import_each_other() {
        let found = upward(&[("src/low.rs", "use crate::other::A;"), ("src/other.rs", "")]);
        assert_eq!(found, [("low".into(), "other".into())]);
    }

    #[test]
    fn comments_literals_tests_and_visibilities_import_nothing() {
        let low = "//! See crate::high.\npub(in crate::high) fn f() { \"crate::high\" }\n#[cfg(test)]\nmod \
            double;\n\
                   #[cfg(test)]\npub(super) mod tests {\n    use crate::high::A;\n}\n";
        let double = ("src/low/double.rs", "use crate::high::A;");
        let tests = ("src/low/tests.rs", "use crate::high::A;");
        let files = [
            ("src/low/mod.rs", low),
            double,
            tests,
            ("src/high.rs", "use crate::low;"),
        ];
        assert!(upward(&files).is_empty());
    }

    #[test]
    fn a_planted_circle_is_found() {
        let sibling = [
            (
                "src/a/mod.rs",
                "mod one;\nmod two;\nmod three;\nuse one::F;",
            ),
            ("src/a/one.rs", "use super::two::A;"),
            ("src/a/two.rs", "fn f() { crate::a::three::g() }"),
            ("src/a/three.rs", "use super::{one};"),
            ("src/b.rs", "use crate::a::F;"),
        ];
        let circles = graph(&sibling).circles();
        let expected = [
            "a::one -> a::two",
            "a::three -> a::one",
            "a::two -> a::three",
        ];
        assert_eq!(circles.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(circles["a"], expected);
        let parent = [
            ("src/a.rs", "mod one;\npub(crate) use one::B;"),
            ("src/a/one.rs", "use super::A;"),
        ];
        assert_eq!(
            graph(&parent).circles()["a"],
            ["a -> a::one", "a::one -> a"]
        );
        let none = [
            ("src/a.rs", "mod one;\nmod two;\npub(crate) use one::B;"),
            ("src/a/one.rs", "use super::two::A; use other::one::C;"),
            ("src/a/two.rs", ""),
        ];
        assert!(graph(&none).circles().is_empty());
    }
}
