//! The fuzz targets with every beginning of every seed: what they assert holds without nightly, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pointsman::internals::{host, http, proxy_protocol, route, sniff, sync};

/// A target, its entry and the folder of its seeds.
type Target = (&'static str, fn(&[u8]), &'static str);

const TARGETS: [Target; 10] = [
    ("hello", sniff::fuzz_hello, "tests/fixtures/hellos"),
    ("request", http::fuzz_request, "tests/fixtures/requests"),
    ("response", http::fuzz_response, "fuzz/seeds/response"),
    ("chunks", http::fuzz_chunks, "fuzz/seeds/chunks"),
    ("h2c", http::fuzz_h2c, "tests/fixtures/requests"),
    (
        "proxy_header",
        proxy_protocol::fuzz_proxy_header,
        "fuzz/seeds/proxy_header",
    ),
    ("host", host::fuzz_host, "fuzz/seeds/host"),
    ("member", route::fuzz_member, "fuzz/seeds/member"),
    (
        "host_options",
        route::fuzz_host_options,
        "fuzz/seeds/host_options",
    ),
    (
        "routes_file",
        sync::fuzz_routes_file,
        "fuzz/seeds/routes_file",
    ),
];

fn files(folder: &str) -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    entries.map(|entry| entry.expect("an entry").path())
}

#[test]
fn every_beginning_of_every_seed_holds() {
    for (target, entry, folder) in TARGETS {
        let mut seeds = 0;
        for path in files(folder) {
            let data = fs::read(&path).expect("a file");
            (0..=data.len()).for_each(|end| entry(&data[..end]));
            seeds += 1;
        }
        assert!(seeds > 0, "{target} has no seeds");
    }
}

#[test]
fn every_target_is_listed() {
    let name = |path: PathBuf| {
        path.file_stem()
            .map(|stem| stem.to_str().map(str::to_owned))
    };
    let there: BTreeSet<String> = files("fuzz/fuzz_targets")
        .filter_map(name)
        .flatten()
        .collect();
    let listed = TARGETS.map(|(target, ..)| target.to_owned());
    assert_eq!(there, BTreeSet::from(listed));
}
