//! What a backend answered a check: good, bad for which cause, or not yet complete. Pure.

use std::time::Duration;
use std::{fmt, io};

/// Why an answer is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    Refused,
    Silent(Duration),
    Closed,
    Alert(u8),
    Status(u16),
    /// Something else than TLS, or than HTTP/1.
    Foreign(&'static str),
    System(String),
    /// This machine lacks something, which says nothing about the backend.
    OwnFault(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Refused => write!(out, "connection refused"),
            Cause::Silent(span) => {
                write!(
                    out,
                    "no answer within {}",
                    humantime::format_duration(*span)
                )
            }
            Cause::Closed => write!(out, "closed without an answer"),
            Cause::Alert(number) => write!(out, "alert {number}"),
            Cause::Status(status) => write!(out, "status {status}"),
            Cause::Foreign(what) => write!(out, "answers, but not in {what}"),
            Cause::System(error) | Cause::OwnFault(error) => write!(out, "{error}"),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        const OWN_FAULTS: [i32; 5] = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EADDRNOTAVAIL,
        ];
        if error
            .raw_os_error()
            .is_some_and(|number| OWN_FAULTS.contains(&number))
        {
            return Cause::OwnFault(error.to_string());
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Cause::Closed,
            _ => Cause::System(error.to_string()),
        }
    }
}

/// `None`: more bytes are needed.
pub(super) type Answer = Option<Result<(), Cause>>;

/// What the first bytes of a TLS server say to a ClientHello: a ServerHello (RFC 8446 section 4.1.3,
/// HelloRetryRequest included) is good. A warning, such as unrecognized_name of old servers, may come
/// before it (RFC 6066 section 3).
pub(super) fn to_hello(mut bytes: &[u8]) -> Answer {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const WARNING: u8 = 1;
    const CLOSE_NOTIFY: u8 = 0;
    const SERVER_HELLO: u8 = 2;
    loop {
        match *bytes.first()? {
            ALERT => {
                let [level, number] = *bytes.get(5..7)? else {
                    return None;
                };
                if level != WARNING || number == CLOSE_NOTIFY {
                    return Some(Err(Cause::Alert(number)));
                }
                bytes = &bytes[7..];
            }
            HANDSHAKE => {
                return Some(match *bytes.get(5)? {
                    SERVER_HELLO => Ok(()),
                    _ => Err(Cause::Foreign("TLS")),
                });
            }
            _ => return Some(Err(Cause::Foreign("TLS"))),
        }
    }
}

/// What the first bytes of an HTTP/1 server say (RFC 9112 section 4): a status from `first` to `last`
/// is good.
pub(super) fn to_get(bytes: &[u8], (first, last): (u16, u16)) -> Answer {
    const FORM: &[u8] = b"HTTP/1.? ";
    let foreign = Some(Err(Cause::Foreign("HTTP/1")));
    let is_of_form = |(byte, form): (&u8, &u8)| byte == form || *form == b'?';
    if !bytes.iter().zip(FORM).all(is_of_form) {
        return foreign;
    }
    let status = bytes.get(FORM.len()..FORM.len() + 3)?;
    if !status.iter().all(u8::is_ascii_digit) {
        return foreign;
    }
    let digit = |sum, byte: &u8| sum * 10 + u16::from(byte - b'0');
    let status = status.iter().fold(0, digit);
    Some(match (first..=last).contains(&status) {
        true => Ok(()),
        false => Err(Cause::Status(status)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every prefix is incomplete, the whole is the answer.
    fn grows(bytes: &[u8], read: impl Fn(&[u8]) -> Answer) -> Answer {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{:?}", &bytes[..length]);
        }
        read(bytes)
    }

    #[test]
    fn a_server_hello_is_good_and_an_alert_is_told_by_its_number() {
        assert_eq!(grows(&[22, 3, 3, 0, 80, 2], to_hello), Some(Ok(())));
        let alert = grows(&[21, 3, 3, 0, 2, 2, 112], to_hello);
        assert_eq!(alert, Some(Err(Cause::Alert(112))));
        let closing = grows(&[21, 3, 3, 0, 2, 1, 0], to_hello);
        assert_eq!(closing, Some(Err(Cause::Alert(0))));
        let warned = [21, 3, 3, 0, 2, 1, 112, 22, 3, 3, 0, 80, 2];
        assert_eq!(grows(&warned, to_hello), Some(Ok(())));
        for foreign in [&b"HTTP/1.1 400 Bad Request"[..], &[22, 3, 1, 0, 80, 1]] {
            assert_eq!(to_hello(foreign), Some(Err(Cause::Foreign("TLS"))));
        }
    }

    #[test]
    fn a_status_is_good_within_its_range() {
        let read = |bytes: &[u8]| to_get(bytes, (200, 399));
        assert_eq!(grows(b"HTTP/1.0 399", read), Some(Ok(())));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n"), Some(Ok(())));
        assert_eq!(read(b"HTTP/1.1 503"), Some(Err(Cause::Status(503))));
        for foreign in [&b"SSH-2.0-"[..], b"HTTP/2 200", b"HTTP/1.1 2x0", b"\x15"] {
            assert_eq!(read(foreign), Some(Err(Cause::Foreign("HTTP/1"))));
        }
    }
}
