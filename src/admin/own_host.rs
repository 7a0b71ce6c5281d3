//! Whether a request to the admin endpoint was meant for it. A page in an operator's browser can give
//! its own name the address of the endpoint (DNS rebinding) and then read the answers; but the name
//! that it was loaded by stays in the request. Ports are not compared: a forwarded port is as good.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;
use hyper::http::Version;

/// Who the endpoint answers as, besides its own address and localhost.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnHost {
    /// As `--admin-host` has them, without ports and brackets.
    names: Vec<Box<str>>,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOurs {
    /// No `Host`, or several of them (RFC 9112 section 3.2).
    Unclear,
    AnotherHost,
}

impl OwnHost {
    pub(super) fn new(names: Vec<Box<str>>) -> OwnHost {
        OwnHost { names }
    }

    /// `own` is where the client reached us. A target in absolute form names a host as well, and both
    /// have to be ours. Without `Host` HTTP/1.0 is answered: no browser leaves it out.
    pub(super) fn check<B>(&self, request: &Request<B>, own: IpAddr) -> Result<(), NotOurs> {
        if let Some(authority) = request.uri().authority()
            && !self.is_ours(authority.as_str(), own)
        {
            return Err(NotOurs::AnotherHost);
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => match host.to_str() {
                Ok(host) if self.is_ours(host, own) => Ok(()),
                _ => Err(NotOurs::AnotherHost),
            },
            (None, None) if request.version() <= Version::HTTP_10 => Ok(()),
            _ => Err(NotOurs::Unclear),
        }
    }

    fn is_ours(&self, authority: &str, own: IpAddr) -> bool {
        let host = without_port(authority.trim());
        let name = host.strip_suffix('.').unwrap_or(host);
        let address = host
            .parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical());
        address == Some(own.to_canonical())
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

    fn check(version: Version, target: &str, hosts: &[&str]) -> Result<(), NotOurs> {
        let own_host = OwnHost::new(vec!["metrics.example".into(), "2001:db8::7".into()]);
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        own_host.check(&request.body(()).unwrap(), "10.0.0.1".parse().unwrap())
    }

    #[test]
    fn its_address_localhost_and_what_is_listed_are_its_hosts() {
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
            let refused = Err(NotOurs::AnotherHost);
            assert_eq!(
                check(Version::HTTP_11, "/ready", &[host]),
                refused,
                "{host}"
            );
        }
    }

    #[test]
    fn a_target_in_absolute_form_is_looked_at_too() {
        let check = |target, host| check(Version::HTTP_11, target, &[host]);
        assert_eq!(check("http://localhost/ready", "localhost"), Ok(()));
        let refused = Err(NotOurs::AnotherHost);
        assert_eq!(check("http://evil.example/", "localhost"), refused);
        assert_eq!(check("http://localhost/", "evil.example"), refused);
    }

    #[test]
    fn only_http_1_0_goes_without_a_host() {
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(check(Version::HTTP_11, "/", &[]), Err(NotOurs::Unclear));
        let twice = ["localhost", "localhost"];
        assert_eq!(check(Version::HTTP_11, "/", &twice), Err(NotOurs::Unclear));
        let evil = Err(NotOurs::AnotherHost);
        assert_eq!(check(Version::HTTP_10, "/", &["evil.example"]), evil);
    }
}
