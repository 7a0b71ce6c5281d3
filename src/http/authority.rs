//! The authority of a request, `host[:port]` (RFC 3986 section 3.2): in the Host field, in an absolute
//! target and in the `:authority` of HTTP/2.

use super::fields::Field;
use crate::host::{Host, HostError};
use crate::refusal::Refusal;

/// An authority that names a valid host. The port may be empty; it is checked and not kept, because a
/// route says itself which port its backends have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority<'b> {
    pub host: Host,
    /// As it was sent, without the whitespace around it.
    pub text: &'b [u8],
}

impl<'b> Authority<'b> {
    pub(super) fn parse(text: &'b [u8]) -> Result<Authority<'b>, Refusal> {
        // An IPv6 address has to stand in brackets: without them its last colon could be that of a port.
        let host_end = match text.first() {
            Some(b'[') => {
                let bracket = text.iter().position(|byte| *byte == b']');
                bracket.ok_or(Refusal::HostBadName)? + 1
            }
            _ => {
                let colon = text.iter().position(|byte| *byte == b':');
                colon.unwrap_or(text.len())
            }
        };
        let (host, port) = text.split_at(host_end);
        match port {
            [] => {}
            [b':', digits @ ..] => check_port(digits)?,
            _ => return Err(Refusal::HostBadName),
        }
        let host = Host::parse(host).map_err(refusal)?;
        Ok(Authority { host, text })
    }

    /// What the Host field says; `None` when there is no such field.
    ///
    /// # Errors
    /// Also when there are two, or a list in one (RFC 9112 section 3.2).
    pub(super) fn of_host_field(fields: &[Field<'b>]) -> Result<Option<Authority<'b>>, Refusal> {
        let mut host = None;
        for field in fields {
            if field.name.eq_ignore_ascii_case("host") && host.replace(field.value).is_some() {
                return Err(Refusal::HostRepeated);
            }
        }
        let Some(value) = host else {
            return Ok(None);
        };
        let value = value.trim_ascii();
        if value.contains(&b',') {
            return Err(Refusal::HostList);
        }
        Authority::parse(value).map(Some)
    }
}

fn refusal(error: HostError) -> Refusal {
    match error {
        HostError::Empty => Refusal::HostEmpty,
        HostError::TooLong => Refusal::HostTooLong,
        HostError::BadByte(_) => Refusal::HostBadByte,
        HostError::BadLabel | HostError::BadLiteral | HostError::BadIdna => Refusal::HostBadName,
    }
}

fn check_port(digits: &[u8]) -> Result<(), Refusal> {
    let mut port = 0u16;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(Refusal::HostPort);
        }
        port = port
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u16::from(byte - b'0')))
            .ok_or(Refusal::HostPort)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_are_refused() {
        for (sent, want) in [
            ("", Refusal::HostEmpty),
            (":80", Refusal::HostEmpty),
            ("::1", Refusal::HostPort),
            ("2001:db8::1", Refusal::HostPort),
            ("[::1", Refusal::HostBadName),
            ("[::1]80", Refusal::HostBadName),
            ("[fe80::1%25eth0]", Refusal::HostBadName),
            ("a.test:99999", Refusal::HostPort),
            ("a.test:-1", Refusal::HostPort),
            ("a.test:80:80", Refusal::HostPort),
            ("a@b", Refusal::HostBadByte),
            ("a b", Refusal::HostBadByte),
            ("..", Refusal::HostBadName),
        ] {
            assert_eq!(Authority::parse(sent.as_bytes()), Err(want), "{sent}");
        }
    }
}
