//! Holds the parsers of hellos and requests against a corpus that is kept outside the project.
//!
//! `POINTSMAN_CORPUS=<folder> cargo test --test corpus -- --nocapture` runs it; the folder has `hellos/`
//! and `http_heads/`, each with an `index.tsv` of files, what is expected of them and what other
//! parsers make of them. Without the variable nothing is checked, and the tests say so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman::internals::host::Host;
use pointsman::internals::http::{
    FieldStorage, Framing, Reading, RequestReader, fuzz_chunks, fuzz_request,
};
use pointsman::internals::proxy_protocol::fuzz_proxy_header;
use pointsman::internals::sniff::{Sniff, Sniffer, fuzz_hello};

/// The defaults of `hello-bytes-max` and `request-head-bytes-max`.
const HELLO_BYTES_MAX: usize = 65_536;
const REQUEST_HEAD_BYTES_MAX: usize = 32_768;

/// Where we decide otherwise than the corpus, and why: file, reason.
const DELIBERATE: [(&str, &str); 7] = [
    ("v2-syn-v2-ssl20.bin", SSL_2),
    ("v2-txt-sniproxy-ssl20-client-hello.bin", SSL_2),
    ("ok-te-gzip-chunked.bin", OTHER_CODING),
    (
        "aws-compliant-more-compliant-tests-9-te-with-custom-parameters-ok.bin",
        OTHER_CODING,
    ),
    (
        "aws-compliant-rfc-compliant-9-different-transfer-encoding-headers-comb.bin",
        OTHER_CODING,
    ),
    (
        "aws-compliant-rfc-compliant-10-transfer-encoding-with-a-param-chunked.bin",
        OTHER_CODING,
    ),
    (
        "aws-acceptable-acceptable-3-cl-and-some-others-are-non-compliant.bin",
        "whitespace before a colon is refused in any field, as RFC 9112 section 5.1 demands",
    ),
];
const SSL_2: &str = "SSL 2.0 framing is refused by name, not sent to the default";
const OTHER_CODING: &str =
    "a Transfer-Encoding other than chunked is refused: readers differ on where such a body ends";

/// One line of an index, by the names of its columns, and the file that it is about.
struct Case {
    columns: BTreeMap<String, String>,
    data: Vec<u8>,
}

impl Case {
    /// `None` where the index has `-`.
    fn column(&self, name: &str) -> Option<&str> {
        let value = self.columns.get(name)?;
        Some(&**value).filter(|value| *value != "-")
    }

    fn file(&self) -> &str {
        &self.columns["file"]
    }

    fn expectation(&self) -> &str {
        &self.columns["expect"]
    }
}

/// What a parser says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Verdict {
    Found {
        name: Option<Host>,
        /// Empty for HTTP.
        alpn: Box<str>,
    },
    More,
    Refused(&'static str),
}

#[test]
fn corpus_of_hellos() {
    let Some(cases) = load("hellos") else {
        return;
    };
    check(&cases, |case| {
        match Sniffer::new(HELLO_BYTES_MAX).advance(&case.data) {
            Sniff::Found(head) => Verdict::Found {
                name: head.name,
                alpn: head.alpn,
            },
            Sniff::More => Verdict::More,
            Sniff::Refused(refusal) => Verdict::Refused(refusal.name()),
        }
    });
    cases.iter().for_each(|case| fuzz_hello(&case.data));
    cases.iter().for_each(|case| fuzz_proxy_header(&case.data));
}

#[test]
fn corpus_of_requests() {
    let Some(cases) = load("http_heads") else {
        return;
    };
    check(&cases, read_request);
    for case in &cases {
        fuzz_request(&case.data);
        fuzz_chunks(&case.data);
        fuzz_proxy_header(&case.data);
    }
}

