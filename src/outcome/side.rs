//! Who ended a connection.

/// Whose act or silence ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
    /// A limit, a deadline or an option of the proxy, or the routes that it was given.
    Proxy,
    /// Client and backend alike.
    Both,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Client => "the client",
            Side::Backend => "the backend",
            Side::Proxy => "the proxy",
            Side::Both => "both sides",
        }
    }
}
