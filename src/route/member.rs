//! A member: a backend as an operator writes it. It is an address (`host`, `host:port`, `[v6]:port` or
//! `unix:/path`) and options behind it, such as `proxy=v2`, separated by blanks. A member means the same in
//! Redis, in the routes file and after `--route`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::member_options::{self, Delivery, OptionError, Source};
use super::share::Share;
use crate::host::{Host, HostError};

/// Longest member in bytes. A name of 253 bytes with a port and every option is far shorter; the rest is
/// room for options to come.
const MEMBER_BYTES_MAX: usize = 1024;

/// Longest path of a unix socket in bytes: sun_path holds 108 with its NUL (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A valid member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) address: MemberAddress,
    pub(crate) delivery: Delivery,
    pub(crate) share: Share,
}

/// The address of a member. Without a port the protocol's default port applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MemberAddress {
    Ip(IpAddr, Option<u16>),
    /// A DNS name in canonical form.
    Name(Box<str>, Option<u16>),
    Unix(Arc<Path>),
}

/// Why a text is no [`Member`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberError {
    Empty,
    TooLong(usize),
    Nul,
    Option(OptionError),
    /// A unix socket has no source address; the option as it prints.
    SourceNeedsInet(Box<str>),
    /// `source=nat46` is for IPv6 backends, and this address is IPv4.
    Nat46NeedsIpv6,
    /// The text after the colon.
    Port(Box<str>),
    /// Several colons without brackets, so it is not clear where the address ends.
    BareIpv6,
    BadIpv6,
    UnixPath,
    Host(HostError),
}

impl fmt::Display for MemberError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberError::Empty => write!(out, "the member is empty; write host or host:port"),
            MemberError::TooLong(bytes) => write!(
                out,
                "the member has {bytes} bytes; at most {MEMBER_BYTES_MAX} are allowed"
            ),
            MemberError::Nul => write!(out, "the member contains a NUL byte; remove it"),
            MemberError::Option(error) => error.fmt(out),
            MemberError::SourceNeedsInet(source) => write!(
                out,
                "a unix socket has no source address; remove{source} or write proxy=v2, which sends the \
                 client's address in a header"
            ),
            MemberError::Nat46NeedsIpv6 => write!(
                out,
                "source=nat46 makes IPv6 sources and the backend is an IPv4 address; write source=client"
            ),
            MemberError::Port(port) => {
                write!(out, "{port:?} is no port; write a number from 1 to 65535")
            }
            MemberError::BareIpv6 => write!(
                out,
                "several colons; write an IPv6 address in brackets, as in [2001:db8::1]:443"
            ),
            MemberError::BadIpv6 => write!(
                out,
                "not an IPv6 address in brackets; write [2001:db8::1] or [2001:db8::1]:443"
            ),
            MemberError::UnixPath => write!(
                out,
                "a unix socket is unix: and an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes, as in \
                 unix:/run/app.sock"
            ),
            MemberError::Host(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for MemberError {}

impl Member {
    /// Reads one member. Blanks around it are ignored.
    pub(crate) fn parse(text: &str) -> Result<Member, MemberError> {
        if text.len() > MEMBER_BYTES_MAX {
            return Err(MemberError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(MemberError::Nul);
        }
        let mut words = text.split_ascii_whitespace();
        let address = words.next().ok_or(MemberError::Empty)?;
        let address = parse_address(address)?;
        let (delivery, share) = member_options::parse(words).map_err(MemberError::Option)?;
        match (&address, delivery.source) {
            (MemberAddress::Unix(_), Source::Client | Source::Nat46(_)) => {
                let source = Delivery {
                    proxy: None,
                    ..delivery
                };
                Err(MemberError::SourceNeedsInet(source.to_string().into()))
            }
            (MemberAddress::Ip(IpAddr::V4(_), _), Source::Nat46(_)) => {
                Err(MemberError::Nat46NeedsIpv6)
            }
            _ => Ok(Member {
                address,
                delivery,
                share,
            }),
        }
    }

    /// Whether both are the same backend, whatever their shares.
    pub(crate) fn is_same_backend(&self, other: &Member) -> bool {
        self.address == other.address && self.delivery == other.delivery
    }
}

impl fmt::Display for Member {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match &self.address {
            MemberAddress::Ip(IpAddr::V4(address), port) => {
                write!(out, "{address}")?;
                port
            }
            MemberAddress::Ip(IpAddr::V6(address), port) => {
                write!(out, "[{address}]")?;
                port
            }
            MemberAddress::Name(name, port) => {
                write!(out, "{name}")?;
                port
            }
            MemberAddress::Unix(path) => {
                write!(out, "unix:{}", path.display())?;
                &None
            }
        };
        port.map_or(Ok(()), |port| write!(out, ":{port}"))?;
        self.delivery.fmt(out)?;
        self.share.fmt(out)
    }
}

fn parse_address(text: &str) -> Result<MemberAddress, MemberError> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = Path::new(path);
        let bytes = path.as_os_str().as_bytes();
        if !path.is_absolute() || bytes.len() > UNIX_PATH_BYTES_MAX {
            return Err(MemberError::UnixPath);
        }
        return Ok(MemberAddress::Unix(path.into()));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(MemberError::BadIpv6)?;
        let address: Ipv6Addr = address.parse().map_err(|_| MemberError::BadIpv6)?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if after.is_empty() => None,
            None => return Err(MemberError::BadIpv6),
        };
        return Ok(MemberAddress::Ip(address.to_canonical(), port));
    }
    let (name, port) = match text.split_once(':') {
        Some((_, after)) if after.contains(':') => return Err(MemberError::BareIpv6),
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Ok(MemberAddress::Ip(address.into(), port));
    }
    let host = Host::from_operator(name).map_err(MemberError::Host)?;
    if host.is_ip_literal() {
        return Err(MemberError::Host(HostError::BadLiteral));
    }
    Ok(MemberAddress::Name(host.as_str().into(), port))
}

