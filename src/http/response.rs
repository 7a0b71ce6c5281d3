//! The head of a response: bytes → what it says, more needed, or what is wrong with it.
//!
//! A backend is trusted to answer its own client and nothing else: a response whose end two
//! readers could see at different places is refused as a request would be. What is clear although it
//! breaks a rule, as some servers write it, is understood, written anew, and the last on its connection.

use std::time::Duration;

use super::fields::{
    ConnectionOptions, Field, FieldName, FieldStorage, has_connection_auth, tokens,
};
use super::length::{Length, LengthFault, LengthFields};
use super::normalize::ChunkedOutput;

/// Why a response cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseFault {
    /// Its first line is none of HTTP/1.
    StatusLine,
    /// Its status is below 100 or above 999.
    Status,
    /// A line of its head is no field.
    FieldName,
    FieldValue,
    /// A Content-Length is no number.
    ContentLength,
    ContentLengthsDiffer,
    /// A Transfer-Encoding is neither chunked nor identity, or said twice.
    TransferEncoding,
    /// A field that says where it ends goes on in a second line.
    FoldedLength,
    /// 101 to a request that asked for no other protocol.
    Unasked,
    /// Its head does not end within the limit.
    TooLarge,
}

impl ResponseFault {
    /// The rule as the log names it.
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
            ResponseFault::Unasked => "unasked_upgrade",
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

/// What the request was, as far as its response depends on it.
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
    /// What the client is told of its length: also that of a body which is not sent.
    pub announced: Length,
    /// What the client gets of its chunks.
    pub chunks: ChunkedOutput,
    /// Whether the backend is ready for another request on the connection.
    pub persistent: bool,
    /// Whether the backend's connection belongs to one client from now on.
    pub has_connection_auth: bool,
    /// For how long the backend says that it keeps the connection for another request.
    pub keep_alive_timeout: Option<Duration>,
    pub head_bytes: usize,
    pub(super) options: ConnectionOptions,
    /// Some field goes on in a second line.
    pub(super) is_folded: bool,
}

/// What the fields of a head say that matters here.
#[derive(Default)]
struct Said {
    options: ConnectionOptions,
    lengths: LengthFields,
    is_bound: bool,
    keep_alive_timeout: Option<Duration>,
    /// It breaks a rule and is clear all the same.
    is_odd: bool,
}

impl<'b, 's> ResponseHead<'b, 's> {
    /// `received` is everything since the last response ended; `None`: more is needed.
    ///
    /// # Errors
    /// Never on bytes that more bytes could make a sound head of, but where `bytes_max` are reached.
    pub(crate) fn parse(
        received: &'b [u8],
        bytes_max: usize,
        request: RequestSummary,
        storage: &'s mut FieldStorage<'b>,
    ) -> Result<Option<ResponseHead<'b, 's>>, ResponseFault> {
        let within = &received[..received.len().min(bytes_max)];
        let FieldStorage { usual, many } = storage;
        let mut response = httparse::Response::new(usual);
        let mut parsed = response.parse(within);
        let mut is_folded = false;
        if let Err(httparse::Error::TooManyHeaders | httparse::Error::HeaderName) = parsed {
            // A field for each line, as far as the limit goes.
            let lines = within.iter().filter(|byte| **byte == b'\n').count();
            many.resize(lines + 1, httparse::EMPTY_HEADER);
            let unfolded = httparse::Response::new(&mut many.clone()).parse(within);
            is_folded = unfolded == Err(httparse::Error::HeaderName);
            response = httparse::Response::new(many);
            parsed = Self::folded().parse_response(&mut response, within);
        }
        let head_bytes = match parsed {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if received.len() < bytes_max => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(ResponseFault::TooLarge),
            Err(error) => return Err(error.into()),
        };
        let (Some(status), Some(minor_version)) = (response.code, response.version) else {
            return Err(ResponseFault::StatusLine);
        };
        if !(100..=999).contains(&status) {
            return Err(ResponseFault::Status);
        }
        let reason = response.reason.unwrap_or("");
        let fields: &'s [Field<'b>] = response.headers;
        let Said {
            options,
            lengths,
            is_bound,
            keep_alive_timeout,
            mut is_odd,
        } = Self::said(fields)?;
        is_odd |= is_folded || lengths.has_both();
        let said = lengths.lenient().unwrap_or(Length::UntilClose);
        is_odd |= said == Length::Chunked && minor_version == 0;
        // RFC 9112 section 6.3, rules 1 and 2.
        let is_bare = request.is_head || status < 200 || status == 204 || status == 304;
        let body = if is_bare { Length::None } else { said };
        let chunks = match (said, request.minor_version) {
            // Which knows none.
            (Length::Chunked, 0) => ChunkedOutput::Decoded,
            _ => ChunkedOutput::Chunked,
        };
        let announced = match chunks {
            _ if status < 200 || status == 204 => Length::None,
            ChunkedOutput::Decoded => Length::UntilClose,
            ChunkedOutput::Chunked => said,
        };
        // To a request of HTTP/1.0 only a promise in words is one.
        let promised = request.minor_version > 0 || options.keep_alive;
        Ok(Some(ResponseHead {
            status,
            reason,
            fields,
            body,
            announced,
            chunks,
            persistent: promised
                && options.is_persistent(minor_version)
                && body != Length::UntilClose
                && !is_odd,
            has_connection_auth: is_bound,
            keep_alive_timeout,
            head_bytes,
            options,
            is_folded,
        }))
    }

    /// Lines that go on are read, too (RFC 9112 section 5.2).
    fn folded() -> httparse::ParserConfig {
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        config
    }

    fn said(fields: &[Field<'_>]) -> Result<Said, ResponseFault> {
        let mut said = Said::default();
        for field in fields {
            let known = FieldName::of(field.name);
            match known {
                FieldName::ContentLength | FieldName::TransferEncoding
                    if field.value.contains(&b'\n') =>
                {
                    return Err(ResponseFault::FoldedLength);
                }
                FieldName::Connection => said.options.read(field.value),
                FieldName::ContentLength => {
                    for length in tokens(field.value) {
                        said.lengths.read_content_length(length)?;
                    }
                    said.is_odd |= field.value.contains(&b',');
                }
                FieldName::TransferEncoding
                    if field.value.trim_ascii().eq_ignore_ascii_case(b"identity") =>
                {
                    said.is_odd = true;
                }
                FieldName::TransferEncoding => said.lengths.read_transfer_encoding(field.value)?,
                FieldName::KeepAlive => {
                    said.keep_alive_timeout = timeout(field.value).or(said.keep_alive_timeout)
                }
                FieldName::Authentication => said.is_bound |= has_connection_auth(field.value),
                _ => {}
            }
        }
        Ok(said)
    }

    /// Whether the body is as long as the connection, for the client.
    pub(crate) fn ends_with_stream(&self) -> bool {
        self.body == Length::UntilClose
            || self.body != Length::None && self.chunks == ChunkedOutput::Decoded
    }
}

/// The parameter of a Keep-Alive field (RFC 2068 section 19.7.1.1), as Apache, Node and Tomcat say it.
fn timeout(value: &[u8]) -> Option<Duration> {
    let seconds = |token: &[u8]| {
        let (name, seconds) = std::str::from_utf8(token).ok()?.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        let seconds: u32 = seconds.trim().parse().ok().filter(|_| is_timeout)?;
        Some(Duration::from_secs(seconds.into()))
    };
    tokens(value).find_map(seconds)
}
