//! What the pages for people say is so: examples work when pasted, links lead somewhere, tables list
//! what there is.

mod kernel_notes;
mod page;
mod session;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use page::{
    anchors, flags, has_function, inline_codes, is_snake_case, links, manual, outside_code, pages,
    root, rows, text,
};
use session::Session;
use support::client::Hello;
use support::http::{Wire, scripted};
use support::port::free_port;
use support::proxy::{Options, Proxy};
use support::redis::RedisServer;
use support::{backend, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);
/// A reader's patience with the first page.
const README_BYTES_MAX: usize = 9 * 1024;

#[test]
fn the_readme_stays_short() {
    let bytes = text("README.md").len();
    assert!(
        bytes <= README_BYTES_MAX,
        "README.md has {bytes} bytes, at most {README_BYTES_MAX} are a first page; the rest belongs in docs/"
    );
}

/// A step of a walk through the code is `src/FILE.rs: FUNCTION`.
#[test]
fn the_walks_of_the_architecture_name_functions_that_exist() {
    let page = text("ARCHITECTURE.md");
    let mut steps = 0;
    let mut wrong = Vec::new();
    for code in inline_codes(&page) {
        let Some((file, function)) = code.split_once(".rs: ") else {
            continue;
        };
        steps += 1;
        let path = root().join(format!("{file}.rs"));
        if !has_function(&path, function) {
            wrong.push(code);
        }
    }
    assert!(steps > 20, "only {steps} steps were found");
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
}

/// The page lists each module of the table in src/lib.rs.
#[test]
fn the_architecture_knows_every_module() {
    let page = text("ARCHITECTURE.md");
    let table = text("src/lib.rs");
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | "));
    let modules = rows.filter_map(|row| row.split('|').nth(1));
    let modules = modules.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let missing: Vec<&str> = modules
        .filter(|module| !page.contains(&format!("`{module}`")))
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md lacks {missing:?}");
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    let for_developers = [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ];
    let for_developers = for_developers.map(String::from);
    for page in pages().into_iter().chain(for_developers) {
        for link in links(&text(&page)) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => root().join(&page),
                path => root().join(&page).parent().expect("a file").join(path),
            };
            let heading_exists = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                anchor.is_empty() || anchors(&text).contains(anchor)
            };
            if !target.exists() || !heading_exists() {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_examples_of_routes_work_when_pasted() {
    Session::run("docs/routes.md");
}

#[test]
fn the_examples_of_http_work_when_pasted() {
    Session::run("docs/http.md");
}

#[test]
fn the_example_of_client_address_works_when_pasted() {
    Session::run("docs/client-address.md");
}

#[test]
fn the_example_of_health_works_when_pasted() {
    Session::run("docs/health.md");
}

#[test]
fn the_example_of_operate_works_when_pasted() {
    Session::run("docs/operate.md");
}

/// The options that the program knows, with their defaults.
fn options() -> BTreeMap<String, Option<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("--help")
        .output();
    let help = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let mut options = BTreeMap::new();
    let mut name = String::new();
    for line in help.lines() {
        if let Some(flag) = line.trim().strip_prefix("--") {
            name = flag.split(' ').next().unwrap_or_default().to_owned();
            options.insert(name.clone(), None);
        } else if let Some((_, default)) = line.split_once("[default: ") {
            let default = default.split(';').next().unwrap_or_default().to_owned();
            options.insert(name.clone(), Some(default));
        }
    }
    // Not for the file: it names it.
    options.remove("config");
    options.remove("help");
    options.remove("version");
    options
}

#[test]
fn the_example_of_a_file_names_every_option_with_its_default() {
    let options = options();
    assert!(options.len() > 60, "{options:?}");
    let file = text("docs/pointsman.toml");
    let mut named = BTreeSet::new();
    for line in file.lines() {
        let line = line.strip_prefix("#unwrap: ").unwrap_or(line);
        let is_off = line.starts_with('#');
        let Some((name, value)) = line.trim_start_matches('#').split_once(" = ") else {
            continue;
        };
        if !options.contains_key(name) {
            continue;
        }
        assert!(named.insert(name.to_owned()), "{name} is there twice");
        let value = value.split(" #").next().unwrap_or_default().trim();
        if let (true, Some(default)) = (is_off, &options[name]) {
            assert_eq!(value.trim_matches('"'), default, "the default of {name}");
        }
    }
    let known: BTreeSet<String> = options.into_keys().collect();
    assert_eq!(named, known, "named, and known to --help");
}

