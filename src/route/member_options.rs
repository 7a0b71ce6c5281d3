//! The options behind the address of a member, such as `proxy=v2 source=client`, separated by blanks.
//! Each may be there once, in any order. An unknown option is refused and not ignored: a server that
//! expects a PROXY header would not work without it.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::share::{Share, WEIGHT_MAX};

/// All options, for an error message.
const KNOWN: &str = "proxy=v1, proxy=v2, source=client, source=nat46:PREFIX/96, weight=NUMBER, \
    backup and max=NUMBER";

/// How a backend learns the address of its client. Two members with different deliveries are two backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Delivery {
    /// The PROXY header in front of the client's bytes; `None`: no header.
    pub(crate) proxy: Option<ProxyVersion>,
    pub(crate) source: Source,
}

/// A version of the PROXY protocol (HAProxy's proxy-protocol.txt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary; may carry more than addresses, such as the server name.
    V2,
}

/// The source address of a connection to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Source {
    /// The address that the kernel chooses by its routes.
    #[default]
    Own,
    /// The client's address.
    Client,
    /// An IPv6 address that carries the client's IPv4 address in its low 32 bits.
    Nat46(Nat46Prefix),
}

/// The upper 96 bits of an address that carries an IPv4 address (RFC 6052 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Nat46Prefix(Ipv6Addr);

/// Why a word is not an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OptionError {
    /// The whole word.
    Unknown(Box<str>),
    /// The option's name.
    Twice(&'static str),
    /// The text after `proxy=`.
    Proxy(Box<str>),
    /// The text after `source=`.
    Source(Box<str>),
    /// The text after `source=nat46:`.
    Prefix(Box<str>),
    /// The text after `weight=`.
    Weight(Box<str>),
    /// The text after `max=`.
    Max(Box<str>),
}

impl fmt::Display for OptionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Unknown(word) => write!(
                out,
                "option {word:?} is not known to this version; there are {KNOWN}"
            ),
            OptionError::Twice(name) => {
                write!(out, "the option {name} is there twice; remove one of them")
            }
            OptionError::Proxy(value) => write!(
                out,
                "{value:?} is no version of the PROXY protocol; write proxy=v1 or proxy=v2"
            ),
            OptionError::Source(value) => write!(
                out,
                "{value:?} is no source; write source=client or source=nat46:PREFIX/96, as in \
                 source=nat46:2001:db8:46::/96"
            ),
            OptionError::Prefix(value) => write!(
                out,
                "{value:?} is no prefix for IPv4 addresses; write a unicast IPv6 prefix of 96 bits \
                 whose last 32 bits are zero, as in 2001:db8:46::/96"
            ),
            OptionError::Weight(value) => write!(
                out,
                "{value:?} is no weight; write a number from 1 to {WEIGHT_MAX}, as in weight=3"
            ),
            OptionError::Max(value) => write!(
                out,
                "{value:?} is no number of connections; write one from 1 on, as in max=200"
            ),
        }
    }
}

impl std::error::Error for OptionError {}

/// Reads the options behind an address.
pub(super) fn parse<'a>(
    words: impl Iterator<Item = &'a str>,
) -> Result<(Delivery, Share), OptionError> {
    let (mut proxy, mut source) = (None, None);
    let (mut weight, mut backup, mut max) = (None, None, None);
    for word in words {
        match word.split_once('=') {
            Some(("proxy", value)) => once(&mut proxy, "proxy", parse_proxy(value)?)?,
            Some(("source", value)) => once(&mut source, "source", parse_source(value)?)?,
            Some(("weight", value)) => once(&mut weight, "weight", parse_weight(value)?)?,
            Some(("max", value)) => once(&mut max, "max", parse_max(value)?)?,
            None if word == "backup" => once(&mut backup, "backup", ())?,
            _ => return Err(OptionError::Unknown(word.into())),
        }
    }
    let delivery = Delivery {
        proxy,
        source: source.unwrap_or_default(),
    };
    let share = Share {
        weight: weight.unwrap_or(1),
        backup: backup.is_some(),
        connections_max: max,
    };
    Ok((delivery, share))
}

/// Each option with a blank before it, so that it can follow an address.
impl fmt::Display for Delivery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proxy {
            Some(ProxyVersion::V1) => write!(out, " proxy=v1")?,
            Some(ProxyVersion::V2) => write!(out, " proxy=v2")?,
            None => {}
        }
        match self.source {
            Source::Own => Ok(()),
            Source::Client => write!(out, " source=client"),
            Source::Nat46(prefix) => write!(out, " source=nat46:{prefix}"),
        }
    }
}

impl Nat46Prefix {
    /// The address that carries `client` (RFC 6052 section 2.2, prefix of 96 bits).
    pub(crate) fn embed(&self, client: std::net::Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0.to_bits() | u128::from(client.to_bits()))
    }
}

impl FromStr for Nat46Prefix {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Nat46Prefix, OptionError> {
        let refused = || OptionError::Prefix(text.into());
        let (address, length) = text.split_once('/').ok_or_else(refused)?;
        let address: Ipv6Addr = address.parse().map_err(|_| refused())?;
        let low_bits = address.to_bits() as u32;
        // ::/96 and ::ffff:0:0/96 are other forms of IPv4 addresses, which are not routed as IPv6. A
        // link-local source would need an interface, too.
        let upper_bits = address.to_bits() >> 32;
        let unicast = !address.is_multicast() && !address.is_unicast_link_local();
        let is_ipv4_again = matches!(upper_bits, 0 | 0xffff);
        if length != "96" || low_bits != 0 || !unicast || is_ipv4_again {
            return Err(refused());
        }
        Ok(Nat46Prefix(address))
    }
}

