//! What belongs to a client connection as a whole, and what it remembers from one request to the next.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::pool::Owner;
use crate::client::Client;
use crate::http::Downstream;
use crate::proxy_protocol::Endpoints;
use crate::ring::Deadline;
use crate::route::Backend;
use crate::state::Local;

/// One client connection, apart from its bytes and its log entry.
pub(super) struct Session<'c> {
    pub local: &'c Rc<Local>,
    pub client: &'c Client,
    /// The connection's one deadline, which is set anew for each wait.
    pub deadline: &'c Deadline,
    pub accepted: Instant,
    /// Requests so far.
    pub requests: u32,
    downstream: Cell<Option<Downstream>>,
    /// The id of the last request's route, and the backend that answered.
    pub last: Option<(u64, Arc<Backend>)>,
    /// The owner of those idle connections to backends that only this client may use.
    pub owner: Owner<'c>,
}

impl<'c> Session<'c> {
    pub(super) fn new(
        local: &'c Rc<Local>,
        client: &'c Client,
        deadline: &'c Deadline,
        accepted: Instant,
    ) -> Session<'c> {
        Session {
            local,
            client,
            deadline,
            accepted,
            requests: 0,
            downstream: Cell::new(None),
            last: None,
            owner: Owner::new(local),
        }
    }

    /// The connection from the client to this proxy, as the forwarding fields tell of it. The kernel is
    /// asked only where a backend gets such fields, and only once.
    pub(super) fn downstream(&self) -> Downstream {
        let http = &self.local.http;
        if http.forwarding.is_off() {
            return Downstream::default();
        }
        self.downstream.get().unwrap_or_else(|| {
            let client = self.client.address().map(|address| address.ip());
            let own = match self.client.proxy_header().map(|header| header.endpoints) {
                Some(Endpoints::Tcp(addresses)) => Some(addresses.destination()),
                _ => self.client.socket().local_addr(),
            };
            let downstream = Downstream {
                client,
                port: own.map_or(0, |address| address.port()),
                trusted: client.is_some_and(|client| http.trusts(client)),
            };
            self.downstream.set(Some(downstream));
            downstream
        })
    }
}
