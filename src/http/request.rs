//! The head of a request: bytes → what it says, more needed, or a refusal by name.
//!
//! Where RFC 9112 lets a recipient choose, a head that two readers may read differently is refused.

use super::authority::Authority;
use super::field_lines;
use super::fields::{
    ConnectionOptions, Field, FieldName, FieldStorage, has_connection_auth, tokens,
};
use super::head_walk::{HeadParts, HeadWalk};
use super::length::{Length, LengthFault, LengthFields};
use super::request_line::RequestLine;
use crate::host::Host;
use crate::refusal::Refusal;

/// The three answers to "which request do these bytes begin with?".
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for a moment"
)]
pub enum Reading<'b, 's> {
    Found(RequestHead<'b, 's>),
    More,
    Refused(Refusal),
}

/// A complete head. It borrows the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead<'b, 's> {
    pub method: &'b [u8],
    /// In origin or asterisk form, or empty or beginning with `?` when the target was absolute.
    pub path: &'b [u8],
    pub minor_version: u8,
    /// The name to route by; `None`: HTTP/1.0 without one.
    pub host: Option<Host>,
    /// What the one Host field is to say: that of the request, or the target's authority.
    pub authority: Option<&'b [u8]>,
    pub fields: &'s [Field<'b>],
    pub body: Length,
    /// Whether the client is ready for another request on the connection.
    pub persistent: bool,
    /// Whether the client waits for 100 before it sends its body.
    pub expects_continue: bool,
    /// Whether the client asks for another protocol on this connection, and may.
    pub upgrade: bool,
    /// How often it may still be forwarded, where its method makes that count and it says so.
    pub max_forwards: Option<u32>,
    /// Whether trailers are welcome in the response.
    pub accepts_trailers: bool,
    /// Whether credentials in it stay with the backend's connection.
    pub has_connection_auth: bool,
    /// Of the head, leading empty lines included.
    pub head_bytes: usize,
    pub(super) options: ConnectionOptions,
}

impl RequestHead<'_, '_> {
    pub(crate) fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }

    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.body, Length::None | Length::Bytes(0))
    }

    /// Whether it has a body that its method gives no meaning to (RFC 9110 section 9.3), so that some
    /// servers leave it unread and take it for the next request.
    pub(crate) fn has_unexpected_body(&self) -> bool {
        let methods: [&[u8]; 5] = [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"];
        self.has_body() && methods.contains(&self.method)
    }

    /// Whether each recipient counts it (RFC 9110 section 7.6.2).
    pub(super) fn uses_max_forwards(&self) -> bool {
        matches!(self.method, b"TRACE" | b"OPTIONS")
    }

    /// Whether doing it twice is doing it once (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        )
    }
}

/// Walks the bytes of one head; keeps positions only.
#[derive(Debug, Clone)]
pub struct RequestReader {
    bytes_max: usize,
    walk: HeadWalk,
}

impl RequestReader {
    /// At most `bytes_max` bytes make a head, leading empty lines included.
    pub fn new(bytes_max: usize) -> RequestReader {
        RequestReader {
            bytes_max,
            walk: HeadWalk::default(),
        }
    }

    /// `received` is everything since the last request ended: what the last call got, and more
    /// behind it. The answer depends on the bytes alone, not on how they were cut.
    pub fn advance<'b, 's>(
        &mut self,
        received: &'b [u8],
        storage: &'s mut FieldStorage<'b>,
    ) -> Reading<'b, 's> {
        let within = &received[..received.len().min(self.bytes_max)];
        match self.walk.advance(within) {
            Ok(Some(parts)) => match parse(&parts, storage) {
                Ok(head) => Reading::Found(head),
                Err(refusal) => Reading::Refused(refusal),
            },
            Ok(None) if received.len() < self.bytes_max => Reading::More,
            Ok(None) => Reading::Refused(Refusal::RequestHeadTooLarge),
            Err(refusal) => Reading::Refused(refusal),
        }
    }
}

