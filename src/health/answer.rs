//! What a backend answers to a health check: a good answer, a bad one and why, or not yet a complete one.

use std::time::Duration;
use std::{fmt, io};

use super::check::StatusRange;

/// Why a health check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CheckFailure {
    Refused,
    /// No answer for this long.
    Timeout(Duration),
    Closed,
    /// A TLS alert, by its number.
    Alert(u8),
    Status(u16),
    /// The answer is not of this protocol.
    WrongProtocol(&'static str),
    System(String),
    /// This machine lacks something, such as a free descriptor. That says nothing about the backend.
    OwnFault(String),
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckFailure::Refused => write!(out, "connection refused"),
            CheckFailure::Timeout(span) => {
                let span = humantime::format_duration(*span);
                write!(out, "no answer within {span}")
            }
            CheckFailure::Closed => write!(out, "closed without an answer"),
            CheckFailure::Alert(number) => write!(out, "TLS alert {number}"),
            CheckFailure::Status(status) => write!(out, "status {status}"),
            CheckFailure::WrongProtocol(protocol) => write!(out, "the answer is not {protocol}"),
            CheckFailure::System(error) | CheckFailure::OwnFault(error) => write!(out, "{error}"),
        }
    }
}

impl From<io::Error> for CheckFailure {
    fn from(error: io::Error) -> CheckFailure {
        const OWN_FAULTS: [i32; 5] = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EADDRNOTAVAIL,
        ];
        let number = error.raw_os_error();
        if number.is_some_and(|number| OWN_FAULTS.contains(&number)) {
            return CheckFailure::OwnFault(error.to_string());
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => CheckFailure::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => CheckFailure::Closed,
            _ => CheckFailure::System(error.to_string()),
        }
    }
}

/// `None`: more bytes are needed.
pub(crate) type Answer = Option<Result<(), CheckFailure>>;

/// Reads the first bytes that a TLS server sends after a ClientHello. A ServerHello is good, and so is a
/// HelloRetryRequest, which is one (RFC 8446 section 4.1.3). Warnings may precede it, such as
/// unrecognized_name from old servers (RFC 6066 section 3).
pub(crate) fn read_server_hello(mut bytes: &[u8]) -> Answer {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const WARNING: u8 = 1;
    const CLOSE_NOTIFY: u8 = 0;
    const SERVER_HELLO: u8 = 2;
    let wrong_protocol = Some(Err(CheckFailure::WrongProtocol("TLS")));
    loop {
        match *bytes.first()? {
            ALERT => {
                let [level, number] = *bytes.get(5..7)? else {
                    return None;
                };
                if level != WARNING || number == CLOSE_NOTIFY {
                    return Some(Err(CheckFailure::Alert(number)));
                }
                bytes = &bytes[7..];
            }
            HANDSHAKE => {
                let is_server_hello = *bytes.get(5)? == SERVER_HELLO;
                return if is_server_hello {
                    Some(Ok(()))
                } else {
                    wrong_protocol
                };
            }
            _ => return wrong_protocol,
        }
    }
}

/// Reads the status in the first bytes of an HTTP/1 response (RFC 9112 section 4).
pub(crate) fn read_http_status(bytes: &[u8], good: StatusRange) -> Answer {
    const FORM: &[u8] = b"HTTP/1.? ";
    let wrong_protocol = Some(Err(CheckFailure::WrongProtocol("HTTP/1")));
    let is_of_form = |(byte, form): (&u8, &u8)| byte == form || *form == b'?';
    if !bytes.iter().zip(FORM).all(is_of_form) {
        return wrong_protocol;
    }
    let digits = bytes.get(FORM.len()..FORM.len() + 3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return wrong_protocol;
    }
    let add_digit = |sum, byte: &u8| sum * 10 + u16::from(byte - b'0');
    let status = digits.iter().fold(0, add_digit);
    Some(if good.contains(status) {
        Ok(())
    } else {
        Err(CheckFailure::Status(status))
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
    fn a_server_hello_is_good_and_an_alert_fails_with_its_number() {
        assert_eq!(
            grows(&[22, 3, 3, 0, 80, 2], read_server_hello),
            Some(Ok(()))
        );
        let alert = grows(&[21, 3, 3, 0, 2, 2, 112], read_server_hello);
        assert_eq!(alert, Some(Err(CheckFailure::Alert(112))));
        let closing = grows(&[21, 3, 3, 0, 2, 1, 0], read_server_hello);
        assert_eq!(closing, Some(Err(CheckFailure::Alert(0))));
        let warned = [21, 3, 3, 0, 2, 1, 112, 22, 3, 3, 0, 80, 2];
        assert_eq!(grows(&warned, read_server_hello), Some(Ok(())));
        for foreign in [&b"HTTP/1.1 400 Bad Request"[..], &[22, 3, 1, 0, 80, 1]] {
            assert_eq!(
                read_server_hello(foreign),
                Some(Err(CheckFailure::WrongProtocol("TLS")))
            );
        }
    }

    #[test]
    fn a_status_is_good_within_its_range() {
        let read = |bytes: &[u8]| read_http_status(bytes, StatusRange::default());
        assert_eq!(grows(b"HTTP/1.0 399", read), Some(Ok(())));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n"), Some(Ok(())));
        assert_eq!(read(b"HTTP/1.1 503"), Some(Err(CheckFailure::Status(503))));
        for foreign in [&b"SSH-2.0-"[..], b"HTTP/2 200", b"HTTP/1.1 2x0", b"\x15"] {
            assert_eq!(
                read(foreign),
                Some(Err(CheckFailure::WrongProtocol("HTTP/1")))
            );
        }
    }
}
