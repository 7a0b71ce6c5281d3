//! What one health check sends to a backend, how often, and how many answers change the verdict.

use std::time::Duration;

/// A complete health check. Backends that have the same check in several routes are checked once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HealthCheck {
    pub(crate) kind: HealthCheckKind,
    /// The path of the GET of [`HealthCheckKind::Http`]; `/` for the other kinds.
    pub(crate) path: Box<str>,
    pub(crate) status: StatusRange,
    /// The name in the ClientHello or in the Host field; `None`: the name of a host that has the check.
    pub(crate) name: Option<Box<str>>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Good answers in a row that turn a backend that is down up.
    pub(crate) rise: u8,
    /// Bad answers in a row that turn a backend that is up down.
    pub(crate) fall: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HealthCheckKind {
    /// The backend has to accept a connection.
    Tcp,
    /// The backend has to answer a ClientHello with a ServerHello.
    Tls,
    /// The backend has to answer a GET with a good status.
    Http,
}

impl HealthCheckKind {
    const ALL: [HealthCheckKind; 3] = [
        HealthCheckKind::Tcp,
        HealthCheckKind::Tls,
        HealthCheckKind::Http,
    ];

    /// The value of the option `check`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HealthCheckKind::Tcp => "tcp",
            HealthCheckKind::Tls => "tls",
            HealthCheckKind::Http => "http",
        }
    }

    pub(super) fn parse(word: &str) -> Option<HealthCheckKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == word)
    }
}

/// The statuses that are good answers, the first and the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StatusRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Default for StatusRange {
    /// Successes and redirects.
    fn default() -> StatusRange {
        StatusRange {
            first: 200,
            last: 399,
        }
    }
}

impl StatusRange {
    pub(crate) fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}
