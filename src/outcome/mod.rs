//! How connections end. Every connection ends in exactly one [`Outcome`]. Its name is the same in the
//! log, in the metrics and in `docs/outcomes.md`, and none lumps two causes together. One table holds
//! all that is said about an outcome, so that none of it can be forgotten.

mod error_response;
mod side;
#[cfg(test)]
mod tests;

pub(crate) use error_response::{Alert, ErrorResponse, HttpError};
pub(crate) use side::Side;

use crate::protect::OverLimit;
use crate::refusal::Refusal;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $side:ident {
        response: $response:expr,
        otherwise: $otherwise:literal,
        cause: $cause:literal,
        look: $look:literal,
        remedy: $remedy:literal,
    })*) => {
        /// The one way in which a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($(#[$doc])* $variant,)*
            /// The head is refused; the refusal says why.
            Refused(Refusal),
        }

        impl Outcome {
            /// All but the refusals.
            const PLAIN: [Outcome; [$($name),*].len()] = [$(Outcome::$variant),*];

            /// Position in [`Outcome::all`], below [`Outcome::COUNT`].
            pub(crate) fn index(self) -> usize {
                enum Position {
                    $($variant,)*
                }
                match self {
                    $(Outcome::$variant => Position::$variant as usize,)*
                    Outcome::Refused(refusal) => Self::PLAIN.len() + refusal.index(),
                }
            }

            /// The name in log, metrics and docs.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $name,)*
                    Outcome::Refused(refusal) => refusal.name(),
                }
            }

            /// Whose act or silence it was.
            pub(crate) fn side(self) -> Side {
                match self {
                    $(Outcome::$variant => Side::$side,)*
                    Outcome::Refused(_) => Side::Client,
                }
            }

            /// What the client is told.
            pub(crate) fn response(self) -> ErrorResponse {
                match self {
                    $(Outcome::$variant => $response,)*
                    Outcome::Refused(refusal) => ErrorResponse::of_refusal(refusal.answer()),
                }
            }

            /// What the client sees where it is told nothing; may be empty.
            pub(crate) fn otherwise(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $otherwise,)*
                    Outcome::Refused(_) => "",
                }
            }

            /// What happened.
            pub(crate) fn cause(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $cause,)*
                    Outcome::Refused(refusal) => halves(refusal).0,
                }
            }

            /// Where an operator sees more.
            pub(crate) fn look(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $look,)*
                    Outcome::Refused(_) => {
                        "client.address= in the access log (log debug) says who sent it, \
                         network.peer.address= through which proxy"
                    }
                }
            }

            /// What an operator can do about it.
            pub(crate) fn remedy(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $remedy,)*
                    Outcome::Refused(refusal) => halves(refusal).1,
                }
            }

            /// One sentence for the log: the cause, and after a semicolon the remedy.
            pub(crate) fn explain(self) -> &'static str {
                match self {
                    $(Outcome::$variant => concat!($cause, "; ", $remedy),)*
                    Outcome::Refused(refusal) => refusal.explain(),
                }
            }
        }
    };
}

