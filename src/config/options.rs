//! The one list of options. The command line, the environment and the file are all read by it, so
//! that an option has the same name, unit, default and help wherever it is set.

/// One option: `--head-deadline`, `POINTSMAN_HEAD_DEADLINE`, or `head-deadline` in the file.
#[derive(Debug)]
pub(super) struct OptionSpec {
    pub name: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    pub repeatable: bool,
    /// As an operator would write it; empty: none.
    pub default: &'static str,
    /// What it does, the unit, and the reason for the default.
    pub help: &'static str,
    pub hidden: bool,
}

impl OptionSpec {
    pub(super) fn environment_name(&self) -> String {
        let name = self.name.replace('-', "_").to_ascii_uppercase();
        format!("{ENVIRONMENT_PREFIX}{name}")
    }
}

pub(super) const ENVIRONMENT_PREFIX: &str = "POINTSMAN_";

/// Separates the values of a repeatable option in the environment: addresses hold colons, routes
/// commas, and members may hold blanks.
pub(super) const ENVIRONMENT_SEPARATOR: char = ';';

const fn one(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        name,
        value,
        repeatable: false,
        default,
        help,
        hidden: false,
    }
}

const fn many(name: &'static str, value: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        repeatable: true,
        ..one(name, value, "", help)
    }
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    one(
        "config",
        "FILE",
        "",
        "TOML file with any of these options, by the same names",
    ),
    many(
        "https",
        "ADDR",
        "Listen for TLS and route by SNI: IP:PORT, [IPV6]:PORT, or :PORT for both families; port 0 lets the kernel choose",
    ),
    many(
        "http",
        "ADDR",
        "Listen for HTTP/1 and route by Host; addresses as for --https",
    ),
    many(
        "listen",
        "ADDR",
        "unwrap: listen for connections that begin with a PROXY header; addresses as for --https",
    ),
    many(
        "to",
        "ADDR",
        "unwrap: the server to connect to with the client's address as source, IP:PORT or [IPV6]:PORT; one of each family when clients have both",
    ),
    one(
        "redis",
        "URL",
        "",
        "Routes from Redis: redis://, rediss:// or unix://, with user, password and database number; the environment hides a password better than the command line",
    ),
    one(
        "redis-ca",
        "FILE",
        "",
        "Certificates (PEM) to trust for rediss:// instead of the system's",
    ),
    many(
        "route",
        "HOST=MEMBER[,MEMBER]",
        "A static route; HOST may be *.DOMAIN, default:https or default:http. Members are HOST, HOST:PORT, [IPV6]:PORT or unix:/PATH. Under Redis it is the fallback",
    ),
    one(
        "routes",
        "FILE",
        "",
        "TOML file of static routes, read again on SIGHUP and when it changes",
    ),
    one(
        "cores",
        "LIST",
        "all",
        "Processors to run a core on, like 0-3,6, or all that this process may use",
    ),
    one(
        "admin",
        "ADDR",
        "",
        "Serve /metrics, /status and /ready here; :PORT is loopback only, because whoever reaches it sees every backend's name",
    ),
    many(
        "admin-host",
        "HOST",
        "Answer requests to the admin endpoint whose Host is this, without port; its own address and localhost always are. Others get 421, so that no page in a browser can read it under a name of its own",
    ),
    one(
        "lookup",
        "YESNO",
        "no",
        "yes: /client?backend=IP:PORT on the admin endpoint tells who is behind the connection that a backend sees come from there; takes two system calls and some 450 bytes per connection",
    ),
    one(
        "latency-dir",
        "DIR",
        "",
        "Where SIGUSR1 writes histograms; without it the table goes to the log",
    ),
    one(
        "log",
        "LEVEL",
        "info",
        "error, warn, info, debug or trace. Single connections appear at debug: on a busy proxy they are most of the volume",
    ),
    one(
        "log-format",
        "FORMAT",
        "text",
        "text or json, one line per event on standard error",
    ),
    many(
        "proxy-from",
        "CIDR",
        "Senders whose PROXY headers (v1, v2) are believed, addresses or networks; they use the same ports as direct clients. From all others a PROXY header is refused, because it could claim any address",
    ),
    one(
        "proxy-in",
        "HOW",
        "required",
        "required: those senders have to begin with a header; optional: they may. Required, because where a balancer forgets its header, optional would believe the one that a client writes itself, and nobody would notice",
    ),
    one(
        "proxy-ja4",
        "YESNO",
        "no",
        "yes: headers for members with proxy=v2 carry the JA4 fingerprint of the client's hello, as TLV 0xE0",
    ),
    one(
        "max-connections",
        "COUNT",
        "",
        "Client connections of the process at most, the others are refused by name; without it only the limit of open files holds, at which clients wait",
    ),
    one(
        "max-connections-per-client",
        "COUNT",
        "",
        "Connections of one client at most: of an IPv4 address or of the /64 of an IPv6 address",
    ),
    one(
        "max-rate-per-client",
        "COUNT",
        "",
        "New connections of one client in a second at most, of which as many may come at once",
    ),
    many(
        "limit-exempt",
        "CIDR",
        "Clients without limits of their own, such as monitoring, or an office behind one address",
    ),
    many(
        "backend-allow",
        "CIDR",
        "Networks in which backends may be, and nowhere else, whoever writes a member or a DNS name. Without it everywhere but at link-local addresses, where machines in clouds find their credentials",
    ),
    one(
        "balance",
        "HOW",
        "p2c",
        "p2c (of two backends drawn at random the less busy one), least, round-robin, random, source (by the client's address) or first (the heaviest that has room). p2c keeps away from a slow backend without knowing why it is slow. A host may say otherwise",
    ),
    one(
        "backend-congestion",
        "NAME",
        "auto",
        "TCP congestion control towards backends: auto, system or a name. auto is the system's, but cubic where that is bbr, also for clients on this machine: pacing is for the Internet and costs more than all else on the way to a backend",
    ),
    one(
        "head-deadline",
        "DURATION",
        "10s",
        "From accept until the ClientHello or request head is complete; long enough for a phone on a bad network, short enough that silent connections do not pile up",
    ),
    one(
        "connect-deadline",
        "DURATION",
        "3s",
        "For one attempt to connect to a backend; a lost SYN is sent again after 1 s, so this survives one",
    ),
    one(
        "first-byte-deadline",
        "DURATION",
        "",
        "For the first byte of a TLS backend that has the hello, before another one gets it, too; the first that answers has the client. Without it that of connect-deadline; longer where backends answer late, as after a cold start",
    ),
    one(
        "connect-attempts",
        "COUNT",
        "3",
        "Backends tried before the client is told that none is reachable; with the deadline it bounds the client's wait to 9 s",
    ),
    one(
        "backend-deadline",
        "DURATION",
        "9s",
        "From the head until a backend has accepted, all attempts together; three attempts that each take the whole connect deadline",
    ),
    one(
        "eject-failures",
        "COUNT",
        "3",
        "Failures in a row (refused, unreachable, too slow, closed without an answer that another backend gave) after which a backend gets no connections for a while; 0: none is ever kept out. All of a host's backends are never kept out at once: then all are used",
    ),
    one(
        "eject-share",
        "PERCENT",
        "50",
        "The part of a backend's connections within 10 s whose failure, five at least, keeps it out, too",
    ),
    one(
        "eject-time",
        "DURATION",
        "2s",
        "How long a backend is kept out first, a quarter more or less at random; twice as long each time again. Then one connection tries",
    ),
    one(
        "eject-time-max",
        "DURATION",
        "1m",
        "How long at most; a backend that has been good for that long begins anew with eject-time",
    ),
    one(
        "queue",
        "COUNT",
        "128",
        "Clients of a host that may wait while every backend has as many connections as its max= allows; more could not all be served in time",
    ),
    one(
        "queue-deadline",
        "DURATION",
        "1s",
        "How long one of them waits; longer than a usual exchange, shorter than a client's patience",
    ),
    one(
        "idle-deadline",
        "DURATION",
        "1h",
        "Without a byte in either direction the connection ends; longer than usual keep-alives, because a peer that vanished would hold two descriptors for ever",
    ),
    one(
        "tcp-keep-alive",
        "DURATION",
        "60s",
        "After so much silence the kernel probes whether a client or a backend is still there, in seconds; the fourth probe without an answer, a quarter of it apart, ends the connection. A peer that vanished is found after two minutes and not at the idle deadline; 0s: never",
    ),
    one(
        "half-closed-deadline",
        "DURATION",
        "60s",
        "Once one side has finished sending, the connection ends after so long without a byte of the other: an HTTP client that waits for its answer, a relay, a tunnel. Who has left looks like who still reads; as long as a response may take",
    ),
    one(
        "client-finished",
        "WORD",
        "wait",
        "What becomes of a request whose HTTP client finishes sending before it has its answer: wait, since it may still read, or abort at once, since most have left; hosts may say otherwise",
    ),
    one(
        "drain",
        "DURATION",
        "30s",
        "After SIGTERM or SIGINT open connections may finish for this long; the usual grace of service managers. Idle HTTP clients are let go over its first half, relays and tunnels reset over its second, so that not all come back in the same moment",
    ),
    one(
        "hello-bytes-max",
        "BYTES",
        "64KiB",
        "Largest ClientHello with its record headers; several times what post-quantum clients send",
    ),
    one(
        "request-head-bytes-max",
        "BYTES",
        "32KiB",
        "Largest HTTP request head; what usual servers take at most",
    ),
    one(
        "backlog",
        "COUNT",
        "4096",
        "Connections that may wait for accept, per core and address; the kernel cuts it to net.core.somaxconn",
    ),
    one(
        "turn-bytes",
        "BYTES",
        "1MiB",
        "What one direction moves at most while others wait for their turn; more starves small connections, less costs processor time in bulk",
    ),
    one(
        "pipe-bytes",
        "BYTES",
        "2MiB",
        "Capacity of each splice pipe, and what a stream that has its core to itself moves in one piece; without CAP_SYS_RESOURCE fs.pipe-max-size bounds it, and half as much is taken until it fits",
    ),
    one(
        "pipes-per-core",
        "COUNT",
        "256",
        "Splice pipes of a core at most; bounds kernel memory, since bulk beyond it is copied; 0 never splices",
    ),
    one(
        "ring-entries",
        "COUNT",
        "1024",
        "Submission entries of each core's io_uring, a power of two; bounds one batch, not the number of connections",
    ),
    one(
        "keep-alive-deadline",
        "DURATION",
        "60s",
        "Between two requests of an HTTP connection; what browsers keep connections for",
    ),
    one(
        "body-deadline",
        "DURATION",
        "30s",
        "In every such span at least 1 KiB of a request's body must come, or all that is left; slower senders hold a backend for nothing",
    ),
    one(
        "response-deadline",
        "DURATION",
        "60s",
        "From a request sent to the head of its response; what the common proxies wait",
    ),
    one(
        "response-head-bytes-max",
        "BYTES",
        "32KiB",
        "Largest HTTP response head",
    ),
    one(
        "requests-per-connection-max",
        "COUNT",
        "10000",
        "Requests served on one connection before it is closed, which spreads long-lived clients over the cores anew",
    ),
    one(
        "pool-per-backend",
        "COUNT",
        "64",
        "Idle connections to one backend that a core keeps for the next request, whoever it comes from; 0 keeps none",
    ),
    one(
        "pool-per-core",
        "COUNT",
        "1024",
        "The same for all backends of a core together",
    ),
    one(
        "pool-idle-deadline",
        "DURATION",
        "30s",
        "An idle connection to a backend is closed after this; shorter than what servers wait, so that a request seldom meets a closing one",
    ),
    one(
        "forwarded",
        "LIST",
        "",
        "Tell HTTP backends about the client: some of x-forwarded-for, x-forwarded-proto, x-forwarded-port, x-real-ip, forwarded, with commas between. What the client says in these fields is replaced",
    ),
    many(
        "trusted-from",
        "CIDR",
        "Clients from here, such as another proxy, are believed about those before them: --forwarded appends to what they say",
    ),
    one(
        "h2c",
        "YESNO",
        "no",
        "yes: carry HTTP/2 without TLS on the HTTP port, the whole connection routed by its first request; requests for other hosts on it reach the same backend",
    ),
    one(
        "outcome-header",
        "YESNO",
        "yes",
        "no: leave the outcome's name out of the proxy's own answers",
    ),
    many(
        "error-page",
        "STATUS=FILE",
        "Send this HTML with answers of the proxy itself that have this status; read at the start",
    ),
    one(
        "unknown-host",
        "STATUS",
        "421",
        "What an HTTP client is told that asks for a host without route: 421, after which a client may try another connection, or 404",
    ),
    one(
        "snapshot",
        "FILE",
        "",
        "The last known table is kept here and serves at start while Redis does not answer",
    ),
    one(
        "redis-prefix",
        "TEXT",
        "hostnames:",
        "In front of every Redis key",
    ),
    one(
        "redis-full-comparison",
        "DURATION",
        "60s",
        "Between two comparisons of the whole table; the floor under live changes, finds whatever they missed",
    ),
    one(
        "redis-ping",
        "DURATION",
        "2s",
        "Between two pings of the Redis connection",
    ),
    one(
        "redis-ping-timeout",
        "DURATION",
        "2s",
        "Without an answer for this long Redis counts as away; TCP alone notices a frozen server after minutes",
    ),
    one(
        "redis-hold",
        "DURATION",
        "10s",
        "The loss of more than half of the hosts at once, or one by one within this time, is not believed for this long, so that FLUSHALL before a reload does not turn clients away; 0s believes it",
    ),
    many(
        "dns-server",
        "ADDR",
        "Resolve backends' names here, IP:PORT or [IPV6]:PORT, instead of at the servers of resolv.conf",
    ),
    one(
        "dns-ttl-min",
        "DURATION",
        "5s",
        "A backend's DNS answer is kept at least this long, whatever its TTL, to spare the resolver",
    ),
    one(
        "dns-ttl-max",
        "DURATION",
        "5m",
        "A backend's DNS answer is asked for again after this, whatever its TTL, so that a move is seen",
    ),
    OptionSpec {
        hidden: true,
        ..one(
            "kernel-mask",
            "MAJOR.MINOR",
            "",
            "Treat kernel features newer than this version as absent; for tests of the older paths",
        )
    },
    OptionSpec {
        hidden: true,
        ..one(
            "debug-faults",
            "YESNO",
            "no",
            "yes: POST /debug/panic/CORE on the admin endpoint makes that core panic; for tests of what becomes of the process",
        )
    },
];

/// The option of this name.
pub(super) fn option(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.name == name)
}
