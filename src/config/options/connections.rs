//! How long connections may take, and how many there may be.

use std::time::Duration;

use super::spec::{DAY, HOUR, KIB, MIB, MILLISECOND, MONTH, NINE_HOURS, OptionSpec, Section};

pub(super) const DEADLINES: Section = Section {
    title: "Deadlines and sizes of a connection",
    page: "http.md",
    options: &[
        OptionSpec::duration(
            "head-deadline",
            MILLISECOND..=HOUR,
            "How long it may take from accept until the ClientHello, or the head of the first request, is \
             complete. Long enough for a phone on a bad network, short enough that silent connections do \
             not pile up",
        )
        .default("10s")
        .example("5s")
        .see(&["keep-alive-deadline", "head_timeout"]),
        OptionSpec::bytes(
            "hello-bytes-max",
            // Below a kibibyte no real hello fits; above a mebibyte one connection's head costs more than
            // thousands of others.
            KIB..=MIB,
            "Largest ClientHello, with its record headers. Several times what post-quantum clients send",
        )
        .default("64KiB")
        .example("16KiB")
        .see(&["hello_too_large"]),
        OptionSpec::duration(
            "idle-deadline",
            MILLISECOND..=MONTH,
            "A connection without a byte in either direction ends after this long. Longer than usual \
             keep-alives: it ends connections whose peer has vanished, each of which would hold two \
             descriptors for ever",
        )
        .default("1h")
        .example("6h")
        .see(&["tcp-keep-alive", "half-closed-deadline", "idle_timeout"]),
        OptionSpec::duration(
            "half-closed-deadline",
            MILLISECOND..=MONTH,
            "Once one side has finished sending, the connection ends after this long without a byte from \
             the other side. So do HTTP clients that wait for a response, relays and tunnels: TCP does not \
             tell a peer that has left from one that still reads. As long as a response may take",
        )
        .default("60s")
        .example("5m")
        .see(&["client-finished", "idle-deadline", "half_closed_timeout"]),
        OptionSpec::duration(
            "tcp-keep-alive",
            // The kernel takes 32,767 s at most.
            Duration::ZERO..=NINE_HOURS,
            "After this much silence, in whole seconds, the kernel probes whether a client or a backend is \
             still there. The fourth probe without an answer, each a quarter of this time after the last, \
             ends the connection. A vanished peer is thus found after two minutes and not at idle-deadline. \
             0s: no probes",
        )
        .default("60s")
        .example("30s")
        .see(&["idle-deadline"]),
        OptionSpec::duration(
            "drain",
            Duration::ZERO..=DAY,
            "How long open connections may go on after SIGTERM or SIGINT; the usual grace of service \
             managers. Idle HTTP clients are closed over its first half, relays and tunnels reset over its \
             second, so that not all of them come back in the same moment",
        )
        .default("30s")
        .example("2m")
        .see(&["cut_at_drain"]),
    ],
};

pub(super) const LIMITS: Section = Section {
    title: "Limits",
    page: "health.md",
    options: &[
        OptionSpec::count(
            "max-connections",
            1..=u32::MAX,
            "Largest number of client connections of the process; further ones are refused. Without it only \
             the limit of open files holds, at which clients wait",
        )
        .example("50000")
        .see(&["max-connections-per-client", "too_many_connections"]),
        OptionSpec::count(
            "max-connections-per-client",
            1..=1_000_000,
            "Largest number of connections of one client, which is an IPv4 address or the /64 of an IPv6 \
             address",
        )
        .example("100")
        .see(&["limit-exempt", "max-rate-per-client", "client_connections"]),
        OptionSpec::count(
            "max-rate-per-client",
            1..=1_000_000,
            "Largest number of new connections of one client per second. As many may come at once",
        )
        .example("20")
        .see(&["limit-exempt", "max-connections-per-client", "client_rate"]),
        OptionSpec::many(
            "limit-exempt",
            "CIDR",
            "Clients to which the limits per client do not apply, such as monitoring, or an office behind \
             one address",
        )
        .example("192.0.2.0/24")
        .see(&["max-connections-per-client", "max-rate-per-client"]),
    ],
};
