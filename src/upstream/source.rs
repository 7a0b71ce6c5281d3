//! The source address of a connection to a backend: the proxy's own, the client's, or an IPv6 address in
//! which the client's IPv4 address is embedded.
//!
//! Only the client's address is used, never its port. With both, two connections of one client port (to
//! two listeners, or to a second backend after the first has failed) would have the same four-tuple, and
//! a connection from a port that was used before would collide with its TIME_WAIT.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::client::Client;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::route::{Address, Source};
use crate::state::Local;
use crate::sys::ForeignSource;

/// The address to connect from, where it is not the proxy's own.
///
/// # Errors
/// [`Outcome::SourceFamily`] when the client's address is not of the backend's family,
/// [`Outcome::ClientReset`] when the client has gone and the kernel no longer knows its address.
pub(super) fn foreign_source(
    local: &Local,
    wanted: Source,
    backend: &Address,
    client: &Client,
) -> Result<Option<ForeignSource>, Outcome> {
    // A unix socket has no source address. A member that wants one is refused when it is read.
    let (Source::Client | Source::Nat46(_), Address::Inet(backend)) = (wanted, backend) else {
        return Ok(None);
    };
    let client = client.address().ok_or(Outcome::ClientReset)?.ip();
    let source = choose(wanted, backend, client)?;
    if source.is_none() {
        local.count(Counter::Nat46OwnSource);
    }
    Ok(source)
}

fn choose(
    wanted: Source,
    backend: &SocketAddr,
    client: IpAddr,
) -> Result<Option<ForeignSource>, Outcome> {
    match (wanted, backend, client) {
        (Source::Client, SocketAddr::V4(_), IpAddr::V4(_))
        | (Source::Client, SocketAddr::V6(_), IpAddr::V6(_)) => {
            Ok(Some(ForeignSource::Transparent(client)))
        }
        (Source::Nat46(prefix), SocketAddr::V6(_), IpAddr::V4(client)) => {
            Ok(Some(ForeignSource::Freebind(prefix.embed(client).into())))
        }
        // The prefix has no room for an IPv6 address. The client's own address would need the privilege
        // and the routing of source=client, for which the operator has not asked.
        (Source::Nat46(_), SocketAddr::V6(_), IpAddr::V6(_)) | (Source::Own, ..) => Ok(None),
        _ => Err(Outcome::SourceFamily),
    }
}

/// How a connection ends when its socket could not be bound to its source address.
pub(super) fn refused(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Outcome::SourceForbidden,
        _ => Outcome::SourceRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_of_client_and_backend() {
        let nat46 = Source::Nat46("2001:db8:46::/96".parse().unwrap());
        let (v4, v6) = ("192.0.2.7", "2001:db8::7");
        let transparent = |ip: &str| Ok(Some(ForeignSource::Transparent(ip.parse().unwrap())));
        let embedded = ForeignSource::Freebind("2001:db8:46::192.0.2.7".parse().unwrap());
        for (wanted, backend, client, expected) in [
            (Source::Client, "10.0.0.1:1", v4, transparent(v4)),
            (Source::Client, "[::1]:1", v6, transparent(v6)),
            (Source::Client, "10.0.0.1:1", v6, Err(Outcome::SourceFamily)),
            (Source::Client, "[::1]:1", v4, Err(Outcome::SourceFamily)),
            (nat46, "[::1]:1", v4, Ok(Some(embedded))),
            (nat46, "[::1]:1", v6, Ok(None)),
            (nat46, "10.0.0.1:1", v4, Err(Outcome::SourceFamily)),
            (nat46, "10.0.0.1:1", v6, Err(Outcome::SourceFamily)),
            (Source::Own, "10.0.0.1:1", v6, Ok(None)),
        ] {
            let chosen = choose(wanted, &backend.parse().unwrap(), client.parse().unwrap());
            assert_eq!(chosen, expected, "{wanted:?} {backend} {client}");
        }
    }
}
