//! What the first bytes of a client say.

use crate::host::Host;

/// Longest name of an application protocol (RFC 7301 section 3.1).
const ALPN_NAME_BYTES_MAX: usize = 255;

/// What a complete head says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The canonical name; `None` when the head is valid without one (no SNI; HTTP/1.0 without Host).
    pub name: Option<Host>,
    /// The ALPN protocols offered, comma-separated, escaped for the log; empty without the extension.
    pub alpn: Box<str>,
    /// Whether an encrypted_client_hello extension (0xfe0d) is present.
    pub ech: bool,
}

impl Head {
    /// The application protocol, when the client offers exactly one. Of several the backend chooses
    /// one, and those of an outer hello (ECH) may not be the ones that count. A name with bytes that
    /// are escaped in the log, such as GREASE, is no protocol that anybody speaks.
    pub fn only_alpn(&self) -> Option<&str> {
        let is_one = !self.alpn.is_empty() && self.alpn.len() <= ALPN_NAME_BYTES_MAX;
        let is_plain = !self.alpn.contains([',', '\\']);
        (is_one && is_plain && !self.ech).then_some(&*self.alpn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_protocol_is_named_only_when_it_is_the_only_one() {
        for (alpn, ech, only) in [
            ("", false, None),
            ("http/1.1", false, Some("http/1.1")),
            ("h2,http/1.1", false, None),
            ("\\x0a\\x0a", false, None),
            ("h2", true, None),
        ] {
            let head = Head {
                name: None,
                alpn: alpn.into(),
                ech,
            };
            assert_eq!(head.only_alpn(), only, "{alpn}");
        }
    }
}
