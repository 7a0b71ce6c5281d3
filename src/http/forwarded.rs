//! What a request tells a backend about the client that the backend does not see itself: the
//! X-Forwarded-* fields, X-Real-IP, and Forwarded (RFC 7239). What a client says about itself is passed
//! on only where the operator trusts that client; otherwise it is replaced.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::fields::{Field, FieldName};

/// Which fields are written; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub x_forwarded_for: bool,
    pub x_forwarded_proto: bool,
    pub x_forwarded_port: bool,
    pub x_real_ip: bool,
    pub forwarded: bool,
}

/// The connection that a request came by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Downstream {
    /// `None` for a client without an IP address.
    pub client: Option<IpAddr>,
    /// The port that the client connected to.
    pub port: u16,
    /// Whether the client is trusted to name those who came before it.
    pub trusted: bool,
}

impl Forwarding {
    pub(crate) const ALL: Forwarding = Forwarding {
        x_forwarded_for: true,
        x_forwarded_proto: true,
        x_forwarded_port: true,
        x_real_ip: true,
        forwarded: true,
    };

    pub(crate) fn is_off(&self) -> bool {
        *self == Forwarding::default()
    }

    /// Whether a field of the request is dropped: because [`Forwarding::write`] writes it again, or
    /// because it says something about a client that is not trusted. When no field is written, the
    /// operator has not said whom to trust, and all of them pass.
    pub(super) fn drops(&self, name: FieldName, downstream: &Downstream) -> bool {
        let is_written = match name {
            FieldName::XForwardedFor => self.x_forwarded_for,
            FieldName::XForwardedProto => self.x_forwarded_proto,
            FieldName::XForwardedPort => self.x_forwarded_port,
            FieldName::XRealIp => self.x_real_ip,
            FieldName::Forwarded => self.forwarded,
            FieldName::XForwardedOther => false,
            _ => return false,
        };
        is_written || !downstream.trusted && !self.is_off()
    }

    /// Writes the fields that are on. `fields` and `authority` are those of the request.
    pub(super) fn write(
        &self,
        downstream: &Downstream,
        fields: &[Field<'_>],
        authority: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        let client = ClientText(downstream.client);
        if self.x_forwarded_for {
            out.extend_from_slice(b"X-Forwarded-For: ");
            copy_list(fields, FieldName::XForwardedFor, downstream, out);
            write(out, format_args!("{client}\r\n"));
        }
        // Of these three, what a trusted client says stays.
        let mut keep_or_write = |name: FieldName, text: &str, value: fmt::Arguments<'_>| {
            out.extend_from_slice(text.as_bytes());
            match trusted_value(fields, name, downstream) {
                Some(kept) => out.extend_from_slice(kept),
                None => write(out, value),
            }
            out.extend_from_slice(b"\r\n");
        };
        if self.x_forwarded_proto {
            let http = format_args!("http");
            keep_or_write(FieldName::XForwardedProto, "X-Forwarded-Proto: ", http);
        }
        if self.x_forwarded_port {
            let port = format_args!("{}", downstream.port);
            keep_or_write(FieldName::XForwardedPort, "X-Forwarded-Port: ", port);
        }
        if self.x_real_ip {
            keep_or_write(FieldName::XRealIp, "X-Real-IP: ", format_args!("{client}"));
        }
        if self.forwarded {
            write_forwarded(downstream, fields, authority, out);
        }
    }
}

/// Writes Forwarded (RFC 7239 section 4).
fn write_forwarded(
    downstream: &Downstream,
    fields: &[Field<'_>],
    authority: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"Forwarded: ");
    copy_list(fields, FieldName::Forwarded, downstream, out);
    match downstream.client {
        Some(IpAddr::V6(address)) => write(out, format_args!("for=\"[{address}]\"")),
        client => write(out, format_args!("for={}", ClientText(client))),
    }
    // A host consists of letters, digits and what addresses need; nothing has to be escaped.
    if let Some(authority) = authority {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(authority);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=http\r\n");
}

/// The last value of a field, if the client is trusted and it is not empty.
fn trusted_value<'b>(
    fields: &[Field<'b>],
    name: FieldName,
    downstream: &Downstream,
) -> Option<&'b [u8]> {
    let mut fields = fields.iter().filter(|_| downstream.trusted);
    let last = fields.rfind(|field| FieldName::of(field.name) == name)?;
    Some(last.value.trim_ascii()).filter(|value| !value.is_empty())
}

/// Copies the elements of all fields of this name, if the client is trusted, and a comma behind each.
fn copy_list(fields: &[Field<'_>], name: FieldName, downstream: &Downstream, out: &mut Vec<u8>) {
    if !downstream.trusted {
        return;
    }
    for field in fields
        .iter()
        .filter(|field| FieldName::of(field.name) == name)
    {
        let value = field.value.trim_ascii();
        if !value.is_empty() {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
}

fn write(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    struct Bytes<'o>(&'o mut Vec<u8>);
    impl fmt::Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    Bytes(out)
        .write_fmt(arguments)
        .expect("writing to a Vec never fails");
}

/// The client as these fields spell it; `unknown` is RFC 7239's word for one without an address.
struct ClientText(Option<IpAddr>);

impl fmt::Display for ClientText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(out),
            None => out.write_str("unknown"),
        }
    }
}
