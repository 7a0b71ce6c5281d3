//! How connections end. Every connection ends in exactly one [`Outcome`]; each has a name that
//! is the same in the log, in the metrics and in the docs, and none lumps two causes together.

use crate::protect::OverLimit;
use crate::refusal::Refusal;

/// The one way in which a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both sides finished: each direction carried its end of stream.
    Relayed,
    /// The client reset the connection while it was relayed.
    ClientReset,
    /// The backend reset the connection while it was relayed.
    BackendReset,
    /// No byte moved in either direction for the idle deadline.
    IdleTimeout,
    /// One side had finished, and the other sent no byte for the half-closed deadline.
    HalfClosedTimeout,
    /// The client finished sending while its answer was awaited, and that ends requests here.
    ClientFinished,
    /// The backend has left the host, whose option `removal` ends its connections.
    BackendRemoved,
    /// Still open when the drain deadline passed; cut by the stopping proxy.
    CutAtDrain,
    /// The client closed or reset before its head was complete.
    ClientLeft,
    /// A sender of PROXY headers said that the connection is its own and closed without another
    /// byte.
    HealthCheck,
    /// The head was not complete within the head deadline.
    HeadTimeout,
    /// The head is refused; the refusal says why.
    Refused(Refusal),
    /// The name has no route and the protocol has no default.
    UnknownName,
    /// A valid head without a name, and the protocol has no default.
    NoName,
    /// The route has no backend with a usable address (a DNS name that never resolved).
    NoAddress,
    /// Every attempted backend refused, reset or was unreachable.
    BackendUnreachable,
    /// The last attempted backend did not accept within the connect deadline.
    BackendTimeout,
    /// Every backend that is up has as many connections as it may, and there was no room in the
    /// queue, or no backend in time.
    BackendsFull,
    /// The process has as many connections as it may.
    TooManyConnections,
    /// The client has as many connections as one client may.
    ClientConnections,
    /// The client has made as many connections in a second as one client may.
    ClientRate,
    /// The host has as many connections and requests under way as its options allow.
    HostConnections,
    /// The host has had as many connections and requests in a second as its options allow.
    HostRate,
    /// This machine had no descriptor or no local port left for the backend connection.
    OutOfResources,
    /// No request came on a connection that was kept open for one.
    KeepAliveTimeout,
    /// The body of a request came too slowly.
    BodyTimeout,
    /// The client ended its stream within the body of a request.
    BodyCutOff,
    /// The backend took the request and began no response within the response deadline.
    ResponseTimeout,
    /// The backend closed or reset the connection before its response began.
    BackendClosed,
    /// The backend's response breaks HTTP, or where it ends is ambiguous.
    ResponseInvalid,
    /// The head of the backend's response does not end within the limit.
    ResponseHeadTooLarge,
    /// The options of the host say that HTTP clients are to be told 404.
    UnknownByOption,
    /// Every backend is to see the client's address, and none is of the client's family.
    SourceFamily,
    /// The kernel lets this process connect from its own addresses only.
    SourceForbidden,
    /// The kernel lets no connection to the backend come from the client's address.
    SourceRefused,
}

impl Outcome {
    const PLAIN: [Outcome; 34] = [
        Outcome::Relayed,
        Outcome::ClientReset,
        Outcome::BackendReset,
        Outcome::IdleTimeout,
        Outcome::HalfClosedTimeout,
        Outcome::ClientFinished,
        Outcome::BackendRemoved,
        Outcome::CutAtDrain,
        Outcome::ClientLeft,
        Outcome::HealthCheck,
        Outcome::HeadTimeout,
        Outcome::UnknownName,
        Outcome::NoName,
        Outcome::NoAddress,
        Outcome::BackendUnreachable,
        Outcome::BackendTimeout,
        Outcome::BackendsFull,
        Outcome::TooManyConnections,
        Outcome::ClientConnections,
        Outcome::ClientRate,
        Outcome::HostConnections,
        Outcome::HostRate,
        Outcome::OutOfResources,
        Outcome::KeepAliveTimeout,
        Outcome::BodyTimeout,
        Outcome::BodyCutOff,
        Outcome::ResponseTimeout,
        Outcome::BackendClosed,
        Outcome::ResponseInvalid,
        Outcome::ResponseHeadTooLarge,
        Outcome::UnknownByOption,
        Outcome::SourceFamily,
        Outcome::SourceForbidden,
        Outcome::SourceRefused,
    ];