impl fmt::Display for Nat46Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/96", self.0)
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), OptionError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(OptionError::Twice(name)),
    }
}

fn parse_proxy(value: &str) -> Result<ProxyVersion, OptionError> {
    match value {
        "v1" => Ok(ProxyVersion::V1),
        "v2" => Ok(ProxyVersion::V2),
        _ => Err(OptionError::Proxy(value.into())),
    }
}

fn parse_source(value: &str) -> Result<Source, OptionError> {
    match value.split_once(':') {
        None if value == "client" => Ok(Source::Client),
        Some(("nat46", prefix)) => prefix.parse().map(Source::Nat46),
        _ => Err(OptionError::Source(value.into())),
    }
}

fn parse_weight(value: &str) -> Result<u16, OptionError> {
    Share::parse_weight(value).ok_or_else(|| OptionError::Weight(value.into()))
}

fn parse_max(value: &str) -> Result<NonZeroU32, OptionError> {
    Share::parse_max(value).ok_or_else(|| OptionError::Max(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Delivery, OptionError> {
        super::parse(text.split_ascii_whitespace()).map(|(delivery, _)| delivery)
    }

    #[test]
    fn the_share_of_a_member() {
        let share =
            |text: &str| super::parse(text.split_ascii_whitespace()).map(|(_, share)| share);
        assert_eq!(share("proxy=v2"), Ok(Share::default()));
        for text in [
            " weight=3",
            " weight=256 backup max=1",
            " backup",
            " max=4294967295",
        ] {
            assert_eq!(share(text).unwrap().to_string(), text);
        }
        for (text, error) in [
            ("weight=0", OptionError::Weight("0".into())),
            ("weight=257", OptionError::Weight("257".into())),
            ("weight=+1", OptionError::Weight("+1".into())),
            ("weight=", OptionError::Weight("".into())),
            ("max=0", OptionError::Max("0".into())),
            ("max=4294967296", OptionError::Max("4294967296".into())),
            ("backup=yes", OptionError::Unknown("backup=yes".into())),
            ("backup backup", OptionError::Twice("backup")),
            ("weight=1 weight=1", OptionError::Twice("weight")),
        ] {
            assert_eq!(share(text), Err(error.clone()), "{text}");
            assert!(error.to_string().contains("; "), "{error}");
        }
    }

    #[test]
    fn each_option_alone_together_and_in_any_order() {
        assert_eq!(parse(""), Ok(Delivery::default()));
        let prefix = Nat46Prefix("2001:db8:46::".parse().unwrap());
        for (text, proxy, source, printed) in [
            ("proxy=v1", Some(ProxyVersion::V1), Source::Own, " proxy=v1"),
            ("source=client", None, Source::Client, " source=client"),
            (
                "source=client\tproxy=v2",
                Some(ProxyVersion::V2),
                Source::Client,
                " proxy=v2 source=client",
            ),
            (
                "source=nat46:2001:DB8:46:0::/96",
                None,
                Source::Nat46(prefix),
                " source=nat46:2001:db8:46::/96",
            ),
        ] {
            let delivery = parse(text).unwrap();
            assert_eq!(delivery, Delivery { proxy, source }, "{text}");
            assert_eq!(delivery.to_string(), printed);
            assert_eq!(parse(printed), Ok(delivery));
        }
    }

    #[test]
    fn what_is_no_option_is_named_with_its_remedy() {
        let unknown = |text: &str| OptionError::Unknown(text.into());
        let source = |text: &str| OptionError::Source(text.into());
        for (text, error) in [
            ("wait=3", unknown("wait=3")),
            ("proxy", unknown("proxy")),
            ("Proxy=v2", unknown("Proxy=v2")),
            ("=v2", unknown("=v2")),
            ("proxy=", OptionError::Proxy("".into())),
            ("proxy=v3", OptionError::Proxy("v3".into())),
            ("proxy=v1 proxy=v1", OptionError::Twice("proxy")),
            (
                "source=client proxy=v2 source=nat46:2001:db8::/96",
                OptionError::Twice("source"),
            ),
            ("source=", source("")),
            ("source=own", source("own")),
            ("source=nat46", source("nat46")),
            ("source=client:1", source("client:1")),
        ] {
            assert_eq!(parse(text), Err(error.clone()), "{text}");
            let said = error.to_string();
            assert!(said.contains("; ") && said.is_ascii(), "{said}");
        }
    }

    #[test]
    fn a_prefix_has_96_bits_of_a_unicast_address() {
        for prefix in [
            "",
            "2001:db8::",
            "2001:db8::/64",
            "2001:db8::/096",
            "2001:db8::1/96",
            "10.0.0.0/96",
            "::/96",
            "::ffff:0:0/96",
            "ff02::/96",
            "fe80::/96",
        ] {
            let refused = Err(OptionError::Prefix(prefix.into()));
            assert_eq!(parse(&format!("source=nat46:{prefix}")), refused);
        }
        let prefix: Nat46Prefix = "64:ff9b::/96".parse().unwrap();
        let embedded = prefix.embed("192.0.2.33".parse().unwrap());
        assert_eq!(embedded, "64:ff9b::192.0.2.33".parse::<Ipv6Addr>().unwrap());
    }
}
