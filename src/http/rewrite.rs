//! Writes the heads that are forwarded, from what was understood: one Host, one field that states the
//! length, no field that belongs to one connection (RFC 9110 section 7.6.1), every line ended by CRLF.

use super::fields::{ConnectionOptions, Field, FieldName, is_named};
use super::forwarded::{Downstream, Forwarding};
use super::length::Length;
use super::request::RequestHead;
use super::response::ResponseHead;

/// What the proxy itself says in Allow (RFC 9110 section 10.2.1).
pub(crate) const METHODS_ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// What a response tells the client about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing: it stays open, which is the default of HTTP/1.1.
    Default,
    /// It stays open, which HTTP/1.0 has to be told.
    KeepAlive,
    /// It is closed behind this response.
    Close,
    /// It changes to another protocol.
    Upgrade,
}

/// The response to an OPTIONS or TRACE whose Max-Forwards is 0, so that the proxy is its final recipient
/// (RFC 9110 sections 9.3.7 and 9.3.8). `persistent` says whether the connection stays open.
pub(crate) fn final_recipient_response(head: &RequestHead<'_, '_>, persistent: bool) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut content = Vec::new();
    if head.method == b"TRACE" {
        out.extend_from_slice(b"Content-Type: message/http\r\n");
        write_trace_content(head, &mut content);
    } else {
        write_field(&mut out, "Allow", METHODS_ALLOWED.as_bytes());
    }
    write_length(Length::Bytes(content.len() as u64), &mut out);
    if !persistent {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&content);
    out
}

/// The request as it came, without credentials, which a script that made a browser send it must not see.
fn write_trace_content(head: &RequestHead<'_, '_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"TRACE ");
    write_target_and_host(head, out);
    for field in head.fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_secret = is("authorization") || is("proxy-authorization") || is("cookie");
        if !is_secret && FieldName::of(field.name) != FieldName::Host {
            write_field(out, field.name, field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the target, the version and the Host field for a backend.
fn write_target_and_host(head: &RequestHead<'_, '_>, out: &mut Vec<u8>) {
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
        write_field(out, "Host", authority);
    }
}

/// Appends the head of the request for a backend to `out`.
pub(crate) fn request(
    head: &RequestHead<'_, '_>,
    forwarding: &Forwarding,
    downstream: &Downstream,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(head.method);
    out.push(b' ');
    write_target_and_host(head, out);
    for field in head.fields {
        let name = FieldName::of(field.name);
        let passes = match name {
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
            _ if forwarding.drops(name, downstream) => false,
            _ => is_end_to_end(head.fields, head.options, field),
        };
        if passes {
            write_field(out, field.name, field.value);
        }
    }
    write_length(head.body, out);
    if let Some(left) = head.max_forwards {
        write_number(out, "Max-Forwards", u64::from(left.saturating_sub(1)));
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

/// Appends the head of the response for the client to `out`.
pub(crate) fn response(head: &ResponseHead<'_, '_>, persistence: Persistence, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = [
        b'0' + (head.status / 100) as u8,
        b'0' + (head.status / 10 % 10) as u8,
        b'0' + (head.status % 10) as u8,
        b' ',
    ];
    out.extend_from_slice(&status);
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
            _ => is_end_to_end(head.fields, head.options, field),
        };
        if passes && head.is_folded {
            write_field(out, field.name, &unfolded(field.value));
        } else if passes {
            write_field(out, field.name, field.value);
        }
    }
    write_length(head.stated_length, out);
    out.extend_from_slice(match persistence {
        Persistence::Default => b"".as_slice(),
        Persistence::KeepAlive => b"Connection: keep-alive\r\n",
        Persistence::Close => b"Connection: close\r\n",
        Persistence::Upgrade => b"Connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// The lines of a folded value as one, with a space between them (RFC 9112 section 5.2).
fn unfolded(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(&b' ')
}

/// Whether no Connection field names this field.
fn is_end_to_end(fields: &[Field<'_>], options: ConnectionOptions, field: &Field<'_>) -> bool {
    !(options.names_fields && is_named(fields, field.name))
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.trim_ascii());
    out.extend_from_slice(b"\r\n");
}

fn write_length(body: Length, out: &mut Vec<u8>) {
    match body {
        Length::None | Length::UntilClose => {}
        Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::Bytes(bytes) => write_number(out, "Content-Length", bytes),
    }
}

fn write_number(out: &mut Vec<u8>, name: &str, value: u64) {
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
    write_field(out, name, &digits[at..]);
}
