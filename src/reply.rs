//! What a client is told when its connection is not carried to a backend: a TLS alert or a small
//! HTTP response, made once for every way to end. Pure, and nothing a client sent is in it, so
//! there is nothing to escape.

use std::sync::LazyLock;

use crate::config::HttpSettings;
use crate::http::rewrite::METHODS_ALLOWED;
use crate::outcome::Outcome;
use crate::refusal::Answer;

/// Says in an answer how the connection ended.
const OUTCOME_HEADER: &str = "Pointsman-Outcome";

/// One protocol's answers, by [`Outcome::index`].
type Answers = Box<[Option<Box<[u8]>>]>;

static ALERTS: LazyLock<Answers> = LazyLock::new(|| Outcome::all().map(tls_answer).collect());

/// The alert to send before a TLS connection is closed; `None` closes it without a word. Allocates
/// nothing but on its first call.
pub(crate) fn alert(outcome: Outcome) -> Option<&'static [u8]> {
    ALERTS[outcome.index()].as_deref()
}

/// The responses of the HTTP port, as the operator wants them.
#[derive(Debug)]
pub(crate) struct HttpAnswers(Answers);

impl HttpAnswers {
    /// Makes all of them.
    pub(crate) fn new(settings: &HttpSettings) -> HttpAnswers {
        let answer = |outcome| http_answer(outcome, settings);
        HttpAnswers(Outcome::all().map(answer).collect())
    }

    /// The bytes to send before the connection is closed; `None` closes it without a word.
    ///
    /// The same bytes answer a HEAD request: the connection closes, so a body behind the head of
    /// the response is never taken for another response.
    pub(crate) fn of(&self, outcome: Outcome) -> Option<&[u8]> {
        self.0[outcome.index()].as_deref()
    }
}

/// AlertDescription, RFC 8446 section 6 and RFC 6066 section 9.
#[derive(Clone, Copy)]
enum Alert {
    UnexpectedMessage = 10,
    RecordOverflow = 22,
    DecodeError = 50,
    ProtocolVersion = 70,
    InternalError = 80,
    UnrecognizedName = 112,
}

/// One fatal alert record. The record version is 0x0301, as in a first ClientHello: no version has
/// been agreed upon, and clients of every version take it (RFC 8446 section 5.1).
fn tls_answer(outcome: Outcome) -> Option<Box<[u8]>> {
    let alert = match outcome {
        Outcome::UnknownName | Outcome::NoName => Alert::UnrecognizedName,
        Outcome::Refused(refusal) => match refusal.answer() {
            Answer::Malformed | Answer::TooLarge | Answer::MethodNotAllowed => Alert::DecodeError,
            Answer::ProtocolVersion => Alert::ProtocolVersion,
            Answer::UnexpectedMessage => Alert::UnexpectedMessage,
            Answer::RecordOverflow => Alert::RecordOverflow,
        },
        Outcome::NoAddress
        | Outcome::BackendUnreachable
        | Outcome::BackendTimeout
        | Outcome::BackendsFull
        | Outcome::OutOfResources
        | Outcome::BackendRemoved
        | Outcome::SourceFamily
        | Outcome::SourceForbidden
        | Outcome::SourceRefused => Alert::InternalError,
        Outcome::HeadTimeout
        | Outcome::TooManyConnections
        | Outcome::ClientConnections
        | Outcome::ClientRate
        | Outcome::HostConnections
        | Outcome::HostRate
        | Outcome::ClientLeft
        | Outcome::HealthCheck
        | Outcome::Relayed
        | Outcome::ClientReset
        | Outcome::BackendReset
        | Outcome::IdleTimeout
        | Outcome::HalfClosedTimeout
        | Outcome::ClientFinished
        | Outcome::CutAtDrain
        | Outcome::KeepAliveTimeout
        | Outcome::BodyTimeout
        | Outcome::BodyCutOff
        | Outcome::ResponseTimeout
        | Outcome::BackendClosed
        | Outcome::ResponseInvalid
        | Outcome::ResponseHeadTooLarge
        | Outcome::UnknownByOption => return None,
    };
    const CONTENT_TYPE_ALERT: u8 = 21;
    const LEVEL_FATAL: u8 = 2;
    Some(Box::new([
        CONTENT_TYPE_ALERT,
        0x03,
        0x01,
        0,
        2,
        LEVEL_FATAL,
        alert as u8,
    ]))
}

