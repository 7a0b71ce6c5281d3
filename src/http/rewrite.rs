//! Heads written anew, out of what was understood: one Host, one statement of length, nothing that
//! ends with a connection (RFC 9110 section 7.6.1), every line ended by CRLF.

use super::Field;
use super::fields::{Known, Options, is_named};
use super::forwarded::{Forwarding, Hop};
use super::framing::Length;
use super::request::RequestHead;
use super::response::ResponseHead;

/// What the client is told about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It goes on, as it does by default in HTTP/1.1.
    Default,
    /// It goes on, which a client of HTTP/1.0 has to be told.
    KeepAlive,
    /// This is the last response.
    Close,
    /// It is in another protocol from here on.
    Upgrade,
}

/// Writes the request for the backend behind what is in `out`.
pub fn request(head: &RequestHead<'_, '_>, forwarding: &Forwarding, hop: &Hop, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method);
    out.push(b' ');
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
    for field in head.fields {
        let known = Known::of(field.name);
        let passes = match known {
            Known::Host
            | Known::Connection
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Te
            | Known::HopByHop
            | Known::Lookalike => false,
            Known::Upgrade => head.upgrade,
            Known::Expect => head.expects_continue,
            _ if forwarding.replaces(known) => false,
            _ => ends_elsewhere(head.fields, head.options, field),
        };
        if passes {
            line(out, field.name, field.value);
        }
    }
    length(head.body, out);
    if !forwarding.is_off() {
        forwarding.write(hop, head.fields, head.authority, out);
    }
    out.extend_from_slice(match (head.upgrade, head.minor_version) {
        (true, _) => b"Connection: upgrade\r\n".as_slice(),
        (false, 0) => b"Connection: keep-alive\r\n",
        (false, _) if head.takes_trailers => b"TE: trailers\r\nConnection: TE\r\n",
        (false, _) => b"",
    });
    out.extend_from_slice(b"\r\n");
}

/// Writes the response for the client behind what is in `out`.
pub fn response(head: &ResponseHead<'_, '_>, persistence: Persistence, out: &mut Vec<u8>) {
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
    // Of a response without body the length is that of the one that GET would have got.
    let mut announced = head.body != Length::None || head.is_interim() || head.status == 204;
    for field in head.fields {
        let passes = match Known::of(field.name) {
            Known::Connection | Known::Te | Known::HopByHop => false,
            Known::TransferEncoding if announced => false,
            Known::ContentLength => !std::mem::replace(&mut announced, true),
            // 426 says which protocol is wanted (RFC 9110 section 15.5.22).
            Known::Upgrade => upgrading || head.status == 426,
            _ => ends_elsewhere(head.fields, head.options, field),
        };
        if passes {
            line(out, field.name, field.value);
        }
    }
    length(head.body, out);
    out.extend_from_slice(match persistence {
        Persistence::Default => b"".as_slice(),
        Persistence::KeepAlive => b"Connection: keep-alive\r\n",
        Persistence::Close => b"Connection: close\r\n",
        Persistence::Upgrade => b"Connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

fn ends_elsewhere(fields: &[Field<'_>], options: Options, field: &Field<'_>) -> bool {
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
        Length::Bytes(bytes) => {
            // The longest u64 has 20 digits.
            let mut digits = [0; 20];
            let mut at = digits.len();
            let mut left = bytes;
            loop {
                at -= 1;
                digits[at] = b'0' + (left % 10) as u8;
                left /= 10;
                if left == 0 {
                    break;
                }
            }
            line(out, "Content-Length", &digits[at..]);
        }
    }
}