fn parse<'b, 's>(
    parts: &HeadParts<'b>,
    storage: &'s mut FieldStorage<'b>,
) -> Result<RequestHead<'b, 's>, Refusal> {
    let line = RequestLine::parse(parts.request_line)?;
    let fields = field_lines::parse(parts.fields, storage)?;
    let host = Authority::of_host_field(fields)?;
    if host.is_none() && line.host_required() {
        return Err(Refusal::HostMissing);
    }
    let mut options = ConnectionOptions::default();
    let mut lengths = LengthFields::default();
    let mut upgrades = Upgrades::default();
    let mut head = RequestHead {
        method: line.method,
        path: line.path,
        minor_version: line.minor_version,
        host: None,
        authority: None,
        fields,
        body: Length::None,
        persistent: false,
        expects_continue: false,
        upgrade: false,
        max_forwards: None,
        accepts_trailers: false,
        has_connection_auth: false,
        head_bytes: parts.bytes,
        options,
    };
    for field in fields {
        match FieldName::of(field.name) {
            FieldName::Connection => options.read(field.value),
            FieldName::ContentLength => {
                lengths.read_content_length(field.value).map_err(refusal)?
            }
            FieldName::TransferEncoding if line.minor_version == 0 => {
                return Err(Refusal::TransferEncodingVersion);
            }
            FieldName::TransferEncoding => lengths
                .read_transfer_encoding(field.value)
                .map_err(refusal)?,
            FieldName::Te => {
                head.accepts_trailers |=
                    tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            FieldName::Upgrade => upgrades.read(field.value),
            FieldName::MaxForwards if head.uses_max_forwards() => {
                let said = tokens(field.value).filter_map(forwards);
                head.max_forwards = said.chain(head.max_forwards).min();
            }
            // HTTP/1.0 knows none and ignores it. Of a list, or of what only looks like the one
            // expectation that exists, one of two readers waits for a word the other never says.
            FieldName::Expect if line.minor_version == 0 => {}
            FieldName::Expect => {
                let value = field.value.trim_ascii();
                if head.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expect);
                }
                head.expects_continue = true;
            }
            FieldName::Authentication => {
                head.has_connection_auth |= has_connection_auth(field.value)
            }
            _ => {}
        }
    }
    head.body = lengths.strict().map_err(refusal)?.unwrap_or(Length::None);
    head.expects_continue &= !matches!(head.body, Length::None | Length::Bytes(0));
    head.persistent = options.is_persistent(line.minor_version);
    head.upgrade = upgrades.may() && options.upgrade && line.minor_version > 0;
    head.options = options;
    if let Some(Authority { host, text }) = line.authority.or(host) {
        head.host = Some(host);
        head.authority = Some(text);
    }
    Ok(head)
}

/// The protocols that all Upgrade fields of a head ask for.
#[derive(Default)]
struct Upgrades {
    asked: bool,
    to_http: bool,
}

impl Upgrades {
    fn read(&mut self, value: &[u8]) {
        self.asked = true;
        self.to_http |= tokens(value).any(|token| {
            let name = token.split(|byte| *byte == b'/').next().unwrap_or(token);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            is("h2c") || is("h2") || name.len() >= 4 && name[..4].eq_ignore_ascii_case(b"http")
        });
    }

    /// An upgrade to HTTP/2 would put requests out of sight, and the backend chooses.
    fn may(&self) -> bool {
        self.asked && !self.to_http
    }
}

/// What a Max-Forwards says; more than can be counted is the most that can be.
fn forwards(value: &[u8]) -> Option<u32> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(value).ok().filter(|_| is_number)?;
    Some(digits.parse().unwrap_or(u32::MAX))
}

fn refusal(fault: LengthFault) -> Refusal {
    match fault {
        LengthFault::Number => Refusal::ContentLength,
        LengthFault::Differ => Refusal::ContentLengthsDiffer,
        LengthFault::Both => Refusal::LengthAndEncoding,
        LengthFault::Encoding => Refusal::TransferEncoding,
    }
}