/// Status line, sentence; RFC 9110 section 15, 429 and 431 from RFC 6585 sections 4 and 5. 429 is for a
/// client that has done too much, and 503 where others have.
fn http_answer(outcome: Outcome, settings: &HttpSettings) -> Option<Box<[u8]>> {
    let (status, sentence) = match outcome {
        Outcome::UnknownByOption => ("404 Not Found", "This host name is not served here."),
        Outcome::UnknownName if settings.unknown_is_404 => {
            ("404 Not Found", "This host name is not served here.")
        }
        Outcome::UnknownName => (
            "421 Misdirected Request",
            "This host name is not served here.",
        ),
        Outcome::NoName => (
            "400 Bad Request",
            "The request names no host, and there is no default.",
        ),
        Outcome::Refused(refusal) => match refusal.answer() {
            Answer::Malformed
            | Answer::ProtocolVersion
            | Answer::UnexpectedMessage
            | Answer::RecordOverflow => (
                "400 Bad Request",
                "The head of the request is malformed, ambiguous or not HTTP/1.",
            ),
            Answer::TooLarge => (
                "431 Request Header Fields Too Large",
                "The head of the request is larger than allowed.",
            ),
            Answer::MethodNotAllowed => ("405 Method Not Allowed", "This proxy opens no tunnels."),
        },
        Outcome::HeadTimeout => (
            "408 Request Timeout",
            "The head of the request did not arrive in time.",
        ),
        Outcome::NoAddress => (
            "502 Bad Gateway",
            "No backend of this host has a known address.",
        ),
        Outcome::BackendUnreachable => {
            ("502 Bad Gateway", "No backend of this host can be reached.")
        }
        Outcome::BackendTimeout => (
            "504 Gateway Timeout",
            "No backend of this host accepted in time.",
        ),
        Outcome::BackendsFull => (
            "503 Service Unavailable",
            "Every backend of this host has as much to do as it may.",
        ),
        Outcome::TooManyConnections => (
            "503 Service Unavailable",
            "The proxy has as many connections as it may.",
        ),
        Outcome::ClientConnections => (
            "503 Service Unavailable",
            "Your address has as many connections as it may.",
        ),
        Outcome::ClientRate => (
            "429 Too Many Requests",
            "Your address makes new connections too often.",
        ),
        Outcome::HostConnections => (
            "503 Service Unavailable",
            "This host has as much to do as it may.",
        ),
        Outcome::HostRate => (
            "503 Service Unavailable",
            "This host is asked more often than it may.",
        ),
        Outcome::OutOfResources => (
            "503 Service Unavailable",
            "The proxy has no room for another connection.",
        ),
        Outcome::BodyTimeout => (
            "408 Request Timeout",
            "The body of the request came too slowly.",
        ),
        Outcome::ResponseTimeout | Outcome::HalfClosedTimeout => {
            ("504 Gateway Timeout", "The backend did not answer in time.")
        }
        Outcome::BackendRemoved => (
            "502 Bad Gateway",
            "The backend of this request was taken out of service.",
        ),
        Outcome::BackendClosed => (
            "502 Bad Gateway",
            "The backend closed the connection without an answer.",
        ),
        Outcome::ResponseInvalid => ("502 Bad Gateway", "The backend's answer is no valid HTTP."),
        Outcome::ResponseHeadTooLarge => (
            "502 Bad Gateway",
            "The head of the backend's answer is larger than allowed.",
        ),
        Outcome::SourceFamily | Outcome::SourceForbidden | Outcome::SourceRefused => (
            "502 Bad Gateway",
            "No backend of this host can be reached from your address.",
        ),
        Outcome::ClientLeft
        | Outcome::HealthCheck
        | Outcome::Relayed
        | Outcome::ClientReset
        | Outcome::ClientFinished
        | Outcome::BackendReset
        | Outcome::IdleTimeout
        | Outcome::KeepAliveTimeout
        | Outcome::BodyCutOff
        | Outcome::CutAtDrain => return None,
    };
    let number = status[..3].parse().ok();
    let page = settings
        .pages
        .iter()
        .find(|(status, _)| Some(*status) == number);
    let (kind, body) = match page {
        Some((_, page)) => ("text/html; charset=utf-8", page.to_vec()),
        None if settings.hides_outcome => ("text/plain", format!("{sentence}\n").into()),
        None => (
            "text/plain",
            format!("{}: {sentence}\n", outcome.name()).into(),
        ),
    };
    let named = match settings.hides_outcome {
        true => String::new(),
        false => format!("{OUTCOME_HEADER}: {}\r\n", outcome.name()),
    };
    // RFC 9110 section 15.5.6 wants the methods that are allowed.
    let allow = match number {
        Some(405) => format!("Allow: {METHODS_ALLOWED}\r\n"),
        _ => String::new(),
    };
    // A limit of a rate has room again within a second.
    let retry = match outcome {
        Outcome::ClientRate | Outcome::HostRate => "Retry-After: 1\r\n",
        _ => "",
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{named}{allow}{retry}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    Some(response.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::Protocol;
    use crate::refusal::Refusal;

    fn answer(protocol: Protocol, outcome: Outcome) -> Option<Vec<u8>> {
        match protocol {
            Protocol::Tls => alert(outcome).map(<[u8]>::to_vec),
            Protocol::Tcp => None,
            Protocol::Http => {
                let answers = HttpAnswers::new(&HttpSettings::default());
                answers.of(outcome).map(<[u8]>::to_vec)
            }
        }
    }

    #[test]
    fn answers_are_as_the_operator_wants_them() {
        let settings = HttpSettings {
            hides_outcome: true,
            pages: vec![(502, (*b"<p>away</p>").into())],
            unknown_is_404: true,
            ..HttpSettings::default()
        };
        let answers = HttpAnswers::new(&settings);
        let text = |outcome| {
            str::from_utf8(answers.of(outcome).unwrap())
                .unwrap()
                .to_owned()
        };
        for outcome in Outcome::all() {
            if let Some(bytes) = answers.of(outcome) {
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
            let bytes = answer(Protocol::Tls, outcome).expect("an alert");
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
            let Some(bytes) = answer(Protocol::Http, outcome) else {
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
            answer(Protocol::Http, outcome)
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
    fn what_was_relayed_or_left_ends_without_a_word() {
        for outcome in [
            Outcome::Relayed,
            Outcome::ClientReset,
            Outcome::BackendReset,
            Outcome::IdleTimeout,
            Outcome::CutAtDrain,
            Outcome::ClientLeft,
            Outcome::HealthCheck,
        ] {
            assert_eq!(answer(Protocol::Tls, outcome), None);
            assert_eq!(answer(Protocol::Http, outcome), None);
        }
        assert_eq!(answer(Protocol::Tls, Outcome::HeadTimeout), None);
    }
}
