//! Heads written anew, out of what was understood: one Host, one statement of length, nothing that
//! ends with a connection (RFC 9110 section 7.6.1), every line ended by CRLF.

use super::fields::{ConnectionOptions, Field, FieldName, is_named};
use super::forwarded::{Downstream, Forwarding};
use super::length::Length;
use super::request::RequestHead;
use super::response::ResponseHead;

/// What this proxy carries (RFC 9110 section 10.2.1).
pub(crate) const METHODS_ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// What the client is told about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It goes on, as it does by default in HTTP/1.1.
    Default,
    /// It goes on, which a client of HTTP/1.0 has to be told.
    KeepAlive,
    /// This is the last response.
    Close,
    /// It is in another protocol from here on.
    Upgrade,
}

/// The answer to a request that came as far as it may (RFC 9110 sections 9.3.7 and 9.3.8), and whether
/// the connection goes on.
pub(crate) fn final_recipient_response(head: &RequestHead<'_, '_>, goes_on: bool) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut seen = Vec::new();
    if head.method == b"TRACE" {
        out.extend_from_slice(b"Content-Type: message/http\r\n");
        reflect(head, &mut seen);
    } else {
        line(&mut out, "Allow", METHODS_ALLOWED.as_bytes());
    }
    length(Length::Bytes(seen.len() as u64), &mut out);
    out.extend_from_slice(match goes_on {
        true => b"\r\n".as_slice(),
        false => b"Connection: close\r\n\r\n",
    });
    out.extend_from_slice(&seen);
    out
}

/// The request as it came, without what must not be shown to a script that sent it: what proves who
/// somebody is.
fn reflect(head: &RequestHead<'_, '_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"TRACE ");
    rest_of_line(head, out);
    for field in head.fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_secret = is("authorization") || is("proxy-authorization") || is("cookie");
        if !is_secret && FieldName::of(field.name) != FieldName::Host {
            line(out, field.name, field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The target, the version and the host, as a backend is to read them.
fn rest_of_line(head: &RequestHead<'_, '_>, out: &mut Vec<u8>) {
    match head.path {
        [] if head.method == b"OPTIONS" => out.push(b'*'),
        [] => out.push(b'/'),
        [b'?', ..] => out.push(b'/'),
        _ => {}
    }
    out.extend_from_slice(head.path);
    out.extend_from_slice(match head.minor_version {
        0 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    if let Some(authority) = head.authority {
        line(out, "Host", authority);
    }
}

/// Writes the request for the backend behind what is in `out`.
pub(crate) fn request(
    head: &RequestHead<'_, '_>,
    forwarding: &Forwarding,
    downstream: &Downstream,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(head.method);
    out.push(b' ');
    rest_of_line(head, out);
    for field in head.fields {
        let known = FieldName::of(field.name);
        let passes = match known {
            FieldName::Host
            | FieldName::Connection
            | FieldName::ContentLength
            | FieldName::TransferEncoding
            | FieldName::Te
            | FieldName::KeepAlive
            | FieldName::ProxyConnection
            | FieldName::Proxy
            | FieldName::Lookalike => false,
            FieldName::Upgrade => head.upgrade,
            FieldName::Expect => head.expects_continue,
            FieldName::MaxForwards if head.uses_max_forwards() => false,
            _ if forwarding.drops(known, downstream) => false,
            _ => ends_elsewhere(head.fields, head.options, field),
        };
        if passes {
            line(out, field.name, field.value);
        }
    }
    length(head.body, out);
    if let Some(left) = head.max_forwards {
        number(out, "Max-Forwards", u64::from(left.saturating_sub(1)));
    }
    if !forwarding.is_off() {
        forwarding.write(downstream, head.fields, head.authority, out);
    }
    out.extend_from_slice(match (head.upgrade, head.minor_version) {
        (true, _) => b"Connection: upgrade\r\n".as_slice(),
        (false, 0) => b"Connection: keep-alive\r\n",
        (false, _) if head.accepts_trailers => b"TE: trailers\r\nConnection: TE\r\n",
        (false, _) => b"",
    });
    out.extend_from_slice(b"\r\n");
}

/// Writes the response for the client behind what is in `out`.
pub(crate) fn response(head: &ResponseHead<'_, '_>, persistence: Persistence, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let hundreds = [
        b'0' + (head.status / 100) as u8,
        b'0' + (head.status / 10 % 10) as u8,
        b'0' + (head.status % 10) as u8,
        b' ',
    ];
    out.extend_from_slice(&hundreds);
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let upgrading = persistence == Persistence::Upgrade;
    for field in head.fields {
        let passes = match FieldName::of(field.name) {
            FieldName::Connection
            | FieldName::Te
            | FieldName::KeepAlive
            | FieldName::ProxyConnection => false,
            FieldName::TransferEncoding | FieldName::ContentLength => false,
            // 426 says which protocol is wanted (RFC 9110 section 15.5.22).
            FieldName::Upgrade => upgrading || head.status == 426,
            _ => ends_elsewhere(head.fields, head.options, field),
        };
        if passes && head.is_folded {
            line(out, field.name, &joined(field.value));
        } else if passes {
            line(out, field.name, field.value);
        }
    }
    length(head.announced, out);
    out.extend_from_slice(match persistence {
        Persistence::Default => b"".as_slice(),
        Persistence::KeepAlive => b"Connection: keep-alive\r\n",
        Persistence::Close => b"Connection: close\r\n",
        Persistence::Upgrade => b"Connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// The lines of a value as one, a blank between them (RFC 9112 section 5.2).
fn joined(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(&b' ')
}

fn ends_elsewhere(fields: &[Field<'_>], options: ConnectionOptions, field: &Field<'_>) -> bool {
    !(options.names_others && is_named(fields, field.name))
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.trim_ascii());
    out.extend_from_slice(b"\r\n");
}

fn length(body: Length, out: &mut Vec<u8>) {
    match body {
        Length::None | Length::UntilClose => {}
        Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::Bytes(bytes) => number(out, "Content-Length", bytes),
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    // The longest u64 has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    line(out, name, &digits[at..]);
}
