//! The head of a request. Where RFC 9112 lets a recipient choose, a head that two readers may read
//! differently is refused.

use super::authority::Authority;
use super::field_lines;
use super::fields::{
    ConnectionOptions, Field, FieldName, FieldStorage, is_connection_auth, tokens,
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
    /// The head is complete and valid.
    Found(RequestHead<'b, 's>),
    /// Valid so far; ask again with more bytes.
    More,
    Refused(Refusal),
}

/// A complete head. It borrows the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead<'b, 's> {
    pub method: &'b [u8],
    /// In origin or asterisk form. Of an absolute target, what follows the authority: it may be empty
    /// or begin with `?`.
    pub path: &'b [u8],
    /// The `x` of HTTP/1.x.
    pub minor_version: u8,
    /// The name to route by; `None` for HTTP/1.0 without one.
    pub host: Option<Host>,
    /// The value for the Host field that is forwarded: that of an absolute target, else that of the
    /// request's own Host field.
    pub authority: Option<&'b [u8]>,
    pub fields: &'s [Field<'b>],
    pub body: Length,
    /// Whether the client keeps the connection open for another request.
    pub persistent: bool,
    /// Whether the client waits for 100 Continue before it sends its body.
    pub expects_continue: bool,
    /// Whether the client asks to change to another protocol, and it is one that may be passed on.
    pub upgrade: bool,
    /// Max-Forwards, where the method uses it.
    pub max_forwards: Option<u32>,
    /// Whether the response may have trailers.
    pub accepts_trailers: bool,
    /// Whether its credentials authenticate the connection to the backend, which must then serve no
    /// other client.
    pub has_connection_auth: bool,
    /// Length of the head, leading empty lines included.
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

    /// Whether there is a body that its method gives no meaning to (RFC 9110 section 9.3). Some servers
    /// leave such a body unread and take it for the next request.
    pub(crate) fn has_unexpected_body(&self) -> bool {
        let methods: [&[u8]; 5] = [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"];
        self.has_body() && methods.contains(&self.method)
    }

    pub(super) fn uses_max_forwards(&self) -> bool {
        uses_max_forwards(self.method)
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        )
    }
}

/// Whether each recipient counts Max-Forwards down (RFC 9110 section 7.6.2).
fn uses_max_forwards(method: &[u8]) -> bool {
    matches!(method, b"TRACE" | b"OPTIONS")
}

/// Reads one head. It keeps positions only, never bytes, so that a head that arrives byte by byte costs
/// no more than one that arrives whole.
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

    /// `received` is everything since the last request ended: what the last call got, and more behind
    /// it. The answer depends on the bytes alone, not on how they were cut, and stays the same once it
    /// is not [`Reading::More`].
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
    let host_field = Authority::of_host_field(fields)?;
    if host_field.is_none() && line.host_required() {
        return Err(Refusal::HostMissing);
    }
    let mut values = FieldValues::default();
    for field in fields {
        values.read(field, &line)?;
    }
    let body = values.lengths.strict().map_err(refusal)?;
    let body = body.unwrap_or(Length::None);
    let has_body = !matches!(body, Length::None | Length::Bytes(0));
    let (host, authority) = match line.authority.or(host_field) {
        Some(authority) => (Some(authority.host), Some(authority.text)),
        None => (None, None),
    };
    Ok(RequestHead {
        method: line.method,
        path: line.path,
        minor_version: line.minor_version,
        host,
        authority,
        fields,
        body,
        persistent: values.options.is_persistent(line.minor_version),
        expects_continue: values.expects_continue && has_body,
        upgrade: values.upgrades.may_be_forwarded()
            && values.options.upgrade
            && line.minor_version > 0,
        max_forwards: values.max_forwards,
        accepts_trailers: values.accepts_trailers,
        has_connection_auth: values.has_connection_auth,
        head_bytes: parts.bytes,
        options: values.options,
    })
}

/// What the fields of a head say that matters to a proxy.
#[derive(Default)]
struct FieldValues {
    options: ConnectionOptions,
    lengths: LengthFields,
    upgrades: Upgrades,
    expects_continue: bool,
    max_forwards: Option<u32>,
    accepts_trailers: bool,
    has_connection_auth: bool,
}

impl FieldValues {
    fn read(&mut self, field: &Field<'_>, line: &RequestLine<'_>) -> Result<(), Refusal> {
        let value = field.value;
        match FieldName::of(field.name) {
            FieldName::Connection => self.options.read(value),
            FieldName::ContentLength => self.lengths.read_content_length(value).map_err(refusal)?,
            FieldName::TransferEncoding if line.minor_version == 0 => {
                return Err(Refusal::TransferEncodingVersion);
            }
            FieldName::TransferEncoding => {
                self.lengths
                    .read_transfer_encoding(value)
                    .map_err(refusal)?;
            }
            FieldName::Te => {
                self.accepts_trailers |=
                    tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            FieldName::Upgrade => self.upgrades.read(value),
            FieldName::MaxForwards if uses_max_forwards(line.method) => {
                let said = tokens(value).filter_map(parse_max_forwards);
                self.max_forwards = said.chain(self.max_forwards).min();
            }
            // HTTP/1.0 does not have it and ignores it.
            FieldName::Expect if line.minor_version == 0 => {}
            // 100-continue is the only expectation there is. Of a list, or of a value that looks like
            // it, one side would wait for a 100 Continue that the other does not send.
            FieldName::Expect => {
                let is_known = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
                if self.expects_continue || !is_known {
                    return Err(Refusal::Expect);
                }
                self.expects_continue = true;
            }
            FieldName::Authentication => self.has_connection_auth |= is_connection_auth(value),
            _ => {}
        }
        Ok(())
    }
}

/// The protocols that the Upgrade fields of a head name.
#[derive(Default)]
struct Upgrades {
    has_any: bool,
    has_http: bool,
}

impl Upgrades {
    fn read(&mut self, value: &[u8]) {
        self.has_any = true;
        self.has_http |= tokens(value).any(|token| {
            let name = token.split(|byte| *byte == b'/').next().unwrap_or(token);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            is("h2c") || is("h2") || name.len() >= 4 && name[..4].eq_ignore_ascii_case(b"http")
        });
    }

    /// Not when one of them is HTTP: the backend chooses which to use, and the requests of HTTP/2 could
    /// not be seen and routed.
    fn may_be_forwarded(&self) -> bool {
        self.has_any && !self.has_http
    }
}

/// The number in a Max-Forwards; one that is too large to count is the largest.
fn parse_max_forwards(value: &[u8]) -> Option<u32> {
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