#[test]
fn the_example_of_a_file_is_accepted_as_it_is_and_with_every_option() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().display().to_string();
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).expect("it is ours");
    };
    write("502.html", "<h1>Back soon</h1>");
    write(
        "routes.toml",
        "[routes]\n\"www.example.com\" = [\"10.0.0.7\"]\n",
    );
    let here = text("docs/pointsman.toml")
        .replace("127.0.0.1:6379", &format!("127.0.0.1:{}", redis.port()))
        .replace("\":443\"", &format!("\":{}\"", free_port()))
        .replace("\":80\"", &format!("\":{}\"", free_port()))
        .replace("127.0.0.1:9090", &format!("127.0.0.1:{}", free_port()))
        .replace("/etc/pointsman", &place)
        .replace("/var/lib/pointsman", &place);
    assert!(here.contains(&format!("{place}/502.html")));
    // This one is for rediss:// alone.
    let lines = here.lines().filter(|line| !line.starts_with("#redis-ca"));
    let with_all = lines.map(|line| {
        let rest = line.strip_prefix('#').unwrap_or(line);
        let is_option = rest
            .split_once(" = ")
            .is_some_and(|(name, _)| !name.contains(' '));
        if is_option { rest } else { line }
    });
    let with_all: Vec<&str> = with_all.collect();
    for (name, file) in [
        ("as-it-is.toml", here.clone()),
        ("all.toml", with_all.join("\n")),
    ] {
        write(name, &file);
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["check", "--config"])
            .arg(directory.path().join(name))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let accepted = said
            .lines()
            .any(|line| line.starts_with("ok    configuration"));
        let failed: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("FAIL"))
            .collect();
        assert!(
            accepted && failed.is_empty(),
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A proxy that has all there is to be counted and shown, and what it needs for that.
struct Complete {
    proxy: Proxy,
    _redis: RedisServer,
    _directory: tempfile::TempDir,
}

fn complete_proxy() -> Complete {
    let redis = RedisServer::start();
    redis.run(&[
        "SADD hostnames:www.test:backends 127.0.0.1:9",
        "HSET hostnames:www.test:options check tcp",
    ]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let snapshot = directory.path().join("snapshot");
    let proxy = Options::new()
        .args(&["--redis", &redis.url(), "--snapshot"])
        .args(&[&snapshot.display().to_string()])
        .start();
    // Those that are not there from the beginning on.
    for late in [
        "routing_table_age_seconds",
        "snapshot_age_seconds",
        "backend_up{",
    ] {
        let is_there = || proxy.metrics().contains(&format!("\npointsman_{late}"));
        wait_until(late, PATIENCE, is_there);
    }
    Complete {
        proxy,
        _redis: redis,
        _directory: directory,
    }
}

#[test]
fn the_table_of_metrics_is_what_metrics_offers() {
    let complete = complete_proxy();
    let proxy = &complete.proxy;
    let offered = table_of(&proxy.metrics());
    let documented: Vec<String> = rows(&text("docs/operate.md"), "## Metrics")
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")).replace("|  |", "| |"))
        .collect();
    let without_quotes: Vec<String> = offered.iter().map(|row| row.replace('`', "")).collect();
    assert!(
        documented == without_quotes,
        "docs/operate.md should have, in this order:\n{}\nand has:\n{}",
        offered.join("\n"),
        documented.join("\n"),
    );
}

#[test]
fn the_table_of_states_is_what_metrics_offers() {
    let proxy = Options::new().route("www.test", &["127.0.0.1:9"]).start();
    let metrics = proxy.metrics();
    let states = metrics.lines().filter_map(|line| {
        let (state, _) = line
            .strip_prefix("pointsman_backends{state=\"")?
            .split_once('"')?;
        Some(state.to_owned())
    });
    let table = rows(&text("docs/health.md"), "## States of a backend");
    let documented: Vec<String> = table.into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(documented, states.collect::<Vec<_>>());
}

#[test]
fn what_the_pages_name_exists() {
    let complete = complete_proxy();
    let proxy = &complete.proxy;
    let metrics = proxy.metrics();
    let options = options();
    let mut known = BTreeSet::new();
    for line in metrics.lines() {
        let words = line.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        known.extend(words.map(str::to_owned));
    }
    for page in ["/status", "/backends"] {
        let page = serde_json::from_str(&proxy.admin_page(page)).expect("it is JSON");
        keys(&page, &mut known);
    }
    for row in rows(&text("docs/operate.md"), "## Log fields") {
        known.extend(row[0].split(", ").map(str::to_owned));
    }
    let mut unknown = Vec::new();
    for page in manual() {
        let source = text(&page);
        let names = source.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let metrics = names.filter(|name| name.starts_with("pointsman_"));
        unknown.extend(
            metrics
                .filter(|name| !known.contains(*name))
                .map(|name| format!("{page}: {name}")),
        );
        let flags = flags(&source);
        for code in inline_codes(&source).chain(flags.iter().map(String::as_str)) {
            let word = code.split([' ', '=']).next().unwrap_or_default();
            let is_unknown = match word.strip_prefix("--") {
                Some(option) => !options.contains_key(option) && option != "config",
                None => is_snake_case(word) && !known.contains(word) && !ELSEWHERE.contains(&word),
            };
            if is_unknown {
                unknown.push(format!("{page}: {code}"));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "named and not there:\n{}",
        unknown.join("\n")
    );
}

/// Lines of the log that an operator is told to look for, and their fields.
#[test]
fn what_the_log_is_said_to_have_is_in_the_code() {
    let mut code = String::new();
    read_sources(&root().join("src"), &mut code);
    let mut missing = Vec::new();
    for page in manual() {
        let source = text(&page);
        for line in outside_code(&source) {
            let quoted = line
                .split("` in the log")
                .filter_map(|before| before.rsplit('`').next());
            let ends = line.matches("` in the log").count();
            let phrases = quoted.take(ends).filter(|phrase| !code.contains(*phrase));
            missing.extend(phrases.map(|phrase| format!("{page}: {phrase}")));
        }
        for field in inline_codes(&source).filter_map(|code| code.strip_suffix('=')) {
            let is_there = code.contains(&format!("{field} = ")) || MEMBER_OPTIONS.contains(&field);
            if !is_there && !field.chars().any(|char| char.is_ascii_uppercase()) {
                missing.push(format!("{page}: {field}="));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in the log:\n{}",
        missing.join("\n")
    );
}

/// Pages write these with an equals sign as well.
const MEMBER_OPTIONS: [&str; 3] = ["proxy", "max", "source"];

fn read_sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            read_sources(&path, into);
        } else {
            into.push_str(&fs::read_to_string(&path).expect("it is text"));
        }
    }
}

/// What the pages name and others have.
const ELSEWHERE: [&str; 1] = ["set_real_ip_from"];

fn keys(value: &serde_json::Value, into: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                into.insert(name.clone());
                keys(value, into);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

/// Name, type, labels and help of each metric, as the page has them.
fn table_of(metrics: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut lines = metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line
            .strip_prefix("# HELP ")
            .expect("a metric begins with its help");
        let (name, help) = help.split_once(' ').expect("name and help");
        let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
        let kind = kind
            .and_then(|line| line.split_once(' '))
            .expect("then comes its type")
            .1;
        let mut labels: Vec<String> = Vec::new();
        while let Some(series) = lines.next_if(|line| !line.starts_with('#')) {
            let (_, inside) = series.split_once('{').unwrap_or_default();
            for label in inside
                .split("\",")
                .filter_map(|pair| Some(pair.split_once("=\"")?.0))
            {
                let label = format!("`{label}`");
                if label != "`le`" && !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
        let labels = labels.join(", ");
        rows.push(format!("| `{name}` | {kind} | {labels} | {help} |").replace("|  |", "| |"));
    }
    rows
}

#[test]
fn the_table_of_log_fields_is_what_a_connections_line_has() {
    let tls = backend::raw(|_| {});
    let broken = scripted(|_, _| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n".to_vec()));
    let proxy = Options::new()
        .route("tls.test", &[&format!("{} proxy=v2", tls.member())])
        .route("broken.test", &[&broken.member()])
        .args(&["--proxy-from", "127.0.0.1", "--proxy-in", "optional"])
        .args(&["--log", "debug", "--log-format", "json"])
        .start();
    let mut stream = TcpStream::connect(proxy.https()).expect("it listens");
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.8 40000 443\r\n";
    let hello = Hello::named("tls.test").record();
    stream
        .write_all(&[header.as_slice(), &hello].concat())
        .expect("it reads");
    drop(stream);
    drop(Wire::connect(proxy.http()).get("broken.test", "/"));
    let lines = |proxy: &Proxy| -> Vec<serde_json::Map<String, serde_json::Value>> {
        let said = proxy.stderr();
        let parsed = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let is_connection = |line: &serde_json::Map<String, serde_json::Value>| {
            line.get("target")
                .is_some_and(|target| target == "pointsman::connection")
        };
        parsed.filter(is_connection).collect()
    };
    wait_until("a line for each connection", PATIENCE, || {
        lines(&proxy).len() >= 2
    });
    let common = ["timestamp", "level", "target", "message"];
    let logged: BTreeSet<String> = lines(&proxy)
        .into_iter()
        .flat_map(|line| line.into_iter().map(|(name, _)| name))
        .filter(|name| !common.contains(&&**name))
        .collect();
    let documented: BTreeSet<String> = rows(&text("docs/operate.md"), "## Log fields")
        .iter()
        .flat_map(|row| row[0].split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(documented, logged, "in docs/operate.md, and in the log");
}

#[test]
fn every_page_of_docs_begins_with_an_example_and_is_found_from_the_readme() {
    let readme = text("README.md");
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        assert!(
            readme.contains(&format!("({page})")),
            "README.md does not lead to {page}"
        );
    }
    for page in [
        "routes",
        "http",
        "client-address",
        "health",
        "operate",
        "benchmark",
    ] {
        let source = text(&format!("docs/{page}.md"));
        let before_example = source.split("```").next().unwrap_or_default();
        let sections = before_example.matches("\n## ").count();
        assert!(
            source.contains("```") && sections == 0,
            "docs/{page}.md begins without an example"
        );
    }
    assert!(root().join("docs/pointsman.toml").exists());
}
