//! The head of a response: bytes → what it says, more needed, or what is wrong with it.
//!
//! A backend is trusted to answer its own client and nothing else: a response whose end two
//! readers could see at different places is refused as a request would be.

use super::Field;
pub use super::fields::FieldRoom;
use super::fields::{Known, Lengths, Options, binds_connection, tokens};
use super::framing::Length;
use std::time::Duration;

/// Why a response cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFault {
    /// Its head breaks a rule, or where it ends is ambiguous.
    Invalid,
    /// Its head does not end within the limit.
    TooLarge,
}

/// What the request was, as far as its response depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub is_head: bool,
    pub minor_version: u8,
}

/// A complete head. It borrows the bytes it was read from.
#[derive(Debug)]
pub struct ResponseHead<'b, 's> {
    pub status: u16,
    pub reason: &'b str,
    pub fields: &'s [Field<'b>],
    pub body: Length,
    /// Whether the backend is ready for another request on the connection.
    pub persistent: bool,
    /// Whether the backend's connection belongs to one client from now on.
    pub binds_connection: bool,
    /// For how long the backend says that it keeps the connection for another request.
    pub kept_for: Option<Duration>,
    pub head_bytes: usize,
    pub(super) options: Options,
}

impl<'b, 's> ResponseHead<'b, 's> {
    /// `received` is everything since the last response ended; `None`: more is needed.
    ///
    /// # Errors
    /// Never on bytes that more bytes could make a sound head of, but where `bytes_max` are reached.
    pub fn parse(
        received: &'b [u8],
        bytes_max: usize,
        asked: Asked,
        room: &'s mut FieldRoom<'b>,
    ) -> Result<Option<ResponseHead<'b, 's>>, ResponseFault> {
        let within = &received[..received.len().min(bytes_max)];
        let mut response = httparse::Response::new(&mut room.usual);
        let mut parsed = response.parse(within);
        if parsed == Err(httparse::Error::TooManyHeaders) {
            response = httparse::Response::new(FieldRoom::for_many(&mut room.many));
            parsed = response.parse(within);
        }
        let head_bytes = match parsed {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if received.len() < bytes_max => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(ResponseFault::TooLarge);
            }
            Err(_) => return Err(ResponseFault::Invalid),
        };
        let (Some(status), Some(minor_version)) = (response.code, response.version) else {
            return Err(ResponseFault::Invalid);
        };
        if !(100..=599).contains(&status) {
            return Err(ResponseFault::Invalid);
        }
        let reason = response.reason.unwrap_or("");
        let fields: &'s [Field<'b>] = response.headers;
        let mut options = Options::default();
        let mut lengths = Lengths::default();
        let mut is_bound = false;
        let mut kept_for = None;
        for field in fields {
            let sound = match Known::of(field.name) {
                Known::Connection => {
                    options.read(field.value);
                    Ok(())
                }
                Known::ContentLength => lengths.read_length(field.value),
                Known::TransferEncoding => lengths.read_encoding(field.value),
                Known::KeepAlive => {
                    kept_for = timeout(field.value).or(kept_for);
                    Ok(())
                }
                Known::Authentication => {
                    is_bound |= binds_connection(field.value);
                    Ok(())
                }
                _ => Ok(()),
            };
            sound.map_err(|_| ResponseFault::Invalid)?;
        }
        let said = lengths.finish().map_err(|_| ResponseFault::Invalid)?;
        let body = match said {
            // RFC 9112 section 6.3, rules 1 and 2.
            _ if asked.is_head || status < 200 || status == 204 || status == 304 => Length::None,
            // Neither side of an HTTP/1.0 message knows chunks.
            Some(Length::Chunked) if minor_version == 0 || asked.minor_version == 0 => {
                return Err(ResponseFault::Invalid);
            }
            Some(length) => length,
            None => Length::UntilClose,
        };
        // To a request of HTTP/1.0 only a promise in words is one.
        let promised = asked.minor_version > 0 || options.keep_alive;
        Ok(Some(ResponseHead {
            status,
            reason,
            fields,
            body,
            persistent: promised
                && options.is_persistent(minor_version)
                && body != Length::UntilClose,
            binds_connection: is_bound,
            kept_for,
            head_bytes,
            options,
        }))
    }

    /// Whether another response to the same request follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// The parameter of a Keep-Alive field (RFC 2068 section 19.7.1.1), as Apache, Node and Tomcat say it.
fn timeout(value: &[u8]) -> Option<Duration> {
    let seconds = |token: &[u8]| {
        let (name, seconds) = std::str::from_utf8(token).ok()?.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        let seconds: u32 = seconds.trim().parse().ok().filter(|_| is_timeout)?;
        Some(Duration::from_secs(seconds.into()))
    };
    tokens(value).find_map(seconds)
}
