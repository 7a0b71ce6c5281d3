//! The fields that mean something to a proxy, and those that belong to one connection (RFC 9110
//! section 7.6.1). Nothing is copied.

/// A field as it was parsed.
pub(super) type Field<'b> = httparse::Header<'b>;

/// Most fields of a request. Browsers send about 20; the common servers stop between 100 (Apache,
/// HAProxy) and 2,000 (Node). Storage for these takes 8 KiB.
pub(super) const FIELDS_MAX: usize = 256;

/// Most heads have fewer fields: browsers send some 20, servers up to 50. Storage for them is
/// initialized for every head, at 32 bytes each.
const USUAL_FIELDS: usize = 48;

/// Storage for the fields of one head: on the stack of whoever reads it, and on the heap for the rare
/// head with more fields than usual.
pub struct FieldStorage<'b> {
    pub(super) usual: [Field<'b>; USUAL_FIELDS],
    pub(super) many: Vec<Field<'b>>,
}

impl<'b> FieldStorage<'b> {
    pub fn new() -> Self {
        FieldStorage {
            usual: [httparse::EMPTY_HEADER; USUAL_FIELDS],
            many: Vec::new(),
        }
    }
}

impl Default for FieldStorage<'_> {
    fn default() -> Self {
        FieldStorage::new()
    }
}

/// A field name that a proxy has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldName {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Upgrade,
    Expect,
    /// Belongs to one connection, whether Connection names it or not.
    KeepAlive,
    /// Belongs to one connection, as Keep-Alive does.
    ProxyConnection,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedPort,
    /// Any other X-Forwarded-*. It says something about the client that only a proxy can know.
    XForwardedOther,
    XRealIp,
    MaxForwards,
    /// CGI passes this field to programs as HTTP_PROXY, which makes them use that proxy (httpoxy).
    Proxy,
    /// A name that some servers take for one of the names here, because to CGI and its successors all
    /// characters but letters and digits are the same: `Content_Length`.
    Lookalike,
    /// Authorization, Proxy-Authenticate or WWW-Authenticate.
    Authentication,
    Other,
}

impl FieldName {
    pub(super) fn of(name: &str) -> FieldName {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => FieldName::Te,
            4 if is("host") => FieldName::Host,
            5 if is("proxy") => FieldName::Proxy,
            6 if is("expect") => FieldName::Expect,
            7 if is("upgrade") => FieldName::Upgrade,
            9 if is("forwarded") => FieldName::Forwarded,
            9 if is("x-real-ip") => FieldName::XRealIp,
            9 if is_alike(name, "x-real-ip") => FieldName::Lookalike,
            10 if is("connection") => FieldName::Connection,
            10 if is("keep-alive") => FieldName::KeepAlive,
            10 if is_alike(name, "keep-alive") => FieldName::Lookalike,
            12 if is("max-forwards") => FieldName::MaxForwards,
            12 if is_alike(name, "max-forwards") => FieldName::Lookalike,
            13 if is("authorization") => FieldName::Authentication,
            14 if is("content-length") => FieldName::ContentLength,
            14 if is_alike(name, "content-length") => FieldName::Lookalike,
            15 if is("x-forwarded-for") => FieldName::XForwardedFor,
            16 if is("proxy-connection") => FieldName::ProxyConnection,
            16 if is("x-forwarded-port") => FieldName::XForwardedPort,
            16 if is("www-authenticate") => FieldName::Authentication,
            16 if is_alike(name, "proxy-connection") => FieldName::Lookalike,
            17 if is("transfer-encoding") => FieldName::TransferEncoding,
            17 if is("x-forwarded-proto") => FieldName::XForwardedProto,
            17 if is_alike(name, "transfer-encoding") => FieldName::Lookalike,
            18 if is("proxy-authenticate") => FieldName::Authentication,
            11.. if is_alike(name, "x-forwarded") => FieldName::x_forwarded(name),
            _ => FieldName::Other,
        }
    }

    /// The kind of a name that begins with `X-Forwarded` or with a lookalike of that.
    fn x_forwarded(name: &str) -> FieldName {
        let (family, rest) = name.split_at("x-forwarded".len());
        let is_apart = |byte: &u8| !byte.is_ascii_alphanumeric();
        match rest.as_bytes().first() {
            Some(byte) if !is_apart(byte) => FieldName::Other,
            Some(b'-') | None if family.as_bytes()[1] == b'-' => FieldName::XForwardedOther,
            _ => FieldName::Lookalike,
        }
    }
}

/// Whether `name` begins with `known`, or with a lookalike of it.
fn is_alike(name: &str, known: &str) -> bool {
    name.bytes().zip(known.bytes()).all(|(byte, known)| {
        byte.eq_ignore_ascii_case(&known) || (known == b'-' && !byte.is_ascii_alphanumeric())
    })
}

/// Whether a field must not be a trailer, because it frames, routes or authorizes the message or says
/// who sent it (RFC 9110 section 6.5.1). `name` is in lower case.
pub(super) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const OTHERS: [&[u8]; 4] = [
        b"content-range",
        b"cookie",
        b"proxy-authorization",
        b"range",
    ];
    let is_other = |name| OTHERS.contains(&name);
    is_other(name) || str::from_utf8(name).is_ok_and(|name| FieldName::of(name) != FieldName::Other)
}

/// The longest name that [`is_forbidden_trailer`] knows.
pub(super) const FORBIDDEN_TRAILER_BYTES_MAX: usize = 19;

/// The options in the Connection fields of a head (RFC 9110 section 7.6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Whether some option is the name of a field that is dropped for it.
    pub(super) names_fields: bool,
}

impl ConnectionOptions {
    pub(super) fn read(&mut self, value: &[u8]) {
        for token in tokens(value) {
            let is = |known: &str| token.eq_ignore_ascii_case(known.as_bytes());
            match token.len() {
                0 => {}
                5 if is("close") => self.close = true,
                10 if is("keep-alive") => self.keep_alive = true,
                7 if is("upgrade") => self.upgrade = true,
                2 if is("te") => {}
                _ => self.names_fields = true,
            }
        }
    }

    /// Whether the sender keeps the connection open for another message (RFC 9112 section 9.3).
    pub(super) fn is_persistent(self, minor_version: u8) -> bool {
        !self.close && (minor_version > 0 || self.keep_alive)
    }
}

/// Whether a Connection field names this field, which is then not forwarded.
pub(super) fn is_named(fields: &[Field<'_>], name: &str) -> bool {
    fields
        .iter()
        .filter(|field| FieldName::of(field.name) == FieldName::Connection)
        .flat_map(|field| tokens(field.value))
        .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
}

/// The elements of a list (RFC 9110 section 5.6.1).
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether credentials authenticate the connection instead of the request, as those of NTLM and Negotiate
/// do. Such a connection must serve one client only.
pub(super) fn is_connection_auth(value: &[u8]) -> bool {
    let scheme = value.trim_ascii_start();
    let begins =
        |name: &[u8]| scheme.len() >= name.len() && scheme[..name.len()].eq_ignore_ascii_case(name);
    begins(b"ntlm") || begins(b"negotiate")
}
