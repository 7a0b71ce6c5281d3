//! Settings of the PROXY protocol: whose headers are trusted, and what headers to backends carry.

use std::net::SocketAddr;

use ipnet::IpNet;

/// The PROXY protocol, in and out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProxySettings {
    /// Networks of the senders whose headers are trusted.
    pub from: Vec<IpNet>,
    /// Whether these senders have to send a header.
    pub required: bool,
    /// Whether headers of version 2 to backends carry the JA4 fingerprint.
    pub ja4: bool,
}

impl ProxySettings {
    /// Whether a header from this sender is trusted.
    pub(crate) fn trusts(&self, sender: SocketAddr) -> bool {
        let sender = sender.ip().to_canonical();
        self.from.iter().any(|network| network.contains(&sender))
    }

    /// Whether every address of a family is trusted.
    pub(crate) fn trusts_everybody(&self) -> bool {
        self.from.iter().any(|network| network.prefix_len() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::network;

    #[test]
    fn networks_and_who_is_in_them() {
        let from = [
            "10.1.0.0/16",
            "192.0.2.7",
            "2001:db8::/32",
            "::ffff:192.0.2.9",
        ];
        let settings = ProxySettings {
            from: from.map(|text| network(text).unwrap()).to_vec(),
            ..ProxySettings::default()
        };
        for (sender, trusted) in [
            ("10.1.255.255:1", true),
            ("10.2.0.0:1", false),
            ("192.0.2.7:1", true),
            ("192.0.2.8:1", false),
            ("192.0.2.9:1", true),
            ("[::ffff:10.1.0.1]:1", true),
            ("[2001:db8:1::]:1", true),
            ("[2001:db9::]:1", false),
        ] {
            assert_eq!(
                settings.trusts(sender.parse().unwrap()),
                trusted,
                "{sender}"
            );
        }
        assert!(!settings.trusts_everybody());
        let everybody = ProxySettings {
            from: vec![network("10.0.0.0/8").unwrap(), network("::/0").unwrap()],
            ..ProxySettings::default()
        };
        assert!(everybody.trusts_everybody());
        assert!(!ProxySettings::default().trusts("127.0.0.1:1".parse().unwrap()));
    }
}
