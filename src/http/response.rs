//! The head of a response.
//!
//! A response whose end two readers could see at different places is refused, as a request would be.
//! Some servers break rules in ways that leave no doubt about the meaning: such a response is passed on
//! in proper form, and the backend's connection is not used again.

use std::time::Duration;

use super::fields::{
    ConnectionOptions, Field, FieldName, FieldStorage, is_connection_auth, tokens,
};
use super::length::{Length, LengthFault, LengthFields};
use super::normalize::ChunkedOutput;

/// Why a response cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseFault {
    /// Its first line is not that of an HTTP/1 response.
    StatusLine,
    /// Its status is below 100 or above 999.
    Status,
    /// A line of its head has no valid field name.
    FieldName,
    FieldValue,
    /// A Content-Length is no number.
    ContentLength,
    ContentLengthsDiffer,
    /// A Transfer-Encoding is neither chunked nor identity, or there are two.
    TransferEncoding,
    /// A Content-Length or Transfer-Encoding is folded over two lines.
    FoldedLength,
    /// It is a 101 to a request that did not ask for another protocol.
    UnrequestedUpgrade,
    /// Its head does not end within the limit.
    TooLarge,
}

impl ResponseFault {
    /// The name of the rule in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ResponseFault::StatusLine => "status_line",
            ResponseFault::Status => "status",
            ResponseFault::FieldName => "header_name",
            ResponseFault::FieldValue => "header_value",
            ResponseFault::ContentLength => "content_length",
            ResponseFault::ContentLengthsDiffer => "content_lengths_differ",
            ResponseFault::TransferEncoding => "transfer_encoding",
            ResponseFault::FoldedLength => "folded_length",
            ResponseFault::UnrequestedUpgrade => "unrequested_upgrade",
            ResponseFault::TooLarge => "head_too_large",
        }
    }
}

impl From<LengthFault> for ResponseFault {
    fn from(fault: LengthFault) -> ResponseFault {
        match fault {
            LengthFault::Number => ResponseFault::ContentLength,
            LengthFault::Differ => ResponseFault::ContentLengthsDiffer,
            LengthFault::Both | LengthFault::Encoding => ResponseFault::TransferEncoding,
        }
    }
}

impl From<httparse::Error> for ResponseFault {
    fn from(error: httparse::Error) -> ResponseFault {
        match error {
            httparse::Error::HeaderName => ResponseFault::FieldName,
            httparse::Error::HeaderValue | httparse::Error::NewLine => ResponseFault::FieldValue,
            httparse::Error::TooManyHeaders => ResponseFault::TooLarge,
            httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
                ResponseFault::StatusLine
            }
        }
    }
}

/// What the head of a response depends on in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestSummary {
    pub is_head: bool,
    pub minor_version: u8,
}

/// A complete head. It borrows the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead<'b, 's> {
    pub status: u16,
    pub reason: &'b str,
    pub fields: &'s [Field<'b>],
    pub body: Length,
    /// The length that the head for the client states. It may be that of a body that is not sent, as
    /// in the response to HEAD.
    pub stated_length: Length,
    /// What the client gets of a chunked body.
    pub chunked_output: ChunkedOutput,
    /// Whether the backend keeps the connection open for another request, and it may be used.
    pub persistent: bool,
    /// Whether the connection to the backend is authenticated and must serve no other client.
    pub has_connection_auth: bool,
    /// For how long the backend says that it keeps an idle connection open.
    pub keep_alive_timeout: Option<Duration>,
    pub head_bytes: usize,
    pub(super) options: ConnectionOptions,
    /// Whether some field is folded over two lines.
    pub(super) is_folded: bool,
}

impl<'b, 's> ResponseHead<'b, 's> {
    /// `received` is everything since the last response ended; `None`: more is needed.
    ///
    /// # Errors
    /// The rule that the head breaks; never as long as more bytes could make a valid head. And
    /// [`ResponseFault::TooLarge`] when `bytes_max` bytes are no whole head.
    pub(crate) fn parse(
        received: &'b [u8],
        bytes_max: usize,
        request: RequestSummary,
        storage: &'s mut FieldStorage<'b>,
    ) -> Result<Option<ResponseHead<'b, 's>>, ResponseFault> {
        let within = &received[..received.len().min(bytes_max)];
        let Some(lines) = Lines::parse(within, storage)? else {
            if received.len() < bytes_max {
                return Ok(None);
            }
            return Err(ResponseFault::TooLarge);
        };
        let Lines {
            status,
            minor_version,
            fields,
            ..
        } = lines;
        let values = FieldValues::read(fields)?;
        let (options, lengths) = (values.options, values.lengths);
        let length = lengths.lenient().unwrap_or(Length::UntilClose);
        let breaks_rule = values.breaks_rule
            || lines.is_folded
            || lengths.has_both()
            || length == Length::Chunked && minor_version == 0;
        // RFC 9112 section 6.3, rules 1 and 2.
        let has_no_body = request.is_head || status < 200 || status == 204 || status == 304;
        let body = if has_no_body { Length::None } else { length };
        let chunked_output = match (length, request.minor_version) {
            // HTTP/1.0 does not know chunks.
            (Length::Chunked, 0) => ChunkedOutput::Decoded,
            _ => ChunkedOutput::Chunked,
        };
        let stated_length = match chunked_output {
            _ if status < 200 || status == 204 => Length::None,
            ChunkedOutput::Decoded => Length::UntilClose,
            ChunkedOutput::Chunked => length,
        };
        // To a request of HTTP/1.0 a backend has to say keep-alive in so many words.
        let is_kept_alive = request.minor_version > 0 || options.keep_alive;
        Ok(Some(ResponseHead {
            status,
            reason: lines.reason,
            fields,
            body,
            stated_length,
            chunked_output,
            persistent: is_kept_alive
                && options.is_persistent(minor_version)
                && body != Length::UntilClose
                && !breaks_rule,
            has_connection_auth: values.has_connection_auth,
            keep_alive_timeout: values.keep_alive_timeout,
            head_bytes: lines.bytes,
            options,
            is_folded: lines.is_folded,
        }))
    }

