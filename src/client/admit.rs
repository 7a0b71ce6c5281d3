//! Whether a client is admitted, by the limits of the process, of client networks and of hosts. Without
//! limits this is one branch: no system call, no hash.

use std::net::IpAddr;

use super::identity::Client;
use crate::host::Host;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protect::{Admitted, ClientLimits, Permit};
use crate::protocol::Protocol;
use crate::proxy_protocol::Endpoints;
use crate::route::Route;
use crate::state::Local;

/// The limits that hold before anything is read. A trusted sender of PROXY headers is no client: its
/// clients are counted by [`after_proxy_header`].
///
/// # Errors
/// The outcome of the limit that is reached.
pub(crate) fn at_accept(local: &Local, client: &Client) -> Result<(), Outcome> {
    let Some(limits) = &local.budget.client_limits else {
        return Ok(());
    };
    // A client that has reset its connection by now has no address; the next read notices.
    if limits.has_client_limits()
        && let Some(peer) = client.peer()
        && !local.proxy.trusts(peer)
    {
        admit_client(local, limits, client, peer.ip())?;
    }
    if let Some(permit) = limits.admit()? {
        client.hold(permit);
    }
    Ok(())
}

/// The limits of the client that a PROXY header names. A sender that speaks for itself (LOCAL), or
/// does not know the client, is not counted.
///
/// # Errors
/// As for [`at_accept`].
pub(crate) fn after_proxy_header(local: &Local, client: &Client) -> Result<(), Outcome> {
    let Some(limits) = &local.budget.client_limits else {
        return Ok(());
    };
    match client.proxy_header().map(|header| header.endpoints) {
        Some(Endpoints::Tcp(addresses)) if limits.has_client_limits() => {
            admit_client(local, limits, client, addresses.source().ip())
        }
        _ => Ok(()),
    }
}

fn admit_client(
    local: &Local,
    limits: &ClientLimits,
    client: &Client,
    address: IpAddr,
) -> Result<(), Outcome> {
    let admitted = limits.admit_client(address, local.ring.now())?;
    if let Some(permit) = permit_of(local, admitted) {
        client.hold(permit);
    }
    Ok(())
}

/// The limits of the host to which a connection or request goes. It is counted for as long as the
/// permit lives. Limits are those of the entry in the table: all names below one wildcard share them,
/// and so do all names that go to a default.
///
/// # Errors
/// As for [`at_accept`].
pub(crate) fn to_host(
    local: &Local,
    route: &Route,
    protocol: Protocol,
    host: Option<&Host>,
) -> Result<Option<Permit>, Outcome> {
    let Some(options) = route.options() else {
        return Ok(None);
    };
    let (connections, rate) = (options.host.connections_max, options.host.rate_max);
    if connections.is_none() && rate.is_none() {
        return Ok(None);
    }
    let hash = local.table.borrow().entry_hash(protocol, host);
    let limits = &local.budget.host_limits;
    let admitted = limits.admit(hash, connections, rate, local.ring.now())?;
    Ok(permit_of(local, admitted))
}

fn permit_of(local: &Local, admitted: Admitted) -> Option<Permit> {
    if admitted.is_untracked {
        local.count(Counter::LimitsUntracked);
    }
    admitted.permit
}
