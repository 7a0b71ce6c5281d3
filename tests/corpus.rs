//! Holds the sniffer against a corpus of hellos and request heads that is kept outside the project.
//!
//! `POINTSMAN_CORPUS=<folder> cargo test corpus -- --nocapture` runs it; the folder has `hellos/` and
//! `http_heads/`, each with an `index.tsv` of file, expectation and name. Without the variable
//! nothing is checked, and the tests say so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman::internals::host::Host;
use pointsman::internals::http::{fuzz_framing, fuzz_request};
use pointsman::internals::protocol::Protocol;
use pointsman::internals::proxy_protocol::fuzz_header;
use pointsman::internals::sniff::{HeadLimits, Sniff, Sniffer, fuzz_http, fuzz_tls};

const LIMITS: HeadLimits = HeadLimits {
    hello_bytes_max: 65_536,
    request_head_bytes_max: 32_768,
};

/// Where we decide otherwise than the corpus, and why: file, reason.
const DELIBERATE: [(&str, &str); 2] = [
    (
        "v2-syn-v2-ssl20.bin",
        "SSL 2.0 framing is refused by name, not sent to the default",
    ),
    (
        "v2-txt-sniproxy-ssl20-client-hello.bin",
        "SSL 2.0 framing is refused by name, not sent to the default",
    ),
];

/// One line of an index.
struct Case {
    file: String,
    expectation: String,
    name: Option<String>,
    alpn: Option<String>,
    data: Vec<u8>,
}

#[test]
fn corpus_of_hellos() {
    let Some(cases) = load(
        "hellos",
        Columns {
            name: 3,
            alpn: Some(4),
        },
    ) else {
        return;
    };
    check(Protocol::Tls, &cases);
    cases.iter().for_each(|case| fuzz_tls(&case.data));
    cases.iter().for_each(|case| fuzz_header(&case.data));
}

#[test]
fn corpus_of_request_heads() {
    let Some(cases) = load(
        "http_heads",
        Columns {
            name: 2,
            alpn: None,
        },
    ) else {
        return;
    };
    check(Protocol::Http, &cases);
    for case in &cases {
        fuzz_http(&case.data);
        fuzz_request(&case.data);
        fuzz_header(&case.data);
        fuzz_framing(&case.data);
    }
}

/// Which column of the index holds what, counted from 0; file is always the first one.
struct Columns {
    name: usize,
    alpn: Option<usize>,
}

fn load(folder: &str, columns: Columns) -> Option<Vec<Case>> {
    let Some(root) = std::env::var_os("POINTSMAN_CORPUS") else {
        println!("POINTSMAN_CORPUS is not set: the corpus of {folder} was not checked");
        return None;
    };
    let folder: PathBuf = Path::new(&root).join(folder);
    let index = std::fs::read_to_string(folder.join("index.tsv")).expect("index.tsv is readable");
    let mut lines = index.lines();
    let header: Vec<&str> = lines.next().expect("a header line").split('\t').collect();
    let expectation = header
        .iter()
        .position(|name| *name == "expect")
        .expect("expect");
    let read = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let optional = |column: usize| Some(fields[column].to_owned()).filter(|text| text != "-");
        Case {
            file: fields[0].to_owned(),
            expectation: fields[expectation].to_owned(),
            name: optional(columns.name),
            alpn: columns.alpn.and_then(optional),
            data: std::fs::read(folder.join(fields[0])).expect("the file of the index is readable"),
        }
    };
    Some(lines.map(read).collect())
}

fn check(protocol: Protocol, cases: &[Case]) {
    let mut counts: BTreeMap<(&str, String), u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases {
        let verdict = Sniffer::new(protocol, LIMITS).advance(&case.data);
        let word = match &verdict {
            Sniff::Found(head) if head.name.is_some() => "found".to_owned(),
            Sniff::Found(_) => "found without name".to_owned(),
            Sniff::More => "more".to_owned(),
            Sniff::Refused(refusal) => format!("refused {}", refusal.name()),
        };
        let deliberate = DELIBERATE.iter().any(|(file, _)| *file == case.file);
        if !agrees(case, &verdict) && !deliberate {
            wrong.push(format!("{} ({}): {verdict:?}", case.file, case.expectation));
        }
        if !is_judged(case) {
            println!("{:10} {word:30} {}", case.expectation, case.file);
        }
        *counts.entry((&case.expectation, word)).or_default() += 1;
    }
    for ((expectation, word), count) in counts {
        println!("{count:4} {} {expectation:16} {word}", protocol.name());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the corpus has an opinion; the other classes are for us to decide.
fn is_judged(case: &Case) -> bool {
    !matches!(case.expectation.as_str(), "policy" | "framing" | "no-crash")
}

fn agrees(case: &Case, verdict: &Sniff) -> bool {
    match (case.expectation.as_str(), verdict) {
        ("route" | "gunicorn-accepts", Sniff::Found(head)) => {
            let name = case.name.as_ref().expect("a routed case has a name");
            let alpn_agrees = case.alpn.as_ref().is_none_or(|alpn| **alpn == *head.alpn);
            head.name == Host::parse(name.as_bytes()).ok() && alpn_agrees
        }
        ("nosni", Sniff::Found(head)) => head.name.is_none(),
        ("reject" | "reject-400" | "reject-any", Sniff::Refused(_)) => true,
        // What never becomes a head may be refused before the deadline.
        ("wait", Sniff::More | Sniff::Refused(_)) => true,
        _ => !is_judged(case),
    }
}
