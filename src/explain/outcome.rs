//! What is said about an outcome.

use std::fmt::Write as _;

use super::layout::{names, paragraph, part, sentence};
use crate::config::{OptionSpec, options};
use crate::outcome::Outcome;
use crate::refusal::Subject;

const GROUPS: [Group; 4] = [
    Group {
        title: "Connections",
        intro: "How a connection ends that was not refused for its first bytes.",
        subject: None,
    },
    Group {
        title: "Refused PROXY headers",
        intro: "What a sender of PROXY headers got wrong, or a client that is none.",
        subject: Some(Subject::ProxyHeader),
    },
    Group {
        title: "Refused ClientHellos",
        intro: "What is wrong with the first bytes on a TLS port.",
        subject: Some(Subject::ClientHello),
    },
    Group {
        title: "Refused requests",
        intro: "What is wrong with a request on an HTTP port.",
        subject: Some(Subject::Request),
    },
];

/// Who is at fault, above each table of refusals.
const REFUSED: &str =
    "They are ended by the proxy; it is the client, or the sender before it, that is at fault.";

/// Outcomes of one kind.
struct Group {
    title: &'static str,
    intro: &'static str,
    /// Of refusals; the others have none.
    subject: Option<Subject>,
}

impl Group {
    fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        Outcome::all().filter(|outcome| subject(*outcome) == self.subject)
    }
}

fn subject(outcome: Outcome) -> Option<Subject> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal.subject()),
        _ => None,
    }
}

/// For the terminal.
pub(super) fn text(outcome: Outcome) -> String {
    let mut text = format!("{}\n\n", outcome.name());
    text += &part("what happened", outcome.cause());
    text += &part("ended by", outcome.side().name());
    text += &part("client sees", &client_sees(outcome));
    text += &part("look at", outcome.look());
    text += &part("what to do", outcome.remedy());
    let options: Vec<String> = options_of(outcome)
        .map(|spec| format!("--{}", spec.name))
        .collect();
    if !options.is_empty() {
        text += &part("options", &options.join(", "));
    }
    text
}

pub(super) fn list() -> String {
    let mut text = String::new();
    for group in &GROUPS {
        let list = names(group.outcomes().map(Outcome::name));
        write!(text, "{}\n{list}\n", group.title).expect("a String takes everything");
    }
    text
}

/// `docs/outcomes.md`.
pub(super) fn page() -> String {
    let mut page = String::from(include_str!("outcomes.md"));
    for group in &GROUPS {
        let Group { title, intro, .. } = group;
        write!(page, "\n## {title}\n\n{intro}\n").expect("a String takes everything");
        if group.subject.is_none() {
            group.outcomes().for_each(|outcome| page += &entry(outcome));
        } else {
            page += "\n";
            page += &paragraph("", REFUSED);
            page.push('\n');
            page +=
                "| outcome | what happened | what to do | the client sees |\n|---|---|---|---|\n";
            group.outcomes().for_each(|outcome| page += &row(outcome));
        }
    }
    page
}

fn entry(outcome: Outcome) -> String {
    let mut entry = format!("\n### `{}`\n\n", outcome.name());
    let happened = sentence(outcome.cause());
    entry += &paragraph(
        "",
        &format!("{happened} Ended by {}.", outcome.side().name()),
    );
    entry.push('\n');
    entry += &paragraph("- ", &format!("The client sees {}.", client_sees(outcome)));
    entry += &paragraph("- ", &format!("Look at: {}.", outcome.look()));
    entry += &paragraph("- ", &format!("What to do: {}.", outcome.remedy()));
    let link = |spec: &OptionSpec| format!("[`--{0}`](options.md#--{0})", spec.name);
    let options: Vec<String> = options_of(outcome).map(link).collect();
    if !options.is_empty() {
        entry += &paragraph("- ", &format!("Options: {}.", options.join(", ")));
    }
    entry
}

fn row(outcome: Outcome) -> String {
    format!(
        "| <a id=\"{0}\"></a>`{0}` | {1} | {2} | {3} |\n",
        outcome.name(),
        outcome.cause(),
        outcome.remedy(),
        client_sees(outcome),
    )
}

/// What the client is told, over the protocols that the outcome is about.
fn client_sees(outcome: Outcome) -> String {
    let response = outcome.response();
    let subject = subject(outcome);
    let mut parts = Vec::new();
    if let Some(alert) = response.alert
        && subject != Some(Subject::Request)
    {
        parts.push(format!(
            "over TLS the alert {} ({})",
            alert.name(),
            alert as u8
        ));
    }
    if let Some(http) = response.http
        && subject != Some(Subject::ClientHello)
    {
        parts.push(format!("over HTTP {} {}", http.status, http.reason()));
    }
    if !outcome.otherwise().is_empty() {
        parts.push(outcome.otherwise().to_owned());
    }
    parts.join("; ")
}

/// The options that have to do with it.
fn options_of(outcome: Outcome) -> impl Iterator<Item = &'static OptionSpec> {
    options().filter(move |spec| spec.see.contains(&outcome.name()))
}
