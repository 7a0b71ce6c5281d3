//! How HTTP requests are passed on and what clients are told.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::http::Forwarding;
use crate::route::ClientFinished;

/// Settings of HTTP besides its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpSettings {
    /// What backends are told about the client.
    pub forwarding: Forwarding,
    /// Clients, such as proxies, that are trusted about the clients before them.
    pub trusted_from: Vec<IpNet>,
    /// Whether HTTP/2 with prior knowledge is carried, routed by its first request.
    pub h2c: bool,
    /// Whether answers of the proxy itself leave the outcome's name out.
    pub hides_outcome: bool,
    /// The HTML of error responses, by status, in place of a sentence of text.
    pub pages: Vec<(u16, Arc<[u8]>)>,
    /// What becomes of a request whose client finishes sending early. A host may override it.
    pub client_finished: ClientFinished,
    /// Whether a request for an unknown host gets 404 instead of 421.
    pub unknown_is_404: bool,
}

impl HttpSettings {
    /// Whether this client is trusted about the clients before it.
    pub(crate) fn trusts(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_from.iter().any(|net| net.contains(&client))
    }
}