/// The first request of a case; where the case is about framing, its body, too.
fn read_request(case: &Case) -> Verdict {
    let mut storage = FieldStorage::new();
    let head = match RequestReader::new(REQUEST_HEAD_BYTES_MAX).advance(&case.data, &mut storage) {
        Reading::Found(head) => head,
        Reading::More => return Verdict::More,
        Reading::Refused(refusal) => return Verdict::Refused(refusal.name()),
    };
    if case.expectation() == "framing"
        && let Err(refusal) = Framing::new(head.body).feed(&case.data[head.head_bytes..])
    {
        return Verdict::Refused(refusal.name());
    }
    Verdict::Found {
        name: head.host,
        alpn: Box::default(),
    }
}

fn load(folder: &str) -> Option<Vec<Case>> {
    let Some(root) = std::env::var_os("POINTSMAN_CORPUS") else {
        println!("POINTSMAN_CORPUS is not set: the corpus of {folder} was not checked");
        return None;
    };
    let folder: PathBuf = Path::new(&root).join(folder);
    let index = std::fs::read_to_string(folder.join("index.tsv")).expect("index.tsv is readable");
    let mut lines = index.lines();
    let header: Vec<&str> = lines.next().expect("a header line").split('\t').collect();
    let read = |line: &str| {
        let named = header.iter().zip(line.split('\t'));
        let columns: BTreeMap<String, String> = named
            .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
            .collect();
        let data = std::fs::read(folder.join(&columns["file"]));
        Case {
            columns,
            data: data.expect("the file of the index is readable"),
        }
    };
    Some(lines.map(read).collect())
}

fn check(cases: &[Case], judge: fn(&Case) -> Verdict) {
    let mut counts: BTreeMap<(&str, String), u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases {
        let verdict = judge(case);
        let word = match &verdict {
            Verdict::Found { name: Some(_), .. } => "found".to_owned(),
            Verdict::Found { name: None, .. } => "found without name".to_owned(),
            Verdict::More => "more".to_owned(),
            Verdict::Refused(name) => format!("refused {name}"),
        };
        let expectation = case.expectation();
        let deliberate = DELIBERATE.iter().any(|(file, _)| *file == case.file());
        if agrees(case, &verdict) == Some(false) && !deliberate {
            wrong.push(format!("{} ({expectation}): {verdict:?}", case.file()));
        }
        if agrees(case, &verdict).is_none() {
            println!("{expectation:10} {word:30} {}", case.file());
        }
        *counts.entry((expectation, word)).or_default() += 1;
    }
    for ((expectation, word), count) in counts {
        println!("{count:4} {expectation:16} {word}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the verdict is what the corpus expects; `None` where it leaves the decision to us.
fn agrees(case: &Case, verdict: &Verdict) -> Option<bool> {
    match (case.expectation(), verdict) {
        ("route" | "gunicorn-accepts", Verdict::Found { name, alpn }) => {
            let wanted = case.column("sni").or(case.column("host"));
            let wanted = wanted.expect("a routed case has a name");
            let alpn_agrees = case.column("alpn").is_none_or(|wanted| *wanted == **alpn);
            Some(*name == Host::parse(wanted.as_bytes()).ok() && alpn_agrees)
        }
        ("nosni", Verdict::Found { name, .. }) => Some(name.is_none()),
        ("reject" | "reject-400" | "reject-any", _) => Some(matches!(verdict, Verdict::Refused(_))),
        // What never becomes a head may be refused before the deadline.
        ("wait", _) => Some(!matches!(verdict, Verdict::Found { .. })),
        ("framing", _) => framing_agrees(case, matches!(verdict, Verdict::Found { .. })),
        ("policy" | "no-crash", _) => None,
        _ => Some(false),
    }
}

/// By the tier of http-desync-guardian where it has judged the case; else, a request that every other
/// parser refuses is to be refused.
fn framing_agrees(case: &Case, is_found: bool) -> Option<bool> {
    let tier = |name| {
        case.column("note")
            .is_some_and(|note| note.starts_with(&format!("desync-guardian tier {name}")))
    };
    if tier("Severe") {
        return Some(!is_found);
    }
    if tier("Compliant") || tier("Acceptable") {
        return Some(is_found);
    }
    let others = case.column("other_parsers")?;
    let all_refuse = others.split("; ").all(|other| other.contains("=err:"));
    all_refuse.then_some(!is_found)
}
