//! What is counted and timed about connections, and how it is written down. Pure: one
//! [`CoreMetrics`] belongs to one core, which needs no lock to write into it; the control thread
//! swaps it for a fresh one, adds the cores up, and renders the sum with the functions here.

mod core_metrics;
mod dump;
mod interval_log;
mod prometheus;
mod table;

pub(crate) use core_metrics::CoreMetrics;
pub(crate) use dump::Dump;
pub(crate) use interval_log::write_interval_log;
pub(crate) use prometheus::write_prometheus;
pub(crate) use table::write_table;

/// The spans of a connection's life that are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Accepted until the head is complete and valid: mostly the client's network.
    Head,
    /// Looking up the name in the table.
    Route,
    /// First connect attempt until a backend has accepted, failed attempts included.
    Connect,
    /// Head sent to the backend until its first byte came back.
    FirstByte,
    /// Accepted until both sides are closed.
    Lifetime,
    /// A request's head complete until the head of its response, connecting included.
    Request,
}

impl Stage {
    pub(crate) const ALL: [Stage; 6] = [
        Stage::Head,
        Stage::Route,
        Stage::Connect,
        Stage::FirstByte,
        Stage::Lifetime,
        Stage::Request,
    ];
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Position in [`Stage::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The word in tags, tables and metric labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Head => "head",
            Stage::Route => "route",
            Stage::Connect => "connect",
            Stage::FirstByte => "first_byte",
            Stage::Lifetime => "lifetime",
            Stage::Request => "request",
        }
    }
}

/// What is counted besides outcomes. Every one only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Counter {
    /// Connections accepted.
    Accepted,
    /// Episodes in which accepting paused because the machine was out of descriptors or memory.
    AcceptPaused,
    /// accept(2) failures of any kind, those that ended one connection only included.
    AcceptErrors,
    /// Connects to backends begun.
    ConnectAttempts,
    /// Connects to backends that were refused, reset, unreachable or too slow.
    ConnectFailures,
    /// Ejections of backends after failures, further ones of the same backend included.
    BackendsEjected,
    /// Ejected backends that were back, as a trial has shown.
    BackendsReadmitted,
    /// Connections and requests whose route had no backend that is up, so that all were used.
    AllBackendsDown,
    /// Clients that had to wait for a backend to have room.
    Queued,
    /// Connections that went to another backend because the first took what it was sent and closed or
    /// kept silent.
    WentRound,
    /// Bytes moved from clients to backends, heads included.
    BytesToBackend,
    /// Bytes moved from backends to clients.
    BytesToClient,
    /// Bytes of both directions that went through a pipe.
    SplicedBytes,
    /// Bytes of both directions that went through the core's buffer.
    CopiedBytes,
    /// Times a bulk direction went on copying because no pipe could be had.
    PipesRefused,
    /// HTTP requests whose head was complete and valid.
    Requests,
    /// Interim and 101 responses passed on.
    Responses1xx,
    /// Responses of backends with status 200 to 299.
    Responses2xx,
    /// Responses of backends with status 300 to 399.
    Responses3xx,
    /// Responses of backends with status 400 to 499.
    Responses4xx,
    /// Responses of backends with status 500 to 599.
    Responses5xx,
    /// Requests sent on a backend connection that had carried one before.
    BackendsReused,
    /// Requests sent again because a reused backend connection turned out closed.
    RequestsRetried,
    /// Requests that were redirected to https.
    Redirects,
    /// Connects for IPv6 clients to source=nat46 backends, which go out from the proxy's own address.
    Nat46OwnSource,
    /// Connections that a look-up does not know of because the table was full.
    LookupsForgotten,
    /// Clients and hosts let in uncounted because their line of the table of limits was full.
    LimitsUntracked,
}

impl Counter {
    pub(crate) const ALL: [Counter; 27] = [
        Counter::Accepted,
        Counter::AcceptPaused,
        Counter::AcceptErrors,
        Counter::ConnectAttempts,
        Counter::ConnectFailures,
        Counter::BackendsEjected,
        Counter::BackendsReadmitted,
        Counter::AllBackendsDown,
        Counter::Queued,
        Counter::WentRound,
        Counter::BytesToBackend,
        Counter::BytesToClient,
        Counter::SplicedBytes,
        Counter::CopiedBytes,
        Counter::PipesRefused,
        Counter::Requests,
        Counter::Responses1xx,
        Counter::Responses2xx,
        Counter::Responses3xx,
        Counter::Responses4xx,
        Counter::Responses5xx,
        Counter::BackendsReused,
        Counter::RequestsRetried,
        Counter::Redirects,
        Counter::Nat46OwnSource,
        Counter::LookupsForgotten,
        Counter::LimitsUntracked,
    ];
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Position in [`Counter::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The word in tables and metric names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Counter::Accepted => "accepted",
            Counter::AcceptPaused => "accept_paused",
            Counter::AcceptErrors => "accept_errors",
            Counter::ConnectAttempts => "connect_attempts",
            Counter::ConnectFailures => "connect_failures",
            Counter::BackendsEjected => "backends_ejected",
            Counter::BackendsReadmitted => "backends_readmitted",
            Counter::AllBackendsDown => "all_backends_down",
            Counter::Queued => "queued",
            Counter::WentRound => "went_round",
            Counter::BytesToBackend => "bytes_to_backend",
            Counter::BytesToClient => "bytes_to_client",
            Counter::SplicedBytes => "spliced_bytes",
            Counter::CopiedBytes => "copied_bytes",
            Counter::PipesRefused => "pipes_refused",
            Counter::Requests => "requests",
            Counter::Responses1xx => "responses_1xx",
            Counter::Responses2xx => "responses_2xx",
            Counter::Responses3xx => "responses_3xx",
            Counter::Responses4xx => "responses_4xx",
            Counter::Responses5xx => "responses_5xx",
            Counter::BackendsReused => "backends_reused",
            Counter::RequestsRetried => "requests_retried",
            Counter::Redirects => "redirects",
            Counter::Nat46OwnSource => "nat46_own_source",
            Counter::LookupsForgotten => "lookups_forgotten",
            Counter::LimitsUntracked => "limits_untracked",
        }
    }

    /// One sentence for the help line of the metric.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Counter::Accepted => "Connections accepted.",
            Counter::AcceptPaused => {
                "Episodes in which accepting paused for want of descriptors or memory."
            }
            Counter::AcceptErrors => "Failures of accept.",
            Counter::ConnectAttempts => "Connects to backends begun.",
            Counter::ConnectFailures => {
                "Connects to backends refused, reset, unreachable or too slow."
            }
            Counter::BackendsEjected => "Times a backend was kept out after failures.",
            Counter::BackendsReadmitted => "Times a backend was back after it had been kept out.",
            Counter::AllBackendsDown => {
                "Choices among backends none of which was up, so that all were used."
            }
            Counter::Queued => "Clients that had to wait for a backend to have room.",
            Counter::WentRound => {
                "Connections that went to another backend because the first gave no answer."
            }
            Counter::BytesToBackend => "Bytes moved from clients to backends.",
            Counter::BytesToClient => "Bytes moved from backends to clients.",
            Counter::SplicedBytes => "Bytes moved through a pipe.",
            Counter::CopiedBytes => "Bytes moved through a core's buffer.",
            Counter::PipesRefused => "Times a bulk direction found no pipe and went on copying.",
            Counter::Requests => "HTTP requests whose head was complete and valid.",
            Counter::Responses1xx => "Interim and 101 responses passed on.",
            Counter::Responses2xx => "Responses of backends with status 200 to 299.",
            Counter::Responses3xx => "Responses of backends with status 300 to 399.",
            Counter::Responses4xx => "Responses of backends with status 400 to 499.",
            Counter::Responses5xx => "Responses of backends with status 500 to 599.",
            Counter::BackendsReused => {
                "Requests sent on a backend connection that had carried one before."
            }
            Counter::Redirects => "Requests redirected to https by an option of their host.",
            Counter::RequestsRetried => {
                "Requests sent again because a reused backend connection turned out closed."
            }
            Counter::Nat46OwnSource => {
                "Connects for IPv6 clients to source=nat46 backends, from the proxy's own address."
            }
            Counter::LookupsForgotten => "Connections unknown to look-ups for want of room.",
            Counter::LimitsUntracked => {
                "Times somebody was let in uncounted for want of room in the table of limits."
            }
        }
    }
}

impl Counter {
    /// The counter of a response's class; `status` is from 100 to 599.
    pub(crate) fn of_response(status: u16) -> Counter {
        match status {
            ..200 => Counter::Responses1xx,
            200..300 => Counter::Responses2xx,
            300..400 => Counter::Responses3xx,
            400..500 => Counter::Responses4xx,
            500.. => Counter::Responses5xx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage.index(), position);
        }
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.index(), position);
        }
    }
}