outcomes! {
    /// Both sides finished: each direction carried its end of stream.
    Relayed "relayed" Both {
        response: ErrorResponse::SILENT,
        otherwise: "the end of the backend's stream",
        cause: "both sides finished sending, and all that they sent was passed on",
        look: "nothing is wrong",
        remedy: "nothing to do",
    }
    /// The client reset the connection while it was relayed.
    ClientReset "client_reset" Client {
        response: ErrorResponse::SILENT,
        otherwise: "nothing, since it has left",
        cause: "the client reset the connection while it was relayed",
        look: "client.address= in the access log (log debug), and the client's own log",
        remedy: "usual for browsers that close a tab, otherwise look at the client",
    }
    /// The backend reset the connection while it was relayed.
    BackendReset "backend_reset" Backend {
        response: ErrorResponse::SILENT,
        otherwise: "a reset, after all that the backend had sent",
        cause: "the backend reset the connection while it was relayed",
        look: "backend= in the access log (log debug), and whether that backend crashed, restarted or timed \
            out",
        remedy: "look at the backend's log",
    }
    /// No byte moved in either direction for the idle deadline.
    IdleTimeout "idle_timeout" Both {
        response: ErrorResponse::SILENT,
        otherwise: "a reset",
        cause: "no byte moved in either direction for idle-deadline",
        look: "whether the application is silent that long on purpose, as a database session may be",
        remedy: "raise idle-deadline if such long silence is normal here, or let one side send keep-alives",
    }
    /// One side had finished, and the other sent no byte for the half-closed deadline.
    HalfClosedTimeout "half_closed_timeout" Both {
        response: ErrorResponse::http(504, "The backend did not answer in time."),
        otherwise: "a reset where it still waits for bytes",
        cause: "one side had finished sending, and the other sent no byte for half-closed-deadline",
        look: "the bytes in the access log (log debug): where hardly any came back, the client has left",
        remedy: "usual for clients that have left, otherwise raise half-closed-deadline",
    }
    /// The client finished sending while its answer was awaited, and that ends requests here.
    ClientFinished "client_finished" Client {
        response: ErrorResponse::SILENT,
        otherwise: "the end of the connection",
        cause: "the client finished sending before it had its whole response, and client-finished is abort",
        look: "whether such clients still read: those that half-close, like nc -N, do",
        remedy: "usual for clients that leave, set client-finished to wait if they still read",
    }
    /// The backend has left the host, whose option `removal` ends its connections.
    BackendRemoved "backend_removed" Proxy {
        response: ErrorResponse::both(
            Alert::InternalError, 502, "The backend of this request was taken out of service."),
        otherwise: "a reset, after all that it was sent, where a response or a relay was under way",
        cause: "the backend left the host, whose option removal ends connections then",
        look: "the host's members in Redis or in the routes file, and who changed them",
        remedy: "set removal=keep, or a longer drain=, if the connections are to go on",
    }
    /// Still open when the drain deadline passed; cut by the stopping proxy.
    CutAtDrain "cut_at_drain" Proxy {
        response: ErrorResponse::SILENT,
        otherwise: "a reset, after all that it was sent",
        cause: "the proxy was told to stop, and the connection was still open when drain was over or a \
            second signal came",
        look: "which connections live that long: lifetime in the access log (log debug)",
        remedy: "raise drain if clients need longer",
    }
    /// The client closed or reset before its head was complete.
    ClientLeft "client_left" Client {
        response: ErrorResponse::SILENT,
        otherwise: "nothing, since it has left",
        cause: "the client closed the connection before its head was complete",
        look: "client.address= in the access log (log debug), if there are many",
        remedy: "usual for port scans, health probes and browsers that connect ahead",
    }
    /// A sender of PROXY headers said that the connection is its own and closed without another
    /// byte.
    HealthCheck "health_check" Client {
        response: ErrorResponse::SILENT,
        otherwise: "nothing, since it has left",
        cause: "a sender listed in proxy-from opened a connection of its own and closed it without a request",
        look: "nothing is wrong: the balancer in front checks this proxy",
        remedy: "nothing to do",
    }
    /// The head was not complete within the head deadline.
    HeadTimeout "head_timeout" Client {
        response: ErrorResponse::http(408, "The head of the request did not arrive in time."),
        otherwise: "over TLS the end of the connection",
        cause: "the ClientHello or the request's head was not complete within head-deadline",
        look: "client.address= in the access log (log debug), and whether the server speaks first in that \
            protocol, as in SMTP",
        remedy: "slow or hostile clients; raise head-deadline only for clients on very bad networks",
    }
    /// The name has no route and the protocol has no default.
    UnknownName "unknown_name" Proxy {
        response: ErrorResponse::both(
            Alert::UnrecognizedName, 421, "This host name is not served here."),
        otherwise: "",
        cause: "the name that the client asked for has no route, and the protocol has no default",
        look: "server.address= in the access log (log debug), and hosts and rejected_keys of sync in /status",
        remedy: "add the route, or a default",
    }
    /// A valid head without a name, and the protocol has no default.
    NoName "no_name" Client {
        response: ErrorResponse::both(
            Alert::UnrecognizedName, 400, "The request names no host, and there is no default."),
        otherwise: "",
        cause: "the client named no host (no SNI, or HTTP/1.0 without Host), and the protocol has no default",
        look: "client.address= in the access log (log debug): scanners and clients that connect to an \
            address do this",
        remedy: "add a default if such clients are yours",
    }
    /// The route has no backend with a usable address (a DNS name that never resolved).
    NoAddress "no_address" Proxy {
        response: ErrorResponse::both(
            Alert::InternalError, 502, "No backend of this host has a known address."),
        otherwise: "",
        cause: "no backend of the route has an address, since its DNS names do not resolve",
        look: "names_unresolved and names_failing of sync in /status, and the lines of the log about DNS",
        remedy: "correct the members, or the resolver (dns-server)",
    }
    /// Every attempted backend refused, reset or was unreachable.
    BackendUnreachable "backend_unreachable" Backend {
        response: ErrorResponse::both(
            Alert::InternalError, 502, "No backend of this host can be reached."),
        otherwise: "",
        cause: "every backend tried refused the connection, reset it or was unreachable",
        look: "/backends of the admin endpoint, and from this machine: nc -vz BACKEND PORT",
        remedy: "start the backend, or correct the route",
    }
    /// The last attempted backend did not accept within the connect deadline.
    BackendTimeout "backend_timeout" Backend {
        response: ErrorResponse::both(
            Alert::InternalError, 504, "No backend of this host accepted in time."),
        otherwise: "",
        cause: "the last backend tried did not accept, or did not answer the hello, in time",
        look: "the backend's load and the queue of its listener (ss -ltn there), and firewalls between",
        remedy: "relieve the backend or open the firewall; connect-deadline and first-byte-deadline bound \
            the wait",
    }
    /// Every backend that is up has as many connections as it may, and there was no room in the
    /// queue, or no backend in time.
    BackendsFull "backends_full" Proxy {
        response: ErrorResponse::both(
            Alert::InternalError, 503, "Every backend of this host has as much to do as it may."),
        otherwise: "",
        cause: "every backend that is up has as many connections as max= allows, and the queue was full or \
            took too long",
        look: "live in /backends of the admin endpoint, and pointsman_upstream_queued_total",
        remedy: "add backends, or raise max=, queue or queue-deadline",
    }
    /// The process has as many connections as it may.
    TooManyConnections "too_many_connections" Proxy {
        response: ErrorResponse::http(503, "The proxy has as many connections as it may."),
        otherwise: "over TLS the end of the connection",
        cause: "the process has as many connections as max-connections allows",
        look: "pointsman_core_open_connections, and client.address= in the access log (log debug)",
        remedy: "raise max-connections, or look who has so many",
    }
    /// The client has as many connections as one client may.
    ClientConnections "client_connections" Client {
        response: ErrorResponse::http(503, "Your address has as many connections as it may."),
        otherwise: "over TLS the end of the connection",
        cause: "the client has as many connections as max-connections-per-client allows",
        look: "client.address= in the access log (log debug)",
        remedy: "raise the limit, or list the client in limit-exempt if its address stands for many",
    }
    /// The client has made as many connections in a second as one client may.
    ClientRate "client_rate" Client {
        response: ErrorResponse::http(429, "Your address makes new connections too often."),
        otherwise: "over TLS the end of the connection",
        cause: "the client makes more new connections in a second than max-rate-per-client allows",
        look: "client.address= in the access log (log debug)",
        remedy: "raise the limit, or list the client in limit-exempt if its address stands for many",
    }
    /// The host has as many connections and requests under way as its options allow.
    HostConnections "host_connections" Proxy {
        response: ErrorResponse::http(503, "This host has as much to do as it may."),
        otherwise: "over TLS the end of the connection",
        cause: "the host has as many connections and requests under way as its option max-connections allows",
        look: "server.address= in the access log (log debug), and how long the backends take to answer",
        remedy: "raise the option, or add backends",
    }
    /// The host has had as many connections and requests in a second as its options allow.
    HostRate "host_rate" Proxy {
        response: ErrorResponse::http(503, "This host is asked more often than it may."),
        otherwise: "over TLS the end of the connection",
        cause: "the host is asked more often in a second than its option max-rate allows",
        look: "server.address= and client.address= in the access log (log debug)",
        remedy: "raise the option, or look who asks",
    }
    /// This machine had no descriptor or no local port left for the backend connection.
    OutOfResources "out_of_resources" Proxy {
        response: ErrorResponse::both(
            Alert::InternalError, 503, "The proxy has no room for another connection."),
        otherwise: "",
        cause: "no descriptor, memory or local port was left for the backend connection",
        look: "/proc/PID/limits, and ss -s for connections in TIME-WAIT",
        remedy: "raise LimitNOFILE=, widen net.ipv4.ip_local_port_range, or set net.ipv4.tcp_tw_reuse=1",
    }
    /// No request came on a connection that was kept open for one.
    KeepAliveTimeout "keep_alive_timeout" Client {
        response: ErrorResponse::SILENT,
        otherwise: "the end of the connection",
        cause: "no further request came on a kept connection within keep-alive-deadline",
        look: "nothing is wrong",
        remedy: "usual for browsers; behind a balancer keep-alive-deadline has to be longer than the \
            balancer keeps connections",
    }
    /// The body of a request came too slowly.
    BodyTimeout "body_timeout" Client {
        response: ErrorResponse::http(408, "The body of the request came too slowly."),
        otherwise: "",
        cause: "less than 1 KiB of a request's body came within body-deadline",
        look: "client.address= in the access log (log debug)",
        remedy: "slow or hostile clients; raise body-deadline if such clients are yours",
    }
    /// The client ended its stream within the body of a request.
    BodyCutOff "body_cut_off" Client {
        response: ErrorResponse::SILENT,
        otherwise: "the end of the connection",
        cause: "the client ended its stream within the body of a request",
        look: "client.address= in the access log (log debug), if there are many",
        remedy: "usual for uploads that are given up",
    }
    /// The backend took the request and began no response within the response deadline.
    ResponseTimeout "response_timeout" Backend {
        response: ErrorResponse::http(504, "The backend did not answer in time."),
        otherwise: "",
        cause: "the backend took the request and began no response within response-deadline",
        look: "backend= in the line of the log, and how long that backend takes for such requests",
        remedy: "look at the backend's load, or raise response-deadline",
    }
    /// The backend closed or reset the connection before its response began.
    BackendClosed "backend_closed" Backend {
        response: ErrorResponse::http(
            502, "The backend closed the connection without an answer."),
        otherwise: "over TLS the end of the connection",
        cause: "the backend closed or reset the connection before its response began, and the request could \
            not be repeated",
        look: "backend= in the line of the log, and that backend's log; where it is a POST now and then, \
            its idle time-out",
        remedy: "correct the backend; let pool-idle-deadline be shorter than the backend keeps idle \
            connections",
    }
    /// The backend's response breaks HTTP, or where it ends is ambiguous.
    ResponseInvalid "response_invalid" Backend {
        response: ErrorResponse::http(502, "The backend's answer is no valid HTTP."),
        otherwise: "",
        cause: "the backend's response breaks HTTP, or where it ends is ambiguous",
        look: "rule= and backend= in the line of the log, and what that backend speaks on its port",
        remedy: "correct the backend, or the port in the route",
    }
    /// The head of the backend's response does not end within the limit.
    ResponseHeadTooLarge "response_head_too_large" Backend {
        response: ErrorResponse::http(
            502, "The head of the backend's answer is larger than allowed."),
        otherwise: "",
        cause: "the head of the backend's response is larger than response-head-bytes-max",
        look: "backend= in the line of the log, and the cookies that it sets",
        remedy: "raise response-head-bytes-max if such responses are yours",
    }
    /// The options of the host say that HTTP clients are to be told 404.
    UnknownByOption "unknown_by_option" Proxy {
        response: ErrorResponse::http(404, "This host name is not served here."),
        otherwise: "",
        cause: "the options of the host have unknown=404",
        look: "the host's options in Redis or in the routes file",
        remedy: "remove the option to serve the host",
    }
    /// Every backend is to see the client's address, and none is of the client's family.
    SourceFamily "source_family" Proxy {
        response: ErrorResponse::both(Alert::InternalError, 502, NOT_FROM_YOUR_ADDRESS),
        otherwise: "",
        cause: "the backend is to see the client's address (source=client), and one is IPv4, the other IPv6",
        look: "the members of the route, and client.address= in the access log (log debug)",
        remedy: "add a backend of the other family, or write source=nat46 for IPv4 clients of IPv6 backends",
    }
    /// The kernel lets this process connect from its own addresses only.
    SourceForbidden "source_forbidden" Proxy {
        response: ErrorResponse::both(Alert::InternalError, 502, NOT_FROM_YOUR_ADDRESS),
        otherwise: "",
        cause: "the kernel forbids this process to connect from the client's address (source=client)",
        look: "pointsman check with the same options, which tries it",
        remedy: "grant CAP_NET_ADMIN, as AmbientCapabilities= in systemd",
    }
    /// The kernel lets no connection to the backend come from the client's address.
    SourceRefused "source_refused" Proxy {
        response: ErrorResponse::both(Alert::InternalError, 502, NOT_FROM_YOUR_ADDRESS),
        otherwise: "",
        cause: "no connection to that backend can come from the client's address, such as from 127.0.0.1 to \
            another machine",
        look: "client.address= and backend= in the access log (log debug)",
        remedy: "leave source= out for such clients' routes",
    }
}

const NOT_FROM_YOUR_ADDRESS: &str = "No backend of this host can be reached from your address.";

/// A refusal's cause and its remedy.
fn halves(refusal: Refusal) -> (&'static str, &'static str) {
    let text = refusal.explain();
    text.split_once("; ").unwrap_or((text, "nothing to do"))
}

impl Outcome {
    /// How many outcomes there are, refusals counted one by one.
    pub(crate) const COUNT: usize = Self::PLAIN.len() + Refusal::COUNT;

    /// Every outcome, in the order of [`Outcome::index`].
    pub(crate) fn all() -> impl Iterator<Item = Outcome> {
        Self::PLAIN
            .into_iter()
            .chain(Refusal::all().map(Outcome::Refused))
    }

    /// The command that says more, for the log.
    pub(crate) fn see(self) -> String {
        format!("pointsman explain {}", self.name())
    }

    /// Whether it ends a client that is not to cost anything more, rather than one that might be
    /// served.
    pub(crate) fn is_turned_away(self) -> bool {
        matches!(
            self,
            Outcome::TooManyConnections | Outcome::ClientConnections | Outcome::ClientRate
        )
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