    /// Whether the client's connection has to be closed to end the body.
    pub(crate) fn ends_with_stream(&self) -> bool {
        self.body == Length::UntilClose
            || self.body != Length::None && self.chunked_output == ChunkedOutput::Decoded
    }
}

/// The lines of a complete head, whatever they say.
struct Lines<'b, 's> {
    status: u16,
    minor_version: u8,
    reason: &'b str,
    fields: &'s [Field<'b>],
    is_folded: bool,
    /// Of the whole head.
    bytes: usize,
}

impl<'b, 's> Lines<'b, 's> {
    /// `None`: more is needed.
    fn parse(
        within: &'b [u8],
        storage: &'s mut FieldStorage<'b>,
    ) -> Result<Option<Lines<'b, 's>>, ResponseFault> {
        let FieldStorage { usual, many } = storage;
        let mut response = httparse::Response::new(usual);
        let mut parsed = response.parse(within);
        let mut is_folded = false;
        if let Err(httparse::Error::TooManyHeaders | httparse::Error::HeaderName) = parsed {
            // There are no more fields than lines, and no more lines than the limit has room for.
            let lines = within.iter().filter(|byte| **byte == b'\n').count();
            many.resize(lines + 1, httparse::EMPTY_HEADER);
            let unfolded = httparse::Response::new(&mut many.clone()).parse(within);
            is_folded = unfolded == Err(httparse::Error::HeaderName);
            response = httparse::Response::new(many);
            // Folded lines are accepted in responses (RFC 9112 section 5.2).
            let mut config = httparse::ParserConfig::default();
            config.allow_obsolete_multiline_headers_in_responses(true);
            parsed = config.parse_response(&mut response, within);
        }
        let httparse::Status::Complete(bytes) = parsed? else {
            return Ok(None);
        };
        let (Some(status), Some(minor_version)) = (response.code, response.version) else {
            return Err(ResponseFault::StatusLine);
        };
        if !(100..=999).contains(&status) {
            return Err(ResponseFault::Status);
        }
        Ok(Some(Lines {
            status,
            minor_version,
            reason: response.reason.unwrap_or(""),
            fields: response.headers,
            is_folded,
            bytes,
        }))
    }
}

/// What the fields of a head say that matters to a proxy.
#[derive(Default)]
struct FieldValues {
    options: ConnectionOptions,
    lengths: LengthFields,
    has_connection_auth: bool,
    keep_alive_timeout: Option<Duration>,
    /// Whether a field breaks a rule and its meaning is clear all the same.
    breaks_rule: bool,
}

impl FieldValues {
    fn read(fields: &[Field<'_>]) -> Result<FieldValues, ResponseFault> {
        let mut values = FieldValues::default();
        for field in fields {
            let value = field.value;
            match FieldName::of(field.name) {
                FieldName::ContentLength | FieldName::TransferEncoding
                    if value.contains(&b'\n') =>
                {
                    return Err(ResponseFault::FoldedLength);
                }
                FieldName::Connection => values.options.read(value),
                FieldName::ContentLength => {
                    for length in tokens(value) {
                        values.lengths.read_content_length(length)?;
                    }
                    values.breaks_rule |= value.contains(&b',');
                }
                FieldName::TransferEncoding
                    if value.trim_ascii().eq_ignore_ascii_case(b"identity") =>
                {
                    values.breaks_rule = true;
                }
                FieldName::TransferEncoding => values.lengths.read_transfer_encoding(value)?,
                FieldName::KeepAlive => {
                    values.keep_alive_timeout = timeout(value).or(values.keep_alive_timeout);
                }
                FieldName::Authentication => {
                    values.has_connection_auth |= is_connection_auth(value);
                }
                _ => {}
            }
        }
        Ok(values)
    }
}

/// The timeout parameter of a Keep-Alive field (RFC 2068 section 19.7.1.1), which Apache, Node and
/// Tomcat send.
fn timeout(value: &[u8]) -> Option<Duration> {
    let seconds = |token: &[u8]| {
        let (name, seconds) = std::str::from_utf8(token).ok()?.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        let seconds: u32 = seconds.trim().parse().ok().filter(|_| is_timeout)?;
        Some(Duration::from_secs(seconds.into()))
    };
    tokens(value).find_map(seconds)
}
