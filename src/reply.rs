//! The bytes of error responses: a TLS alert or a small HTTP response, made once for every outcome.
//! What they say is in the table of outcomes. Pure, and nothing that a client sent is in them, so there
//! is nothing to escape.

use std::sync::LazyLock;

use crate::config::HttpSettings;
use crate::http::rewrite::METHODS_ALLOWED;
use crate::outcome::{Alert, HttpError, Outcome};

/// Names the outcome in an HTTP error response.
const OUTCOME_HEADER: &str = "Pointsman-Outcome";

/// One protocol's error responses, by [`Outcome::index`].
type ByOutcome = Box<[Option<Box<[u8]>>]>;

static ALERTS: LazyLock<ByOutcome> = LazyLock::new(|| {
    let record = |outcome: Outcome| outcome.response().alert.map(alert_record);
    Outcome::all().map(record).collect()
});

/// The alert to send before a TLS connection is closed; `None` closes it without a word. Allocates
/// nothing but on its first call.
pub(crate) fn alert(outcome: Outcome) -> Option<&'static [u8]> {
    ALERTS[outcome.index()].as_deref()
}

/// The error responses of the HTTP port, as the operator wants them.
#[derive(Debug)]
pub(crate) struct ErrorResponses(ByOutcome);

impl ErrorResponses {
    /// Makes all of them.
    pub(crate) fn new(settings: &HttpSettings) -> ErrorResponses {
        let response = |outcome: Outcome| {
            let error = http_error(outcome, settings)?;
            Some(http_response(outcome, error, settings))
        };
        ErrorResponses(Outcome::all().map(response).collect())
    }

    /// The bytes to send before the connection is closed; `None` closes it without a word.
    ///
    /// The same bytes answer a HEAD request: the connection closes, so a body behind the head of
    /// the response is never taken for another response.
    pub(crate) fn of(&self, outcome: Outcome) -> Option<&[u8]> {
        self.0[outcome.index()].as_deref()
    }
}

/// One fatal alert record. The record version is 0x0301, as in a first ClientHello: no version has
/// been agreed upon, and clients of every version take it (RFC 8446 section 5.1).
fn alert_record(alert: Alert) -> Box<[u8]> {
    const CONTENT_TYPE_ALERT: u8 = 21;
    const LEVEL_FATAL: u8 = 2;
    Box::new([
        CONTENT_TYPE_ALERT,
        0x03,
        0x01,
        0,
        2,
        LEVEL_FATAL,
        alert as u8,
    ])
}

/// What an HTTP client is told: the table's word, but for the one status that an option changes.
fn http_error(outcome: Outcome, settings: &HttpSettings) -> Option<HttpError> {
    let error = outcome.response().http?;
    if outcome == Outcome::UnknownName && settings.unknown_is_404 {
        return Some(HttpError {
            status: 404,
            ..error
        });
    }
    Some(error)
}

