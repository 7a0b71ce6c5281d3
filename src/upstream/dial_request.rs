//! What connecting to a backend has to know of the client.

use std::sync::Arc;

use crate::client::Client;
use crate::protocol::Protocol;
use crate::ring::Deadline;
use crate::route::Route;
use crate::state::Local;

/// For whom a backend is wanted.
#[derive(Clone, Copy)]
pub(crate) struct DialRequest<'d> {
    pub local: &'d Local,
    pub route: &'d Arc<Route>,
    pub protocol: Protocol,
    pub client: &'d Client,
    /// The connection's own deadline, free for use while it dials.
    pub deadline: &'d Deadline,
}
