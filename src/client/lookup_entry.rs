//! A connection's entry in the worker's look-up table, which answers who is behind a connection that a
//! backend sees. Without `--lookup` there is no table, no system call and no allocation.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::identity::Client;
use crate::lookup::{ClientInfo, EntryId, Insertion, UpstreamAddresses};
use crate::metrics::Counter;
use crate::sniff::Head;
use crate::state::Local;
use crate::sys::Socket;

/// The entry of an open connection; dropped, it marks the connection as ended.
pub(crate) struct LookupEntry {
    local: Rc<Local>,
    addresses: UpstreamAddresses,
    id: EntryId,
}

/// A connection to a backend, as it is entered.
pub(crate) struct OpenConnection<'a> {
    pub client: &'a Client,
    pub accepted: Instant,
    pub head: &'a Head,
    /// The backend as an operator writes it.
    pub backend: &'a str,
    pub backend_socket: &'a Socket,
}

impl LookupEntry {
    /// Enters a connection. `None` without a table, for a client or backend without an Internet address,
    /// and when the table is full of open connections, which is counted.
    pub(crate) fn new(local: &Rc<Local>, open: &OpenConnection<'_>) -> Option<Box<LookupEntry>> {
        let mut table = local.lookup.as_ref()?.borrow_mut();
        let addresses = UpstreamAddresses {
            source: open.backend_socket.local_addr()?,
            backend: open.backend_socket.peer_addr()?,
        };
        let info = ClientInfo {
            address: open.client.address()?,
            name: open.head.name.as_ref().map(|name| name.as_str().into()),
            alpn: open.head.alpn.clone(),
            accepted: SystemTime::now() - open.accepted.elapsed(),
            member: open.backend.into(),
        };
        let insertion = table.insert(addresses, info, local.ring.now());
        if !matches!(insertion, Insertion::Done(_)) {
            local.count(Counter::LookupEvictions);
        }
        let (Insertion::Done(id) | Insertion::Evicted(id)) = insertion else {
            return None;
        };
        Some(Box::new(LookupEntry {
            local: local.clone(),
            addresses,
            id,
        }))
    }
}

impl Drop for LookupEntry {
    fn drop(&mut self) {
        if let Some(table) = &self.local.lookup {
            let now = self.local.ring.now();
            table.borrow_mut().end(&self.addresses, self.id, now);
        }
    }
}
