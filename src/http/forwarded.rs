//! What a backend is told about the client that it does not see itself: X-Forwarded-For and its
//! like, and Forwarded (RFC 7239). What a client says of itself is believed only where the operator
//! trusts the client; everywhere else it is replaced.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::fields::{Field, Known};

/// Which fields are written. None of them is the default, and costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// X-Forwarded-For.
    pub address: bool,
    /// X-Forwarded-Proto.
    pub protocol: bool,
    /// X-Forwarded-Port.
    pub port: bool,
    /// X-Real-IP.
    pub real_ip: bool,
    /// Forwarded.
    pub standard: bool,
}

/// The way from the client to here, as one connection knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hop {
    /// `None`: a client without an IP address.
    pub client: Option<IpAddr>,
    /// Where the client connected to.
    pub port: u16,
    /// Whether what the client says of those before it is believed.
    pub trusted: bool,
}

impl Forwarding {
    pub(crate) const ALL: Forwarding = Forwarding {
        address: true,
        protocol: true,
        port: true,
        real_ip: true,
        standard: true,
    };

    pub(crate) fn is_off(&self) -> bool {
        *self == Forwarding::default()
    }

    /// Whether a field that came is left out: because it is written anew by [`Forwarding::write`], or
    /// because it speaks for a client who is not believed. Where nothing is written, nobody has said
    /// who is to be believed, and all pass.
    pub(super) fn leaves_out(&self, known: Known, hop: &Hop) -> bool {
        let is_written = match known {
            Known::ForwardedFor => self.address,
            Known::ForwardedProto => self.protocol,
            Known::ForwardedPort => self.port,
            Known::RealIp => self.real_ip,
            Known::Forwarded => self.standard,
            Known::ForwardedOther => false,
            _ => return false,
        };
        is_written || !hop.trusted && !self.is_off()
    }

    /// Writes the fields that are on; `fields` are those that came.
    pub(super) fn write(
        &self,
        hop: &Hop,
        fields: &[Field<'_>],
        authority: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        let client = Client(hop.client);
        if self.address {
            out.extend_from_slice(b"X-Forwarded-For: ");
            append_to(fields, Known::ForwardedFor, hop, out);
            write(out, format_args!("{client}\r\n"));
        }
        let kept = |known, out: &mut Vec<u8>| {
            let said = fields.iter().rfind(|field| Known::of(field.name) == known);
            match said.filter(|field| hop.trusted && !field.value.trim_ascii().is_empty()) {
                Some(field) => {
                    out.extend_from_slice(field.value.trim_ascii());
                    true
                }
                None => false,
            }
        };
        if self.protocol {
            out.extend_from_slice(b"X-Forwarded-Proto: ");
            if !kept(Known::ForwardedProto, out) {
                out.extend_from_slice(b"http");
            }
            out.extend_from_slice(b"\r\n");
        }
        if self.port {
            out.extend_from_slice(b"X-Forwarded-Port: ");
            if !kept(Known::ForwardedPort, out) {
                write(out, format_args!("{}", hop.port));
            }
            out.extend_from_slice(b"\r\n");
        }
        if self.real_ip {
            out.extend_from_slice(b"X-Real-IP: ");
            if !kept(Known::RealIp, out) {
                write(out, format_args!("{client}"));
            }
            out.extend_from_slice(b"\r\n");
        }
        if self.standard {
            out.extend_from_slice(b"Forwarded: ");
            append_to(fields, Known::Forwarded, hop, out);
            match hop.client {
                Some(IpAddr::V6(address)) => write(out, format_args!("for=\"[{address}]\"")),
                _ => write(out, format_args!("for={client}")),
            }
            // A host is letters, digits and what stands in addresses: nothing to escape.
            if let Some(authority) = authority {
                out.extend_from_slice(b";host=\"");
                out.extend_from_slice(authority);
                out.push(b'"');
            }
            out.extend_from_slice(b";proto=http\r\n");
        }
    }
}

/// The elements that came from a trusted client, and a comma behind them.
fn append_to(fields: &[Field<'_>], known: Known, hop: &Hop, out: &mut Vec<u8>) {
    if !hop.trusted {
        return;
    }
    for field in fields.iter().filter(|field| Known::of(field.name) == known) {
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
        .expect("a Vec takes everything");
}

/// As these fields spell a client; `unknown` is RFC 7239's word for one without address.
struct Client(Option<IpAddr>);

impl fmt::Display for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(out),
            None => out.write_str("unknown"),
        }
    }
}
