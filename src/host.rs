//! Host names in one canonical form. Routing, the log and the keys in Redis all use it, so that two
//! spellings of one name are one name everywhere.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in bytes, without the trailing dot (RFC 1035 section 2.3.4: 255 on the wire).
const HOST_BYTES_MAX: usize = 253;

/// Longest label in bytes (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A validated name: lower case, no trailing dot, no port; an IPv6 address is in brackets and in
/// the form of RFC 5952. It holds its bytes inline, so that sniffing a name allocates nothing.
#[derive(Clone)]
pub struct Host {
    bytes: [u8; HOST_BYTES_MAX],
    length: u8,
}

/// Why some bytes are not a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// Nothing, or nothing but the trailing dot.
    Empty,
    /// More than [`HOST_BYTES_MAX`] bytes.
    TooLong,
    /// A byte that is no letter, digit, hyphen, underscore or dot.
    BadByte(u8),
    /// An empty label, or one of more than 63 bytes.
    BadLabel,
    /// It looks like an IP address and is not a valid one.
    BadLiteral,
    /// Unicode that IDNA (UTS 46) gives no A-label for.
    BadIdna,
}

impl Host {
    /// Reads a name as a client sends it: the host_name of an SNI, or the host part of a Host
    /// field or of an authority, its port already taken off.
    ///
    /// Letters are lower-cased and one trailing dot is dropped. Labels are letters, digits, hyphens
    /// and underscores, the last because names in use have them (RFC 2181 section 11); a hyphen may
    /// stand anywhere, as it does in names in use. Addresses are recognised: IPv4 as four decimal
    /// numbers, IPv6 with or without brackets, without a zone.
    ///
    /// # Errors
    ///
    /// The first [`HostError`] that applies; never panics, whatever the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Host, HostError> {
        if bytes.first() == Some(&b'[') {
            let inner = bytes[1..].strip_suffix(b"]");
            return Host::from_ipv6(inner.ok_or(HostError::BadLiteral)?);
        }
        if bytes.iter().filter(|byte| **byte == b':').count() >= 2 {
            return Host::from_ipv6(bytes);
        }
        let name = bytes.strip_suffix(b".").unwrap_or(bytes);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > HOST_BYTES_MAX {
            return Err(HostError::TooLong);
        }
        check_labels(name)?;
        if is_four_numbers(name) && ipv4(name).is_none() {
            return Err(HostError::BadLiteral);
        }
        let mut host = Host::copied(name);
        host.bytes.make_ascii_lowercase();
        Ok(host)
    }

    /// Reads a name as an operator types it: as [`Host::parse`], and Unicode becomes A-labels by
    /// UTS 46. ASCII is parsed as a client's bytes are, so that every name that a client can ask for can
    /// have a route. A wildcard is not a name: its star is a [`HostError::BadByte`].
    ///
    /// # Errors
    ///
    /// As [`Host::parse`], and [`HostError::BadIdna`].
    pub fn from_operator(text: &str) -> Result<Host, HostError> {
        if text.is_ascii() {
            return Host::parse(text.as_bytes());
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| HostError::BadIdna)?;
        Host::parse(ascii.as_bytes())
    }

    /// The canonical name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a host is ASCII")
    }

    /// The bytes of the canonical name, at most [`HOST_BYTES_MAX`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether the name is an IPv4 or IPv6 address, which no wildcard matches.
    pub fn is_ip_literal(&self) -> bool {
        let name = self.as_bytes();
        name.first() == Some(&b'[') || is_four_numbers(name)
    }

    fn from_ipv6(inner: &[u8]) -> Result<Host, HostError> {
        let text = std::str::from_utf8(inner).map_err(|_| HostError::BadLiteral)?;
        let address: Ipv6Addr = text.parse().map_err(|_| HostError::BadLiteral)?;
        Ok(Host::copied(format!("[{address}]").as_bytes()))
    }

    fn copied(name: &[u8]) -> Host {
        let mut bytes = [0; HOST_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        let length = u8::try_from(name.len()).expect("the length was checked");
        Host { bytes, length }
    }
}

fn check_labels(name: &[u8]) -> Result<(), HostError> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(bad) = name.iter().find(|byte| !allowed(byte)) {
        return Err(HostError::BadByte(*bad));
    }
    let mut labels = name.split(|byte| *byte == b'.');
    if labels.any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return Err(HostError::BadLabel);
    }
    Ok(())
}

/// Whether it has the form of an IPv4 address. `010.0.0.1` has it, and different programs read it as
/// different addresses; it is refused and not taken for a name.
fn is_four_numbers(name: &[u8]) -> bool {
    name.iter()
        .all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && name.iter().filter(|byte| **byte == b'.').count() == 3
}

fn ipv4(name: &[u8]) -> Option<Ipv4Addr> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Host {}

impl PartialOrd for Host {
    fn partial_cmp(&self, other: &Host) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Host {
    fn cmp(&self, other: &Host) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// As `str` hashes, which [`Borrow`] demands.
impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.as_str())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Empty => write!(f, "the name is empty; give a host name such as a.example"),
            HostError::TooLong => write!(
                f,
                "the name has more than {HOST_BYTES_MAX} bytes; DNS allows no longer one, shorten it"
            ),
            HostError::BadByte(byte) => write!(
                f,
                "the name holds '{}'; use only letters, digits, hyphens, underscores and dots",
                byte.escape_ascii()
            ),
            HostError::BadLabel => write!(
                f,
                "a label of the name is empty or longer than {LABEL_BYTES_MAX} bytes; \
                 remove the doubled or leading dot or shorten the label"
            ),
            HostError::BadLiteral => write!(
                f,
                "the name looks like an IP address and is not a valid one; write IPv4 as 192.0.2.1 \
                 and IPv6 as [2001:db8::1], without zone or leading zeros"
            ),
            HostError::BadIdna => write!(
                f,
                "the name holds Unicode that IDNA does not allow; give its xn-- form"
            ),
        }
    }
}

