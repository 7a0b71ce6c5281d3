//! The page `/client?backend=ADDRESS`: whose connection a backend sees.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::page::Page;
use super::process::ProcessState;
use crate::cores::{ANSWER_TIMEOUT, ask_all};
use crate::lookup::{Found, only_match};

/// The page for this query.
pub(super) async fn page(process: &ProcessState, query: &str) -> Page {
    if !process.reports.lookup {
        return refusal(
            "404 Not Found",
            "/client is off; start pointsman with --lookup yes",
        );
    }
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return refusal("400 Bad Request", &error),
    };
    let mut found = find(process, query.source).await;
    found.retain(|found| query.to.is_none_or(|to| found.addresses.backend == to));
    match only_match(found) {
        Ok(one) => json_page("200 OK", &connection(&one)),
        Err(none) if none.is_empty() => refusal(
            "404 Not Found",
            "no connection from that address is open, and none ended within the last minute",
        ),
        Err(several) => {
            let matches: Vec<Value> = several.iter().map(connection).collect();
            let error = "there are connections to several backends; add &to=IP:PORT, the address of the \
                backend";
            json_page(
                "409 Conflict",
                &json!({ "error": error, "matches": matches }),
            )
        }
    }
}

/// Which connection is looked for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    /// The address that the backend sees: the source of the connection to it.
    source: SocketAddr,
    /// The address of the backend, if given.
    to: Option<SocketAddr>,
}

impl Query {
    fn parse(query: &str) -> Result<Query, String> {
        const FORM: &str = "write /client?backend=IP:PORT with the address that the backend sees, \
                            and add &to=IP:PORT with the backend's own address if needed";
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
        Ok(Query { source, to })
    }
}

/// The connections from this source, on all cores that answer in time.
async fn find(process: &ProcessState, source: SocketAddr) -> Vec<Found> {
    let cores = process.cores();
    let ask = |core, reply| cores.lookup(core, source, reply);
    let answers = ask_all(&*cores, ANSWER_TIMEOUT, ask).await;
    answers.into_iter().flatten().collect()
}

fn connection(found: &Found) -> Value {
    let client = &found.client;
    json!({
        "client": client.address.to_string(),
        "name": client.name,
        "alpn": client.alpn,
        "accepted": humantime::format_rfc3339_millis(client.accepted).to_string(),
        "backend": client.member,
        "to": found.addresses.backend.to_string(),
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
    fn queries_that_are_understood() {
        let source: SocketAddr = "10.0.0.5:41234".parse().unwrap();
        let of_source = Query { source, to: None };
        assert_eq!(Query::parse("backend=10.0.0.5:41234").unwrap(), of_source);
        let mapped = "backend=[::ffff:10.0.0.5]:41234";
        assert_eq!(Query::parse(mapped).unwrap(), of_source);
        let v6: SocketAddr = "[2001:db8::5]:1".parse().unwrap();
        let both = "to=10.0.0.5%3A41234&backend=%5B2001%3Adb8%3A%3A5%5D%3A1";
        let of_both = Query {
            source: v6,
            to: Some(source),
        };
        assert_eq!(Query::parse(both).unwrap(), of_both);
    }

    #[test]
    fn queries_that_are_not_say_the_form() {
        for query in [
            "",
            "backend=",
            "backend=10.0.0.5",
            "backend=a.test:1",
            "to=10.0.0.5:1",
            "client=10.0.0.5:1",
            "backend=10.0.0.5:1&backend=10.0.0.5:1",
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(
                error.contains("; write /client?backend=IP:PORT"),
                "{query}: {error}"
            );
        }
    }
}
