//! The networks in which backends may be. Who can write a member into Redis, or an address under a DNS
//! name, reaches with it what the proxy can reach.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::route::{Member, MemberAddress};

/// Where machines in clouds find their own credentials, and neighbours on the link, which no backend
/// of a reverse proxy is. RFC 3927, RFC 4291 section 2.5.6, and the IPv6 address of Amazon's metadata.
const METADATA: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(169, 254, 0, 0),
        16,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
    )),
];

/// Which addresses may be a backend's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendPolicy {
    /// All of them; none: everything but [`METADATA`].
    allowed: Vec<IpNet>,
}

/// Why an address may not be a backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Metadata(IpAddr),
    Elsewhere(IpAddr),
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
        }
    }
}

impl std::error::Error for Denied {}

impl Denied {
    pub fn address(&self) -> IpAddr {
        match self {
            Denied::Metadata(address) | Denied::Elsewhere(address) => *address,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Denied::Metadata(_) => {
                "correct it, or list all networks of backends with --backend-allow"
            }
            Denied::Elsewhere(_) => "correct it, or list its network with --backend-allow",
        }
    }
}

impl BackendPolicy {
    pub fn new(allowed: Vec<IpNet>) -> BackendPolicy {
        BackendPolicy { allowed }
    }

    /// Whether a backend may be at this address; one that is IPv4 in the form of IPv6 counts as IPv4.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&address));
        match self.allowed.is_empty() {
            true if within(&METADATA) => Err(Denied::Metadata(address)),
            false if !within(&self.allowed) => Err(Denied::Elsewhere(address)),
            _ => Ok(()),
        }
    }

    /// As [`BackendPolicy::check`], for what is said of a member alone: names are looked at when they
    /// are resolved, and a socket in the file system is nobody else's.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_member(&self, member: &Member) -> Result<(), Denied> {
        match &member.address {
            MemberAddress::Ip(address, _) => self.check(*address),
            MemberAddress::Name(..) | MemberAddress::Unix(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &BackendPolicy, address: &str) -> Result<(), Denied> {
        policy.check(address.parse().unwrap())
    }

    #[test]
    fn by_default_everything_but_link_local_addresses() {
        let policy = BackendPolicy::default();
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
    fn with_a_list_that_alone() {
        let networks = ["10.1.0.0/16", "fd12::/16"].map(|text| text.parse().unwrap());
        let policy = BackendPolicy::new(networks.to_vec());
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
        let member = |text: &str| policy.check_member(&Member::parse(text).unwrap());
        assert!(member("10.1.0.1:443 proxy=v2").is_ok());
        assert!(member("app.test:80").is_ok() && member("unix:/run/a").is_ok());
        let said = member("[::1]:443").unwrap_err().to_string();
        assert!(said.contains("::1 is in no network") && said.contains("; correct it"));
    }
}