impl std::error::Error for HostError {}

/// Fuzz entry: asserts that a parsed name, parsed again, is the same name.
#[doc(hidden)]
pub fn fuzz_host(data: &[u8]) {
    if let Ok(host) = Host::parse(data) {
        assert_eq!(Host::parse(host.as_bytes()), Ok(host.clone()));
        assert_eq!(Host::from_operator(host.as_str()), Ok(host.clone()));
        assert!(host.as_bytes().iter().all(u8::is_ascii_graphic));
        assert!(!host.as_bytes().iter().any(u8::is_ascii_uppercase));
        assert!(!host.as_str().contains('*') && !host.as_str().ends_with('.'));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(host) = Host::from_operator(text)
    {
        assert_eq!(Host::parse(host.as_bytes()), Ok(host));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{H2C, HELLOS, REQUESTS};

    fn canonical(bytes: &[u8]) -> Result<String, HostError> {
        Host::parse(bytes).map(|host| host.to_string())
    }

    #[test]
    fn names_are_brought_into_one_form() {
        for (sent, want) in [
            ("a.test", "a.test"),
            ("A.TEST", "a.test"),
            ("a.test.", "a.test"),
            ("localhost", "localhost"),
            ("_dmarc.under_score.example", "_dmarc.under_score.example"),
            ("-x.example", "-x.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("1.2.3", "1.2.3"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("[2001:DB8:0:0:0:0:0:1]", "[2001:db8::1]"),
            ("[::FFFF:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ] {
            assert_eq!(canonical(sent.as_bytes()), Ok(want.to_owned()), "{sent}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let label_64 = "a".repeat(64);
        for (sent, want) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("..", HostError::BadLabel),
            ("a..test", HostError::BadLabel),
            (".a.test", HostError::BadLabel),
            ("a.test..", HostError::BadLabel),
            (label_64.as_str(), HostError::BadLabel),
            ("a\0.test", HostError::BadByte(0)),
            ("*.test", HostError::BadByte(b'*')),
            ("a.test:80", HostError::BadByte(b':')),
            ("a test", HostError::BadByte(b' ')),
            ("b\u{fc}cher", HostError::BadByte(0xc3)),
            ("256.0.0.1", HostError::BadLiteral),
            ("010.0.0.1", HostError::BadLiteral),
            ("[::1", HostError::BadLiteral),
            ("[::1]x", HostError::BadLiteral),
            ("[]", HostError::BadLiteral),
            ("[fe80::1%25eth0]", HostError::BadLiteral),
            ("[127.0.0.1]", HostError::BadLiteral),
            ("a:b:c", HostError::BadLiteral),
        ] {
            assert_eq!(canonical(sent.as_bytes()), Err(want), "{sent}");
        }
    }

    #[test]
    fn the_longest_name_is_253_bytes_without_its_dot() {
        let longest = format!("{}.{}", vec!["a".repeat(62); 4].join("."), "b");
        assert_eq!(longest.len(), HOST_BYTES_MAX);
        assert_eq!(canonical(longest.as_bytes()), Ok(longest.clone()));
        let dotted = format!("{longest}.");
        assert_eq!(canonical(dotted.as_bytes()), Ok(longest.clone()));
        let longer = format!("{longest}b");
        assert_eq!(canonical(longer.as_bytes()), Err(HostError::TooLong));
    }

    #[test]
    fn only_addresses_are_literals() {
        for (sent, want) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("1.2.3", false),
            ("a.test", false),
        ] {
            let host = Host::parse(sent.as_bytes()).unwrap();
            assert_eq!(host.is_ip_literal(), want, "{sent}");
        }
    }

    #[test]
    fn operators_may_type_unicode_and_clients_may_not() {
        let typed = Host::from_operator("B\u{fc}cher.Example").unwrap();
        assert_eq!(typed.as_str(), "xn--bcher-kva.example");
        assert_eq!(Host::parse(b"xn--bcher-kva.example"), Ok(typed));
        // A full-width star maps to a star under UTS 46 and must not become a wildcard.
        let star = Host::from_operator("\u{ff0a}.example");
        assert!(star.is_err(), "{star:?}");
        assert_eq!(
            Host::from_operator("xn--\u{fc}.example"),
            Err(HostError::BadIdna)
        );
    }

    #[test]
    fn every_error_says_what_and_what_to_do() {
        for error in [
            HostError::Empty,
            HostError::TooLong,
            HostError::BadByte(0),
            HostError::BadLabel,
            HostError::BadLiteral,
            HostError::BadIdna,
        ] {
            let text = error.to_string();
            assert!(text.contains(';') && text.is_ascii(), "{text}");
        }
    }

    #[test]
    fn the_fuzz_entry_holds_on_every_prefix_of_the_names_of_real_clients() {
        for fixture in HELLOS.iter().chain(REQUESTS).chain(H2C) {
            let name = fixture.verdict.as_bytes();
            (0..=name.len()).for_each(|end| fuzz_host(&name[..end]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_host(&data);
        }

        #[test]
        fn nearly_names(data in r"[a-zA-Z0-9._:\[\]*%-]{0,40}") {
            fuzz_host(data.as_bytes());
        }

        #[test]
        fn unicode_names(data in r"[a-zä-ÿα-ω一-三＊。.]{0,20}") {
            fuzz_host(data.as_bytes());
        }
    }
}
