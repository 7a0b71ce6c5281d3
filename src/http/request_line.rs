//! The first line of a request (RFC 9112 section 3).

use super::authority::Authority;
use crate::refusal::Refusal;

/// What the request line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'l> {
    pub method: &'l [u8],
    /// What follows the authority of an absolute target, which may be empty or begin with `?`; of any
    /// other target, all of it.
    pub path: &'l [u8],
    /// That of an absolute target. It takes precedence over the Host field (RFC 9112 section 3.2.2).
    pub authority: Option<Authority<'l>>,
    /// The `x` of HTTP/1.x.
    pub minor_version: u8,
}

impl<'l> RequestLine<'l> {
    /// `line` is without its line end.
    pub(super) fn parse(line: &'l [u8]) -> Result<RequestLine<'l>, Refusal> {
        if line == b"PRI * HTTP/2.0" {
            return Err(Refusal::Http2Preface);
        }
        let (method, rest) = split_at_space(line).ok_or(Refusal::RequestLine)?;
        let (target, version) = split_at_space(rest).ok_or(Refusal::RequestLine)?;
        if method.is_empty() || target.is_empty() {
            return Err(Refusal::RequestLine);
        }
        // Clients must not send a fragment (RFC 9110 section 4.2.5), and servers differ on where it ends
        // the host or the path.
        if target.contains(&b'#') {
            return Err(Refusal::TargetFragment);
        }
        let minor_version = parse_version(version)?;
        if method == b"CONNECT" {
            return Err(Refusal::ConnectMethod);
        }
        let (authority, path) = match target {
            [b'/', ..] => (None, target),
            b"*" if method == b"OPTIONS" => (None, target),
            _ => {
                let (authority, path) = parse_absolute(target)?;
                (Some(authority), path)
            }
        };
        Ok(RequestLine {
            method,
            path,
            authority,
            minor_version,
        })
    }

    /// Whether the version requires a Host field: HTTP/1.1 and later minor versions do.
    pub(super) fn host_required(&self) -> bool {
        self.minor_version > 0
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

/// The minor version of HTTP/1. A higher one than 1 is served as 1.1 (RFC 9110 section 2.5).
fn parse_version(version: &[u8]) -> Result<u8, Refusal> {
    let number = version.strip_prefix(b"HTTP/").ok_or(Refusal::RequestLine)?;
    match number {
        [b'1', b'.', minor] if minor.is_ascii_digit() => Ok(minor - b'0'),
        [first, ..]
            if first.is_ascii_digit()
                && number
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'.') =>
        {
            Err(Refusal::HttpVersion)
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// The authority of an absolute target (RFC 9112 section 3.2.2), and the path and query behind it.
fn parse_absolute(target: &[u8]) -> Result<(Authority<'_>, &[u8]), Refusal> {
    let colon = target
        .windows(3)
        .position(|window| window == b"://")
        .ok_or(Refusal::TargetInvalid)?;
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
        return Err(if named {
            Refusal::TargetScheme
        } else {
            Refusal::TargetInvalid
        });
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains(&b'@') {
        return Err(Refusal::TargetUserinfo);
    }
    Ok((Authority::parse(authority)?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(line: &str) -> Result<Option<String>, Refusal> {
        RequestLine::parse(line.as_bytes())
            .map(|line| line.authority.map(|authority| authority.host.to_string()))
    }

    #[test]
    fn targets_that_are_routed() {
        for (line, want) in [
            ("GET / HTTP/1.1", None),
            ("M-SEARCH /a?b=http://c/ HTTP/1.0", None),
            ("GET //evil.test/ HTTP/1.1", None),
            ("OPTIONS * HTTP/1.1", None),
            ("GET http://b.test/ HTTP/1.1", Some("b.test")),
            ("GET HTTPS://B.TEST.:8443 HTTP/1.1", Some("b.test")),
            ("GET http://b.test?q HTTP/1.2", Some("b.test")),
            ("GET http://[::1]:80/ HTTP/1.1", Some("[::1]")),
            ("GET http://b.test:/ HTTP/1.1", Some("b.test")),
        ] {
            assert_eq!(authority(line), Ok(want.map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn request_lines_that_are_refused() {
        for (line, want) in [
            ("GET /", Refusal::RequestLine),
            ("GET  / HTTP/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.1 ", Refusal::RequestLine),
            ("GET / http/1.1", Refusal::RequestLine),
            ("GET / HTTP/x.1", Refusal::RequestLine),
            ("GET / RTSP/1.0", Refusal::RequestLine),
            ("GET / HTTP/", Refusal::RequestLine),
            ("GET / HTTP/2.0", Refusal::HttpVersion),
            ("GET / HTTP/3", Refusal::HttpVersion),
            ("GET / HTTP/1.10", Refusal::HttpVersion),
            ("GET / HTTP/0.9", Refusal::HttpVersion),
            ("PRI * HTTP/2.0", Refusal::Http2Preface),
            ("CONNECT a.test:443 HTTP/1.1", Refusal::ConnectMethod),
            ("GET * HTTP/1.1", Refusal::TargetInvalid),
            ("GET index.html HTTP/1.1", Refusal::TargetInvalid),
            ("GET a.test:80 HTTP/1.1", Refusal::TargetInvalid),
            ("GET http:/a.test/ HTTP/1.1", Refusal::TargetInvalid),
            ("GET ://a.test/ HTTP/1.1", Refusal::TargetInvalid),
            ("GET http://a.test#b/ HTTP/1.1", Refusal::TargetFragment),
            ("GET http://u@a.test/#b HTTP/1.1", Refusal::TargetFragment),
            ("GET /a#b HTTP/1.1", Refusal::TargetFragment),
            ("GET /# HTTP/1.1", Refusal::TargetFragment),
            ("OPTIONS *#b HTTP/1.1", Refusal::TargetFragment),
            ("GET # HTTP/1.1", Refusal::TargetFragment),
            ("GET ftp://a.test/ HTTP/1.1", Refusal::TargetScheme),
            ("GET http://u@a.test/ HTTP/1.1", Refusal::TargetUserinfo),
            ("GET http:///path HTTP/1.1", Refusal::HostEmpty),
            ("GET http://a.test:x/ HTTP/1.1", Refusal::HostPort),
            ("GET http://a\\b/ HTTP/1.1", Refusal::HostBadByte),
        ] {
            assert_eq!(authority(line), Err(want), "{line}");
        }
    }
}