    /// How many outcomes there are, refusals counted one by one.
    pub(crate) const COUNT: usize = Self::PLAIN.len() + Refusal::COUNT;

    /// Every outcome, in the order of [`Outcome::index`].
    pub(crate) fn all() -> impl Iterator<Item = Outcome> {
        Self::PLAIN
            .into_iter()
            .chain(Refusal::all().map(Outcome::Refused))
    }

    /// Position in [`Outcome::all`], below [`Outcome::COUNT`].
    pub(crate) fn index(self) -> usize {
        match self {
            Outcome::Refused(refusal) => Self::PLAIN.len() + refusal.index(),
            plain => Self::PLAIN
                .iter()
                .position(|outcome| *outcome == plain)
                .expect("every plain outcome is listed"),
        }
    }

    /// The name in log, metrics and docs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Relayed => "relayed",
            Outcome::ClientReset => "client_reset",
            Outcome::BackendReset => "backend_reset",
            Outcome::IdleTimeout => "idle_timeout",
            Outcome::HalfClosedTimeout => "half_closed_timeout",
            Outcome::ClientFinished => "client_finished",
            Outcome::BackendRemoved => "backend_removed",
            Outcome::CutAtDrain => "cut_at_drain",
            Outcome::ClientLeft => "client_left",
            Outcome::HealthCheck => "health_check",
            Outcome::HeadTimeout => "head_timeout",
            Outcome::Refused(refusal) => refusal.name(),
            Outcome::UnknownName => "unknown_name",
            Outcome::NoName => "no_name",
            Outcome::NoAddress => "no_address",
            Outcome::BackendUnreachable => "backend_unreachable",
            Outcome::BackendTimeout => "backend_timeout",
            Outcome::BackendsFull => "backends_full",
            Outcome::TooManyConnections => "too_many_connections",
            Outcome::ClientConnections => "client_connections",
            Outcome::ClientRate => "client_rate",
            Outcome::HostConnections => "host_connections",
            Outcome::HostRate => "host_rate",
            Outcome::OutOfResources => "out_of_resources",
            Outcome::KeepAliveTimeout => "keep_alive_timeout",
            Outcome::BodyTimeout => "body_timeout",
            Outcome::BodyCutOff => "body_cut_off",
            Outcome::ResponseTimeout => "response_timeout",
            Outcome::BackendClosed => "backend_closed",
            Outcome::ResponseInvalid => "response_invalid",
            Outcome::ResponseHeadTooLarge => "response_head_too_large",
            Outcome::UnknownByOption => "unknown_by_option",
            Outcome::SourceFamily => "source_family",
            Outcome::SourceForbidden => "source_forbidden",
            Outcome::SourceRefused => "source_refused",
        }
    }

    /// Whether it ends a client that is not to cost anything more, rather than one that might be
    /// served.
    pub(crate) fn is_turned_away(self) -> bool {
        matches!(
            self,
            Outcome::TooManyConnections | Outcome::ClientConnections | Outcome::ClientRate
        )
    }

    /// One sentence for the operator: the cause, and after a semicolon what to do about it.
    pub(crate) fn explain(self) -> &'static str {
        match self {
            Outcome::Relayed => "both sides finished; nothing to do",
            Outcome::ClientReset => {
                "the client reset the connection while it was relayed; usual for browsers that close a tab, otherwise look at the client"
            }
            Outcome::BackendReset => {
                "the backend reset the connection while it was relayed; look at the backend's log"
            }
            Outcome::IdleTimeout => {
                "no byte moved for the idle deadline; raise idle-deadline if such long silence is normal here"
            }
            Outcome::HalfClosedTimeout => {
                "one side had finished sending, and no byte of the other came for the half-closed deadline; usual for clients that have left, otherwise raise half-closed-deadline"
            }
            Outcome::ClientFinished => {
                "the client finished sending before it had its whole answer, and client-finished is abort; usual for clients that leave, set client-finished=wait if they still read"
            }
            Outcome::BackendRemoved => {
                "the backend left the host, and its option removal ends connections then; set removal=keep, or a longer drain=, if they are to go on"
            }
            Outcome::CutAtDrain => {
                "still open when the drain deadline passed or a second signal came; raise drain if clients need longer"
            }
            Outcome::ClientLeft => {
                "the client closed before its head was complete; usual for port scans and health probes"
            }
            Outcome::HealthCheck => {
                "a sender listed in proxy-from looked whether the port answers and closed; nothing to do"
            }
            Outcome::HeadTimeout => {
                "the head was not complete within the head deadline; slow or hostile clients, or a protocol in which the server speaks first"
            }
            Outcome::Refused(refusal) => refusal.explain(),
            Outcome::UnknownName => {
                "the name has no route and the protocol no default; add the route or a default"
            }
            Outcome::NoName => {
                "the head has no name and the protocol no default; add a default if such clients are yours"
            }
            Outcome::NoAddress => {
                "no backend of the route has an address; its DNS names do not resolve, correct them or the resolver"
            }
            Outcome::BackendUnreachable => {
                "every backend tried refused, reset or was unreachable; start it, or correct the route"
            }
            Outcome::BackendTimeout => {
                "the last backend tried did not accept within the connect deadline; look at its load and at firewalls between"
            }
            Outcome::BackendsFull => {
                "every backend that is up has as many connections as max= allows, and the queue was full or took too long; add backends, or raise max= or queue"
            }
            Outcome::TooManyConnections => {
                "the process has as many connections as max-connections allows; raise it, or look who has so many"
            }
            Outcome::ClientConnections => {
                "the client has as many connections as max-connections-per-client allows; raise it, or list the client in limit-exempt if it stands for many"
            }
            Outcome::ClientRate => {
                "the client makes more new connections in a second than max-rate-per-client allows; raise it, or list the client in limit-exempt if it stands for many"
            }
            Outcome::HostConnections => {
                "the host has as many connections and requests under way as its option max-connections allows; raise it, or add backends"
            }
            Outcome::HostRate => {
                "the host is asked more often in a second than its option max-rate allows; raise it, or look who asks"
            }
            Outcome::OutOfResources => {
                "no descriptor or local port was left for the backend connection; raise LimitNOFILE= or widen net.ipv4.ip_local_port_range"
            }
            Outcome::KeepAliveTimeout => {
                "no request came on a kept connection within the keep-alive deadline; usual for browsers, nothing to do"
            }
            Outcome::BodyTimeout => {
                "less than 1 KiB of a request's body came within the body deadline; slow or hostile clients, raise body-deadline if such clients are yours"
            }
            Outcome::BodyCutOff => {
                "the client ended its stream within the body of a request; usual for uploads that are given up"
            }
            Outcome::ResponseTimeout => {
                "the backend began no response within the response deadline; look at its load, or raise response-deadline"
            }
            Outcome::BackendClosed => {
                "the backend closed the connection before its response began; look at the backend's log"
            }
            Outcome::ResponseInvalid => {
                "the backend's response breaks HTTP or its end is ambiguous; look at what the backend speaks on that port"
            }
            Outcome::UnknownByOption => {
                "the options of the host have unknown=404; remove it there to serve the host"
            }
            Outcome::ResponseHeadTooLarge => {
                "the head of the backend's response is larger than the limit; raise response-head-bytes-max if such responses are yours"
            }
            Outcome::SourceFamily => {
                "the backend is to see the client's address and one is IPv4, the other IPv6; add a backend of the other family, or write source=nat46 for IPv4 clients of IPv6 backends"
            }
            Outcome::SourceForbidden => {
                "the kernel forbids this process to connect from the client's address; grant CAP_NET_ADMIN, as AmbientCapabilities= in systemd"
            }
            Outcome::SourceRefused => {
                "no connection to that backend can come from the client's address, such as 127.0.0.1 to another machine; leave source= out for such clients' routes"
            }
        }
    }
}

impl From<OverLimit> for Outcome {
    fn from(over: OverLimit) -> Outcome {
        match over {
            OverLimit::Connections => Outcome::TooManyConnections,
            OverLimit::ClientConnections => Outcome::ClientConnections,
            OverLimit::ClientRate => Outcome::ClientRate,
            OverLimit::HostConnections => Outcome::HostConnections,
            OverLimit::HostRate => Outcome::HostRate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all_and_names_are_unique() {
        let all: Vec<Outcome> = Outcome::all().collect();
        assert_eq!(all.len(), Outcome::COUNT);
        for (position, outcome) in all.iter().enumerate() {
            assert_eq!(outcome.index(), position);
        }
        let mut names: Vec<&str> = all.iter().map(|outcome| outcome.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::COUNT);
    }

    #[test]
    fn the_docs_explain_every_outcome() {
        let page = include_str!("../docs/outcomes.md");
        for outcome in Outcome::all() {
            let row = format!("| `{}` | {} |", outcome.name(), outcome.explain());
            assert!(page.contains(&row), "docs/outcomes.md lacks the row\n{row}");
        }
    }
}
