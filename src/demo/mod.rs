//! `pointsman demo`: two HTTP and two TLS backends inside this process, static routes to them, and the
//! commands to try. It needs no Redis, no root and no installation. The proxy is the one that `pointsman`
//! without a subcommand runs.
//!
//! The hosts end in `.localhost`, which resolvers and browsers map to this machine (RFC 6761 section 6.3).

mod backends;

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use backends::Authority;

use crate::config::Typed;
use crate::protocol::Protocol;

/// The host of each backend.
const HOSTS: [(Protocol, &str); 4] = [
    (Protocol::Http, "one.http.localhost"),
    (Protocol::Http, "two.http.localhost"),
    (Protocol::Tls, "one.tls.localhost"),
    (Protocol::Tls, "two.tls.localhost"),
];

/// A host without a route, to show what clients of such a host get.
const UNKNOWN_HOST: &str = "nobody.localhost";

/// Where the demo listens when the operator sets no address and the port is free.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;

/// Running backends. They end with the process; the certificate is removed when this is dropped.
pub(crate) struct Demo {
    directory: PathBuf,
}

impl Demo {
    /// Starts the backends. Sets the addresses and the routes in `typed`, unless the operator did.
    ///
    /// # Errors
    /// When no loopback port can be bound, or the temporary directory cannot be written.
    pub(crate) fn start(typed: &mut Typed) -> io::Result<Demo> {
        let authority = Authority::new().map_err(io::Error::other)?;
        let mut routes = Vec::new();
        for (protocol, host) in HOSTS {
            let address = match protocol {
                Protocol::Tls => backends::start_tls(host, &authority)?,
                _ => backends::start_http(host)?,
            };
            routes.push(format!("{host}={address}"));
        }
        // An operator who sets one of the two wants no other.
        if !typed.is_set("http") && !typed.is_set("https") {
            typed.set_default("demo", "http", &[free_or_any(HTTP_PORT).to_string()]);
            typed.set_default("demo", "https", &[free_or_any(HTTPS_PORT).to_string()]);
        }
        typed.set_default("demo", "route", &routes);
        let demo = Demo {
            directory: private_directory()?,
        };
        fs::write(demo.certificate(), authority.certificate_pem())?;
        Ok(demo)
    }

    /// The certificate that the TLS backends' certificates are signed with, for `curl --cacert`.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The commands to try, for the addresses that were bound.
    pub(crate) fn instructions(&self, listeners: &[(Protocol, SocketAddr)]) -> String {
        let mut text = String::from("Two HTTP and two TLS backends are running. Try:\n\n");
        for (protocol, scheme) in [(Protocol::Http, "http"), (Protocol::Tls, "https")] {
            let Some((_, address)) = listeners.iter().find(|(of, _)| *of == protocol) else {
                continue;
            };
            let hosts = HOSTS.into_iter().filter(|(of, _)| *of == protocol);
            for (_, host) in hosts.chain([(protocol, UNKNOWN_HOST)]) {
                let certificate = match protocol {
                    Protocol::Tls => format!("--cacert {} ", self.certificate().display()),
                    _ => String::new(),
                };
                let port = address.port();
                let target = reachable(address.ip());
                writeln!(
                    text,
                    "  curl {certificate}--resolve {host}:{port}:{target} {scheme}://{host}:{port}/"
                )
                .expect("a String takes everything");
            }
            text.push('\n');
        }
        write!(
            text,
            "{UNKNOWN_HOST} has no route: HTTP answers 421, TLS the alert unrecognized_name.\n\
             kill -USR1 {} prints latencies, Ctrl-C ends.\n",
            std::process::id()
        )
        .expect("a String takes everything");
        text
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A directory that stays behind is not worth an error at the end.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// 127.0.0.1 with this port, or with port 0, for the kernel to choose one, when this one is in use.
fn free_or_any(port: u16) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// The address by which a client on this machine reaches a listener on `ip`, in the form of curl.
fn reachable(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// A new directory that only this user may enter.
fn private_directory() -> io::Result<PathBuf> {
    let name = format!(
        "pointsman-demo-{}-{:08x}",
        std::process::id(),
        fastrand::u32(..)
    );
    let path = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests;
