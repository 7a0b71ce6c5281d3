//! Protects the admin endpoint against DNS rebinding. A web page in an operator's browser can have its own
//! name resolve to the address of the endpoint, and then read the responses. But the browser sends that
//! name as Host, so only requests with the endpoint's own Host are served. Ports are not compared: the
//! endpoint may be reached through a forwarded port.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;
use hyper::http::Version;

/// The Hosts of the endpoint. Its own address and `localhost` always are.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnHost {
    /// Those of `--admin-host`, names and addresses, without ports and brackets.
    names: Vec<Box<str>>,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrongHost {
    /// No Host field, or several of them (RFC 9112 section 3.2).
    NotOne,
    /// A Host of somebody else.
    Foreign,
}

impl OwnHost {
    pub(super) fn new(names: Vec<Box<str>>) -> OwnHost {
        OwnHost { names }
    }

    /// `local` is the address that the client has connected to. A request target in absolute form names
    /// a host as well; then both have to be the endpoint's. HTTP/1.0 is served without Host, which
    /// every browser sends.
    pub(super) fn verify<B>(&self, request: &Request<B>, local: IpAddr) -> Result<(), WrongHost> {
        if let Some(authority) = request.uri().authority()
            && !self.is_own(authority.as_str(), local)
        {
            return Err(WrongHost::Foreign);
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => match host.to_str() {
                Ok(host) if self.is_own(host, local) => Ok(()),
                _ => Err(WrongHost::Foreign),
            },
            (None, None) if request.version() <= Version::HTTP_10 => Ok(()),
            _ => Err(WrongHost::NotOne),
        }
    }

    fn is_own(&self, authority: &str, local: IpAddr) -> bool {
        let host = without_port(authority.trim());
        let name = host.strip_suffix('.').unwrap_or(host);
        let address = host
            .parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical());
        address == Some(local.to_canonical())
            || name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|listed| {
                listed.eq_ignore_ascii_case(name)
                    || address.is_some() && listed.parse().ok() == address
            })
    }
}

fn without_port(authority: &str) -> &str {
    if let Some(inner) = authority.strip_prefix('[') {
        return inner.split_once(']').map_or("", |(address, _)| address);
    }
    authority
        .split_once(':')
        .map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, target: &str, hosts: &[&str]) -> Result<(), WrongHost> {
        let own_host = OwnHost::new(vec!["metrics.example".into(), "2001:db8::7".into()]);
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        own_host.verify(&request.body(()).unwrap(), "10.0.0.1".parse().unwrap())
    }

    #[test]
    fn its_address_localhost_and_listed_names_are_its_hosts() {
        for host in [
            "10.0.0.1:9000",
            "10.0.0.1",
            "[::ffff:10.0.0.1]:9000",
            "localhost:1",
            "LocalHost.",
            "metrics.example",
            "Metrics.Example.:9000",
            "[2001:db8::7]",
        ] {
            assert_eq!(check(Version::HTTP_11, "/ready", &[host]), Ok(()), "{host}");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "metrics.example.evil",
            "10.0.0.2",
            "127.0.0.1",
            "[::1",
            "10.0.0.1.evil.example",
        ] {
            let refused = Err(WrongHost::Foreign);
            assert_eq!(
                check(Version::HTTP_11, "/ready", &[host]),
                refused,
                "{host}"
            );
        }
    }

    #[test]
    fn the_host_of_an_absolute_target_counts_too() {
        let check = |target, host| check(Version::HTTP_11, target, &[host]);
        assert_eq!(check("http://localhost/ready", "localhost"), Ok(()));
        let refused = Err(WrongHost::Foreign);
        assert_eq!(check("http://evil.example/", "localhost"), refused);
        assert_eq!(check("http://localhost/", "evil.example"), refused);
    }

    #[test]
    fn only_http_1_0_needs_no_host() {
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(check(Version::HTTP_11, "/", &[]), Err(WrongHost::NotOne));
        let twice = ["localhost", "localhost"];
        assert_eq!(check(Version::HTTP_11, "/", &twice), Err(WrongHost::NotOne));
        let evil = Err(WrongHost::Foreign);
        assert_eq!(check(Version::HTTP_10, "/", &["evil.example"]), evil);
    }
}
