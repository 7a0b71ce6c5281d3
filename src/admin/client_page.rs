//! `/client?backend=ADDRESS`: who is behind a connection that a backend sees.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::page::Page;
use super::process::ProcessState;
use crate::cores::{ANSWER_TIMEOUT, ask_all};
use crate::lookup::{Found, select};

/// The page for the part of the request behind the question mark.
pub(super) async fn page(process: &ProcessState, query: &str) -> Page {
    if !process.reports.lookup {
        return refusal("404 Not Found", "look-ups are off; start with --lookup yes");
    }
    let (source, to) = match parse(query) {
        Ok(question) => question,
        Err(error) => return refusal("400 Bad Request", &error),
    };
    let mut found = ask(process, source).await;
    found.retain(|found| to.is_none_or(|to| found.ends.backend == to));
    match select(found) {
        Ok(one) => json_page("200 OK", &connection(&one)),
        Err(none) if none.is_empty() => refusal(
            "404 Not Found",
            "no connection from that address is open or ended within the last minute",
        ),
        Err(several) => {
            let matches: Vec<Value> = several.iter().map(connection).collect();
            let error = "connections to several backends; add &to=ADDRESS of the backend";
            json_page(
                "409 Conflict",
                &json!({ "error": error, "matches": matches }),
            )
        }
    }
}

/// The address that the backend sees, and that of the backend if given.
fn parse(query: &str) -> Result<(SocketAddr, Option<SocketAddr>), String> {
    const FORM: &str = "ask /client?backend=IP:PORT with the address that the backend sees, \
                        and &to=IP:PORT with the backend's own when it is not enough";
    let (mut source, mut to) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "backend" => &mut source,
            "to" => &mut to,
            _ => return Err(format!("{name:?} is not known; {FORM}")),
        };
        let address: Result<SocketAddr, _> = value.parse();
        let address =
            address.map_err(|_| format!("{value:?} is no address with a port; {FORM}"))?;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if place.replace(address).is_some() {
            return Err(format!("{name} is there twice; {FORM}"));
        }
    }
    let source = source.ok_or_else(|| format!("no address is given; {FORM}"))?;
    Ok((source, to))
}

/// A core that does not answer in time has nothing to say.
async fn ask(process: &ProcessState, source: SocketAddr) -> Vec<Found> {
    let cores = process.cores();
    let ask = |core, reply| cores.lookup(core, source, reply);
    let answers = ask_all(&*cores, ANSWER_TIMEOUT, ask).await;
    answers.into_iter().flatten().collect()
}

fn connection(found: &Found) -> Value {
    let connection = &found.connection;
    json!({
        "client": connection.client.to_string(),
        "name": connection.name,
        "alpn": connection.alpn,
        "accepted": humantime::format_rfc3339_millis(connection.accepted).to_string(),
        "backend": connection.member,
        "to": found.ends.backend.to_string(),
        "open": found.is_open,
    })
}

fn refusal(status: &'static str, error: &str) -> Page {
    json_page(status, &json!({ "error": error }))
}

fn json_page(status: &'static str, body: &Value) -> Page {
    Page {
        status,
        content_type: "application/json",
        body: format!("{body:#}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_are_understood() {
        let source: SocketAddr = "10.0.0.5:41234".parse().unwrap();
        assert_eq!(parse("backend=10.0.0.5:41234"), Ok((source, None)));
        let mapped = "backend=[::ffff:10.0.0.5]:41234";
        assert_eq!(parse(mapped), Ok((source, None)));
        let v6: SocketAddr = "[2001:db8::5]:1".parse().unwrap();
        let both = "to=10.0.0.5%3A41234&backend=%5B2001%3Adb8%3A%3A5%5D%3A1";
        assert_eq!(parse(both), Ok((v6, Some(source))));
    }

    #[test]
    fn questions_that_are_not_say_how_to_ask() {
        for query in [
            "",
            "backend=",
            "backend=10.0.0.5",
            "backend=a.test:1",
            "to=10.0.0.5:1",
            "client=10.0.0.5:1",
            "backend=10.0.0.5:1&backend=10.0.0.5:1",
        ] {
            let error = parse(query).unwrap_err();
            assert!(
                error.contains("; ask /client?backend=IP:PORT"),
                "{query}: {error}"
            );
        }
    }
}
