//! What a client connection remembers from one request to the next.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use super::pool::Owner;
use crate::client::Client;
use crate::http::Downstream;
use crate::proxy_protocol::Endpoints;
use crate::route::Backend;
use crate::state::Local;

/// What a client connection remembers from one request to the next.
pub(super) struct Session<'c> {
    pub client: &'c Client,
    pub accepted: Instant,
    pub requests: u32,
    downstream: Cell<Option<Downstream>>,
    /// The route of the last request and the backend that had it.
    pub last: Option<(u64, Arc<Backend>)>,
    /// Of connections to backends that are this client's alone.
    pub owner: Owner<'c>,
}

impl<'c> Session<'c> {
    pub(super) fn new(local: &'c Local, client: &'c Client, accepted: Instant) -> Session<'c> {
        Session {
            client,
            accepted,
            requests: 0,
            downstream: Cell::new(None),
            last: None,
            owner: Owner::new(local),
        }
    }

    /// The way from the client to here; asked of the kernel only where a backend is told.
    pub(super) fn downstream(&self, local: &Local) -> Downstream {
        if local.http.forwarding.is_off() {
            return Downstream::default();
        }
        self.downstream.get().unwrap_or_else(|| {
            let client = self.client.address().map(|address| address.ip());
            let own = match self.client.proxy_header().map(|header| header.endpoints) {
                Some(Endpoints::Tcp(addresses)) => Some(addresses.destination()),
                _ => self.client.socket().local(),
            };
            let downstream = Downstream {
                client,
                port: own.map_or(0, |address| address.port()),
                trusted: client.is_some_and(|client| local.http.trusts(client)),
            };
            self.downstream.set(Some(downstream));
            downstream
        })
    }
}
