//! What an operator chooses for a host by a word: what happens to connections of a removed backend, which
//! clients may share a connection, and what a client that finishes early means.

use std::fmt;
use std::time::Duration;

use crate::quantity::{duration, duration_text};

const DRAIN_MIN: Duration = Duration::from_millis(1);
const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to live connections of a backend that is removed from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Removal {
    /// They go on until they end by themselves.
    #[default]
    Keep,
    /// They are ended after this long.
    Drain(Duration),
    /// They are ended at once.
    Cut,
}

impl Removal {
    pub(super) fn parse(text: &str) -> Option<Removal> {
        match text {
            "keep" => Some(Removal::Keep),
            "cut" => Some(Removal::Cut),
            _ => {
                let span = text.strip_prefix("drain=")?;
                duration(span, DRAIN_MIN..=DRAIN_MAX).map(Removal::Drain)
            }
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removal::Keep => write!(out, "keep"),
            Removal::Drain(span) => write!(out, "drain={}", duration_text(*span)),
            Removal::Cut => write!(out, "cut"),
        }
    }
}

/// Which clients may reuse a connection to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Reuse {
    /// Only the client that it was opened for.
    Never,
    /// Any client, until the connection has carried a request body. The backend may have left a part of
    /// it unread.
    #[default]
    Safe,
    /// Any client.
    Always,
}

impl Reuse {
    const ALL: [Reuse; 3] = [Reuse::Never, Reuse::Safe, Reuse::Always];

    pub(super) fn name(self) -> &'static str {
        match self {
            Reuse::Never => "never",
            Reuse::Safe => "safe",
            Reuse::Always => "always",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Reuse> {
        Self::ALL.into_iter().find(|reuse| reuse.name() == word)
    }
}

/// What happens to a request whose client finishes sending before it has the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum ClientFinished {
    /// The request goes on, since the client may still read.
    #[default]
    Wait,
    /// The request ends at once.
    Abort,
}

impl ClientFinished {
    pub(crate) const ALL: [ClientFinished; 2] = [ClientFinished::Wait, ClientFinished::Abort];

    pub(crate) fn name(self) -> &'static str {
        match self {
            ClientFinished::Wait => "wait",
            ClientFinished::Abort => "abort",
        }
    }

    pub(super) fn parse(word: &str) -> Option<ClientFinished> {
        Self::ALL.into_iter().find(|one| one.name() == word)
    }
}