fn parse_port(text: &str) -> Result<u16, MemberError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(MemberError::Port(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_the_schema() {
        for (text, printed) in [
            ("10.0.0.7", "10.0.0.7"),
            (" 10.0.0.7:443\t", "10.0.0.7:443"),
            ("[2001:DB8:0::1]:8443", "[2001:db8::1]:8443"),
            ("[::1]", "[::1]"),
            ("[::ffff:10.0.0.7]:1", "10.0.0.7:1"),
            ("App.Example.:65535", "app.example:65535"),
            ("localhost", "localhost"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            (
                "unix:/run/app.sock  proxy=v1",
                "unix:/run/app.sock proxy=v1",
            ),
            (
                "10.0.0.7:443 source=client\tproxy=v2 ",
                "10.0.0.7:443 proxy=v2 source=client",
            ),
            (
                "app.test source=nat46:2001:db8::/96",
                "app.test source=nat46:2001:db8::/96",
            ),
        ] {
            assert_eq!(Member::parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn every_refusal_has_its_name() {
        let port = |text: &str| MemberError::Port(text.into());
        for (text, error) in [
            ("", MemberError::Empty),
            (" \t", MemberError::Empty),
            (&*"a".repeat(1025), MemberError::TooLong(1025)),
            ("10.0.0.7\0", MemberError::Nul),
            (
                "10.0.0.7 wait=3",
                MemberError::Option(OptionError::Unknown("wait=3".into())),
            ),
            (
                "10.0.0.7 proxy=v2 proxy=v1",
                MemberError::Option(OptionError::Twice("proxy")),
            ),
            ("proxy=v2", MemberError::Host(HostError::BadByte(b'='))),
            (
                "unix:/run/a proxy=v2 source=client",
                MemberError::SourceNeedsInet(" source=client".into()),
            ),
            (
                "10.0.0.7 source=nat46:2001:db8::/96",
                MemberError::Nat46NeedsIpv6,
            ),
            ("10.0.0.7:0", port("0")),
            ("10.0.0.7:70000", port("70000")),
            ("10.0.0.7:", port("")),
            ("10.0.0.7:+80", port("+80")),
            ("http://10.0.0.7", port("//10.0.0.7")),
            ("::1", MemberError::BareIpv6),
            ("a:1:2", MemberError::BareIpv6),
            ("[::1", MemberError::BadIpv6),
            ("[::1]80", MemberError::BadIpv6),
            ("[10.0.0.7]", MemberError::BadIpv6),
            ("unix:relative", MemberError::UnixPath),
            ("unix:", MemberError::UnixPath),
            (
                &*format!("unix:/{}", "a".repeat(107)),
                MemberError::UnixPath,
            ),
            ("a..b:80", MemberError::Host(HostError::BadLabel)),
            (":80", MemberError::Host(HostError::Empty)),
        ] {
            assert_eq!(Member::parse(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_member(
            address in prop_oneof![
                (any::<IpAddr>(), proptest::option::of(1u16..))
                    .prop_map(|(ip, port)| MemberAddress::Ip(ip.to_canonical(), port)),
                ("[a-z][a-z0-9-]{0,20}(\\.[a-z][a-z0-9]{0,10}){0,3}", proptest::option::of(1u16..))
                    .prop_map(|(name, port)| MemberAddress::Name(name.into(), port)),
                "/[a-z/._-]{0,100}".prop_map(|path| MemberAddress::Unix(Path::new(&path).into())),
            ],
            options in prop::sample::select(&["", " proxy=v1", " proxy=v2 weight=2", " backup max=9"][..]),
        ) {
            let (delivery, share) = member_options::parse(options.split_ascii_whitespace()).unwrap();
            let member = Member { address, delivery, share };
            prop_assert_eq!(Member::parse(&member.to_string()), Ok(member));
        }

        #[test]
        fn garbage_is_refused_or_prints_to_itself(text in "\\PC{0,60}") {
            if let Ok(member) = Member::parse(&text) {
                prop_assert_eq!(Member::parse(&member.to_string()), Ok(member));
            }
        }
    }
}
