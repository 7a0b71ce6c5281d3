//! How HTTP requests are passed on and what clients are told.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::http::Forwarding;
use crate::route::ClientFinished;

/// What the HTTP port obeys besides limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpSettings {
    /// What backends are told about the client.
    pub forwarding: Forwarding,
    /// Clients that are believed about those before them.
    pub trusted_from: Vec<IpNet>,
    /// Whether HTTP/2 with prior knowledge is carried, routed by its first request.
    pub h2c: bool,
    /// Whether answers of the proxy itself leave the outcome's name out.
    pub hides_outcome: bool,
    /// HTML instead of the usual sentence, by status.
    pub pages: Vec<(u16, Arc<[u8]>)>,
    /// What becomes of a request whose client finishes first, where the host does not say.
    pub client_finished: ClientFinished,
    /// Whether an unknown host is told 404 instead of 421.
    pub unknown_is_404: bool,
}

impl HttpSettings {
    /// Whether what this client says of those before it is believed.
    pub(crate) fn trusts(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_from.iter().any(|net| net.contains(&client))
    }
}
