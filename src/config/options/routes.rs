//! Where clients come in, and where their routes come from.

use std::time::Duration;

use super::spec::{DAY, HOUR, OptionSpec, Section};

pub(super) const LISTENERS: Section = Section {
    title: "Listeners",
    page: "routes.md",
    options: &[
        OptionSpec::many(
            "https",
            "ADDR",
            "Listen for TLS and route by SNI: IP:PORT, [IPV6]:PORT, or :PORT for both families. With port 0 \
             the kernel chooses one",
        )
        .example(":443")
        .see(&["http", "route", "redis", "hello-bytes-max"]),
        OptionSpec::many(
            "http",
            "ADDR",
            "Listen for HTTP/1 and route each request by its Host; addresses as for --https",
        )
        .example(":80")
        .see(&["https", "h2c", "keep-alive-deadline"]),
        OptionSpec::many(
            "listen",
            "ADDR",
            "Of pointsman unwrap: listen for connections that begin with a PROXY header; addresses as for \
             --https",
        )
        .example(":8443")
        .see(&["to", "proxy-from"]),
        OptionSpec::many(
            "to",
            "ADDR",
            "Of pointsman unwrap: the server to connect to, with the client's address as source; IP:PORT or \
             [IPV6]:PORT, one of each family where clients have both",
        )
        .example("127.0.0.1:443")
        .see(&["listen", "source_family", "source_forbidden"]),
        OptionSpec::count(
            "backlog",
            // More than 65,535 waiting clients would have given up before their turn.
            1..=65_535,
            "Connections that may wait for accept, per core and address; the kernel cuts it to \
             net.core.somaxconn",
        )
        .default("4096")
        .example("16384")
        .see(&["max-connections"]),
    ],
};

pub(super) const ROUTES: Section = Section {
    title: "Routes",
    page: "routes.md",
    options: &[
        OptionSpec::new(
            "config",
            "FILE",
            "TOML file with any of these options, by the same names. The command line and the environment \
             override it",
        )
        .example("/etc/pointsman.toml"),
        OptionSpec::new(
            "redis",
            "URL",
            "Take routes from Redis: redis://, rediss:// or unix://, with user, password and database \
             number. The environment hides a password better than the command line",
        )
        .example("redis://127.0.0.1:6379/0")
        .see(&["redis-prefix", "redis-ca", "snapshot", "redis-hold", "unknown_name"]),
        OptionSpec::many(
            "route",
            "HOST=MEMBER[,MEMBER]",
            "A static route. HOST is a name, *.DOMAIN, default:https or default:http; a member is HOST, \
             HOST:PORT, [IPV6]:PORT or unix:/PATH, followed by its options with blanks between. Beside \
             Redis it serves the names that Redis does not have",
        )
        .example("www.example.com=10.0.0.7,10.0.0.8:8443")
        .see(&["routes", "redis", "unknown_name", "no_address"]),
        OptionSpec::new(
            "routes",
            "FILE",
            "TOML file of static routes, read again on SIGHUP and when it changes. A file with an error is \
             rejected as a whole, and the old routes serve on",
        )
        .example("/etc/pointsman/routes.toml")
        .see(&["route", "redis"]),
        OptionSpec::new(
            "snapshot",
            "FILE",
            "Keep the last known routing table in this file. A start while Redis does not answer serves by \
             it",
        )
        .example("/var/lib/pointsman/table.json")
        .see(&["redis", "redis-hold"]),
        OptionSpec::many(
            "backend-allow",
            "CIDR",
            "Networks in which backends may be; an address elsewhere is refused, whoever wrote the member \
             or the DNS record. Without it a backend may be anywhere but at link-local addresses, where \
             machines in clouds find their credentials",
        )
        .example("10.0.0.0/8")
        .see(&["dns-server", "no_address"]),
    ],
};

pub(super) const REDIS_AND_DNS: Section = Section {
    title: "Redis and DNS",
    page: "routes.md",
    options: &[
        OptionSpec::new("redis-prefix", "TEXT", "What every Redis key begins with")
            .default("hostnames:")
            .example("proxy:")
            .see(&["redis"]),
        OptionSpec::new(
            "redis-ca",
            "FILE",
            "Certificates (PEM) to trust for rediss:// instead of the system's",
        )
        .example("/etc/pointsman/redis-ca.pem")
        .see(&["redis"]),
        OptionSpec::duration(
            "redis-full-comparison",
            Duration::from_millis(100)..=DAY,
            "Time between two comparisons of the whole routing table with Redis, which find what live \
             changes missed",
        )
        .default("60s")
        .example("5m")
        .see(&["redis"]),
        OptionSpec::duration(
            "redis-ping",
            Duration::from_millis(10)..=HOUR,
            "Time between two pings of the connection to Redis",
        )
        .default("2s")
        .example("5s")
        .see(&["redis-ping-timeout"]),
        OptionSpec::duration(
            "redis-ping-timeout",
            Duration::from_millis(10)..=HOUR,
            "Without an answer for this long the connection to Redis counts as lost. TCP alone notices a \
             frozen server after minutes",
        )
        .default("2s")
        .example("5s")
        .see(&["redis-ping"]),
        OptionSpec::duration(
            "redis-hold",
            Duration::ZERO..=DAY,
            "When more than half of ten or more hosts vanish from Redis, at once or one by one within this \
             time, they are kept for this long. FLUSHALL before a reload of the data then turns no client \
             away. 0s: removed at once",
        )
        .default("10s")
        .example("30s")
        .see(&["redis", "snapshot", "unknown_name"]),
        OptionSpec::many(
            "dns-server",
            "ADDR",
            "DNS server that resolves the names of backends, IP:PORT or [IPV6]:PORT, instead of those of \
             resolv.conf",
        )
        .example("192.0.2.53:53")
        .see(&["dns-ttl-min", "dns-ttl-max", "no_address"]),
        OptionSpec::duration(
            "dns-ttl-min",
            Duration::from_millis(100)..=DAY,
            "A backend's DNS answer is used for at least this long, whatever its TTL, to spare the resolver",
        )
        .default("5s")
        .example("10s")
        .see(&["dns-ttl-max"]),
        OptionSpec::duration(
            "dns-ttl-max",
            Duration::from_millis(100)..=DAY,
            "A backend's DNS name is resolved again after this long, whatever its TTL, so that a move is \
             noticed",
        )
        .default("5m")
        .example("1m")
        .see(&["dns-ttl-min"]),
    ],
};
