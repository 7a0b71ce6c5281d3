//! Which addresses backends may have. Anybody who can write a member into Redis, or an address under a DNS
//! name, reaches through the proxy what the proxy can reach. With the proxy's own address the proxy would
//! connect to itself until it has no descriptors left.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::member::{Member, MemberAddress};
use crate::protocol::Protocol;

/// Link-local addresses (RFC 3927, RFC 4291 section 2.5.6), under which machines in clouds find their own
/// credentials, and the IPv6 address of Amazon's metadata service. No backend has such an address.
const METADATA: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
    )),
];

/// The addresses that backends may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// The networks of all backends. Empty: every network but [`METADATA`].
    allowed: Vec<IpNet>,
    /// The addresses on which the proxy listens.
    listeners: Vec<(Protocol, SocketAddr)>,
    /// The addresses of this machine.
    local: Vec<IpAddr>,
}

/// Why a backend may not have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Metadata(IpAddr),
    /// It is in none of the allowed networks.
    Elsewhere(IpAddr),
    /// The proxy itself listens there.
    Own(IpAddr),
}

impl fmt::Display for Denied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Metadata(address) => write!(
                out,
                "{address} is link-local, where machines in clouds have their credentials; {}",
                self.remedy()
            ),
            Denied::Elsewhere(address) => write!(
                out,
                "{address} is in no network that --backend-allow lists; {}",
                self.remedy()
            ),
            Denied::Own(address) => write!(
                out,
                "{address} with that port is where this proxy listens, so that it would call itself; {}",
                self.remedy()
            ),
        }
    }
}

impl std::error::Error for Denied {}

impl Denied {
    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Denied::Metadata(address) | Denied::Elsewhere(address) | Denied::Own(address) => {
                *address
            }
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Denied::Metadata(_) => {
                "correct it, or list all networks of backends with --backend-allow"
            }
            Denied::Elsewhere(_) => "correct it, or list its network with --backend-allow",
            Denied::Own(_) => "write the server's own address and port",
        }
    }
}

impl AddressPolicy {
    pub(crate) fn new(allowed: Vec<IpNet>) -> AddressPolicy {
        AddressPolicy {
            allowed,
            ..AddressPolicy::default()
        }
    }

    /// Also denies the proxy's listeners, on a machine with these addresses.
    pub(crate) fn with_listeners(
        mut self,
        listeners: Vec<(Protocol, SocketAddr)>,
        local: Vec<IpAddr>,
    ) -> AddressPolicy {
        self.listeners = listeners;
        self.local = local;
        self
    }

    /// Checks that a backend may have this address. An IPv4-mapped IPv6 address counts as IPv4.
    ///
    /// # Errors
    /// [`Denied::Metadata`], [`Denied::Elsewhere`].
    pub(crate) fn validate_address(&self, address: IpAddr) -> Result<(), Denied> {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&address));
        if self.allowed.is_empty() && within(&METADATA) {
            Err(Denied::Metadata(address))
        } else if !self.allowed.is_empty() && !within(&self.allowed) {
            Err(Denied::Elsewhere(address))
        } else {
            Ok(())
        }
    }

    /// Checks that a backend at this address is not the proxy itself. Without a port the default port of
    /// each listener's protocol counts.
    ///
    /// # Errors
    /// [`Denied::Own`].
    pub(crate) fn validate_not_own(
        &self,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<(), Denied> {
        // A connection to the unspecified address goes to this machine.
        let reached = match address.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let is_own = |(protocol, listener): &(Protocol, SocketAddr)| {
            let bound = listener.ip().to_canonical();
            let is_local = || reached.is_loopback() || self.local.contains(&reached);
            port.unwrap_or(protocol.default_port()) == listener.port()
                && bound.is_ipv4() == reached.is_ipv4()
                && (bound == reached || bound.is_unspecified() && is_local())
        };
        if self.listeners.iter().any(is_own) {
            return Err(Denied::Own(address));
        }
        Ok(())
    }

    /// Checks the address of a member. A name is checked when it is resolved, and a unix socket is always
    /// allowed.
    ///
    /// # Errors
    /// Why a backend may not have the address.
    pub(crate) fn validate_member(&self, member: &Member) -> Result<(), Denied> {
        match &member.address {
            MemberAddress::Ip(address, port) => {
                self.validate_address(*address)?;
                self.validate_not_own(*address, *port)
            }
            MemberAddress::Name(..) | MemberAddress::Unix(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &AddressPolicy, address: &str) -> Result<(), Denied> {
        policy.validate_address(address.parse().unwrap())
    }

    #[test]
    fn by_default_everything_but_link_local_addresses() {
        let policy = AddressPolicy::default();
        for denied in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
        ] {
            let denied = check(&policy, denied).unwrap_err();
            assert!(matches!(denied, Denied::Metadata(_)), "{denied}");
        }
        for allowed in [
            "127.0.0.1",
            "10.0.0.1",
            "169.253.0.1",
            "::1",
            "fd00:ec2::253",
            "2001:db8::1",
        ] {
            assert_eq!(check(&policy, allowed), Ok(()), "{allowed}");
        }
    }

    #[test]
    fn the_proxy_itself_is_no_backend() {
        let listener = |protocol, text: &str| (protocol, text.parse().unwrap());
        let local = ["127.0.0.1", "10.0.0.5", "2001:db8::5"].map(|text| text.parse().unwrap());
        let policy = AddressPolicy::default().with_listeners(
            vec![
                listener(Protocol::Tls, "0.0.0.0:443"),
                listener(Protocol::Http, "10.0.0.5:8080"),
                listener(Protocol::Http, "[::]:80"),
            ],
            local.to_vec(),
        );
        for (member, is_own) in [
            ("10.0.0.5:443", true),
            ("127.0.0.9:443", true),
            ("0.0.0.0:443", true),
            ("[::ffff:10.0.0.5]:443", true),
            ("10.0.0.5", true),
            ("10.0.0.5:8080", true),
            ("[2001:db8::5]:80", true),
            ("[::1]", true),
            ("10.0.0.6:443", false),
            ("127.0.0.1:8080", false),
            ("10.0.0.5:80", false),
            ("[2001:db8::5]:443", false),
            ("[2001:db8::6]", false),
            ("unix:/run/a", false),
        ] {
            let checked = policy.validate_member(&Member::parse(member).unwrap());
            assert_eq!(checked.is_err(), is_own, "{member}: {checked:?}");
        }
    }

    #[test]
    fn with_a_list_that_alone() {
        let networks = ["10.1.0.0/16", "fd12::/16"].map(|text| text.parse().unwrap());
        let policy = AddressPolicy::new(networks.to_vec());
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd12::1", true),
            ("10.2.0.1", false),
            ("169.254.169.254", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(check(&policy, address).is_ok(), allowed, "{address}");
        }
        let member = |text: &str| policy.validate_member(&Member::parse(text).unwrap());
        assert!(member("10.1.0.1:443 proxy=v2").is_ok());
        assert!(member("app.test:80").is_ok() && member("unix:/run/a").is_ok());
        let said = member("[::1]:443").unwrap_err().to_string();
        assert!(said.contains("::1 is in no network") && said.contains("; correct it"));
    }
}