fn http_response(outcome: Outcome, error: HttpError, settings: &HttpSettings) -> Box<[u8]> {
    let HttpError { status, sentence } = error;
    let mut pages = settings.pages.iter();
    let page = pages.find(|(of, _)| *of == status);
    let (content_type, body) = match page {
        Some((_, page)) => ("text/html; charset=utf-8", page.to_vec()),
        None if settings.hides_outcome => ("text/plain", format!("{sentence}\n").into()),
        None => {
            let text = format!("{}: {sentence}\n", outcome.name());
            ("text/plain", text.into())
        }
    };
    let mut head = format!(
        "HTTP/1.1 {status} {}\r\nConnection: close\r\n",
        error.reason()
    );
    let mut field = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    };
    if !settings.hides_outcome {
        field(OUTCOME_HEADER, outcome.name());
    }
    if status == 405 {
        // RFC 9110 section 15.5.6 wants the methods that are allowed.
        field("Allow", METHODS_ALLOWED);
    }
    if matches!(outcome, Outcome::ClientRate | Outcome::HostRate) {
        // A limit of a rate has room again within a second.
        field("Retry-After", "1");
    }
    field("Content-Type", content_type);
    field("Content-Length", &body.len().to_string());
    head.push_str("\r\n");
    [head.as_bytes(), &body].concat().into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::Protocol;
    use crate::refusal::{Answer, Refusal};

    fn response(protocol: Protocol, outcome: Outcome) -> Option<Vec<u8>> {
        match protocol {
            Protocol::Tls => alert(outcome).map(<[u8]>::to_vec),
            Protocol::Tcp => None,
            Protocol::Http => {
                let responses = ErrorResponses::new(&HttpSettings::default());
                responses.of(outcome).map(<[u8]>::to_vec)
            }
        }
    }

    #[test]
    fn responses_are_as_the_operator_wants_them() {
        let settings = HttpSettings {
            hides_outcome: true,
            pages: vec![(502, (*b"<p>away</p>").into())],
            unknown_is_404: true,
            ..HttpSettings::default()
        };
        let responses = ErrorResponses::new(&settings);
        let text = |outcome| {
            str::from_utf8(responses.of(outcome).unwrap())
                .unwrap()
                .to_owned()
        };
        for outcome in Outcome::all() {
            if let Some(bytes) = responses.of(outcome) {
                let text = str::from_utf8(bytes).unwrap();
                assert!(!text.contains(outcome.name()), "{text}");
            }
        }
        assert!(text(Outcome::UnknownName).starts_with("HTTP/1.1 404 Not Found\r\n"));
        let page = text(Outcome::BackendUnreachable);
        assert!(
            page.contains("text/html") && page.ends_with("\r\n\r\n<p>away</p>"),
            "{page}"
        );
        let method = text(Outcome::Refused(Refusal::ConnectMethod));
        assert!(method.contains("\r\nAllow: GET, "), "{method}");
    }

    /// What a rustls client makes of the bytes.
    fn alert_seen_by_rustls(bytes: &[u8]) -> rustls::Error {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "name.test".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap_err()
    }

    #[test]
    fn alerts_are_understood_by_a_tls_client() {
        use rustls::{AlertDescription, Error};
        let too_large = Refusal::all().find(|refusal| refusal.answer() == Answer::TooLarge);
        let cases = [
            (Outcome::UnknownName, AlertDescription::UnrecognisedName),
            (Outcome::NoName, AlertDescription::UnrecognisedName),
            (
                Outcome::Refused(Refusal::NotTls),
                AlertDescription::DecodeError,
            ),
            (
                Outcome::Refused(Refusal::HelloVersion),
                AlertDescription::ProtocolVersion,
            ),
            (
                Outcome::Refused(Refusal::NotClientHello),
                AlertDescription::UnexpectedMessage,
            ),
            (
                Outcome::Refused(Refusal::RecordTooLong),
                AlertDescription::RecordOverflow,
            ),
            (Outcome::NoAddress, AlertDescription::InternalError),
            (Outcome::BackendUnreachable, AlertDescription::InternalError),
            (Outcome::BackendTimeout, AlertDescription::InternalError),
            (Outcome::BackendsFull, AlertDescription::InternalError),
            (Outcome::OutOfResources, AlertDescription::InternalError),
        ]
        .into_iter()
        .chain(too_large.map(|refusal| (Outcome::Refused(refusal), AlertDescription::DecodeError)));
        for (outcome, expected) in cases {
            let bytes = response(Protocol::Tls, outcome).expect("an alert");
            assert_eq!(bytes.len(), 7);
            assert_eq!(
                alert_seen_by_rustls(&bytes),
                Error::AlertReceived(expected),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn responses_are_well_formed_and_name_the_outcome() {
        let mut answered = 0;
        for outcome in Outcome::all() {
            let Some(bytes) = response(Protocol::Http, outcome) else {
                continue;
            };
            answered += 1;
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(head_len) = response.parse(&bytes).unwrap() else {
                panic!("{outcome:?} is no complete head");
            };
            let header = |name: &str| {
                response
                    .headers
                    .iter()
                    .find(|header| header.name == name)
                    .map(|header| str::from_utf8(header.value).unwrap())
            };
            let body = str::from_utf8(&bytes[head_len..]).unwrap();
            assert_eq!(header("Connection"), Some("close"));
            assert_eq!(header(OUTCOME_HEADER), Some(outcome.name()));
            assert_eq!(header("Content-Type"), Some("text/plain"));
            assert_eq!(
                header("Content-Length"),
                Some(body.len().to_string().as_str())
            );
            assert!(body.starts_with(outcome.name()), "{body:?}");
            assert!(body.ends_with(".\n"), "{body:?}");
        }
        assert!(answered >= 8);
    }

    #[test]
    fn each_case_has_its_status() {
        let status = |outcome| {
            response(Protocol::Http, outcome)
                .map(|bytes| str::from_utf8(&bytes[9..12]).unwrap().to_owned())
        };
        for (outcome, expected) in [
            (Outcome::UnknownName, Some("421")),
            (Outcome::NoName, Some("400")),
            (Outcome::Refused(Refusal::NotTls), Some("400")),
            (Outcome::HeadTimeout, Some("408")),
            (Outcome::NoAddress, Some("502")),
            (Outcome::BackendUnreachable, Some("502")),
            (Outcome::BackendTimeout, Some("504")),
            (Outcome::BackendsFull, Some("503")),
            (Outcome::OutOfResources, Some("503")),
            (Outcome::TooManyConnections, Some("503")),
            (Outcome::ClientConnections, Some("503")),
            (Outcome::ClientRate, Some("429")),
            (Outcome::HostConnections, Some("503")),
            (Outcome::HostRate, Some("503")),
            (Outcome::ClientLeft, None),
            (Outcome::Relayed, None),
            (Outcome::CutAtDrain, None),
        ] {
            assert_eq!(status(outcome).as_deref(), expected, "{outcome:?}");
        }
        for refusal in Refusal::all() {
            let expected = match refusal.answer() {
                Answer::Malformed
                | Answer::ProtocolVersion
                | Answer::UnexpectedMessage
                | Answer::RecordOverflow => "400",
                Answer::TooLarge => "431",
                Answer::MethodNotAllowed => "405",
            };
            assert_eq!(
                status(Outcome::Refused(refusal)).as_deref(),
                Some(expected),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn what_was_relayed_or_left_gets_no_error_response() {
        for outcome in [
            Outcome::Relayed,
            Outcome::ClientReset,
            Outcome::BackendReset,
            Outcome::IdleTimeout,
            Outcome::CutAtDrain,
            Outcome::ClientLeft,
            Outcome::HealthCheck,
        ] {
            assert_eq!(response(Protocol::Tls, outcome), None);
            assert_eq!(response(Protocol::Http, outcome), None);
        }
        assert_eq!(response(Protocol::Tls, Outcome::HeadTimeout), None);
    }
}
