//! What a client is told about an outcome, as values: a TLS alert, and a status with one sentence for
//! HTTP. `reply` makes the bytes of them.

use crate::refusal::Answer;

/// An AlertDescription of RFC 8446 section 6 or RFC 6066 section 9, by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alert {
    UnexpectedMessage = 10,
    RecordOverflow = 22,
    DecodeError = 50,
    ProtocolVersion = 70,
    InternalError = 80,
    UnrecognizedName = 112,
}

impl Alert {
    /// The name in the RFCs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Alert::UnexpectedMessage => "unexpected_message",
            Alert::RecordOverflow => "record_overflow",
            Alert::DecodeError => "decode_error",
            Alert::ProtocolVersion => "protocol_version",
            Alert::InternalError => "internal_error",
            Alert::UnrecognizedName => "unrecognized_name",
        }
    }
}

/// An HTTP error response: its status and the sentence in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpError {
    pub status: u16,
    pub sentence: &'static str,
}

impl HttpError {
    /// The reason phrase of the status (RFC 9110 section 15; 429 and 431: RFC 6585).
    pub(crate) fn reason(self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            421 => "Misdirected Request",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            other => unreachable!("no outcome has the status {other}"),
        }
    }
}

/// What the client gets before its connection is closed. Without one of the two the connection of that
/// protocol is closed without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorResponse {
    pub alert: Option<Alert>,
    pub http: Option<HttpError>,
}

impl ErrorResponse {
    /// The connection is closed without a word.
    pub(super) const SILENT: ErrorResponse = ErrorResponse {
        alert: None,
        http: None,
    };

    pub(super) const fn http(status: u16, sentence: &'static str) -> ErrorResponse {
        ErrorResponse {
            http: Some(HttpError { status, sentence }),
            ..ErrorResponse::SILENT
        }
    }

    pub(super) const fn both(alert: Alert, status: u16, sentence: &'static str) -> ErrorResponse {
        ErrorResponse {
            alert: Some(alert),
            ..ErrorResponse::http(status, sentence)
        }
    }

    pub(super) const fn of_refusal(answer: Answer) -> ErrorResponse {
        const MALFORMED: &str = "The head of the request is malformed, ambiguous or not HTTP/1.";
        const TOO_LARGE: &str = "The head of the request is larger than allowed.";
        match answer {
            Answer::Malformed => ErrorResponse::both(Alert::DecodeError, 400, MALFORMED),
            Answer::TooLarge => ErrorResponse::both(Alert::DecodeError, 431, TOO_LARGE),
            Answer::MethodNotAllowed => {
                ErrorResponse::both(Alert::DecodeError, 405, "This proxy opens no tunnels.")
            }
            Answer::ProtocolVersion => ErrorResponse::both(Alert::ProtocolVersion, 400, MALFORMED),
            Answer::UnexpectedMessage => {
                ErrorResponse::both(Alert::UnexpectedMessage, 400, MALFORMED)
            }
            Answer::RecordOverflow => ErrorResponse::both(Alert::RecordOverflow, 400, MALFORMED),
        }
    }
}
