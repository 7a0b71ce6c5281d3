//! Which backend gets a client, and what happens when one fails.

use std::time::Duration;

use super::spec::{DAY, HOUR, MILLISECOND, OptionSpec, Section};

pub(super) const CHOICE: Section = Section {
    title: "Choice of a backend",
    page: "health.md",
    options: &[
        OptionSpec::word(
            "balance",
            &["p2c", "least", "round-robin", "random", "source", "first"],
            "p2c: of two backends drawn at random the less busy one, which keeps away from a slow backend \
             without knowing why it is slow; least: the least busy of all; round-robin; random; source: by \
             the client's address; first: the heaviest with room. All by weight. The option balance of a \
             host overrides it",
        )
        .default("p2c")
        .example("least")
        .see(&["queue", "backends_full"]),
        OptionSpec::count(
            "queue",
            0..=65_536,
            "How many clients of a host may wait while each of its backends has as many connections as its \
             max= allows. More of them could not all be served in time",
        )
        .default("128")
        .example("512")
        .see(&["queue-deadline", "backends_full"]),
        OptionSpec::duration(
            "queue-deadline",
            MILLISECOND..=HOUR,
            "How long a client waits in that queue. Longer than a usual exchange, shorter than a client's \
             patience",
        )
        .default("1s")
        .example("3s")
        .see(&["queue", "backends_full"]),
        OptionSpec::new(
            "backend-congestion",
            "NAME",
            "TCP congestion control of connections to backends: auto, system, or the name of an algorithm \
             of the kernel. auto is the system's, but cubic where the system's is bbr: pacing is made for \
             the Internet, and costs more than all else on the way to a backend",
        )
        .default("auto")
        .example("reno"),
    ],
};

pub(super) const FAILURE: Section = Section {
    title: "Failure of a backend",
    page: "health.md",
    options: &[
        OptionSpec::duration(
            "connect-deadline",
            MILLISECOND..=HOUR,
            "How long one attempt to connect to a backend may take. A lost SYN is sent again after 1 s, so \
             this survives one",
        )
        .default("3s")
        .example("1s")
        .see(&["connect-attempts", "backend-deadline", "first-byte-deadline", "backend_timeout"]),
        OptionSpec::duration(
            "first-byte-deadline",
            MILLISECOND..=HOUR,
            "How long a TLS backend that has the hello may take for its first byte. Then another backend \
             gets the hello as well, and the first that answers gets the client. Without it as long as \
             connect-deadline; longer where backends answer late, as after a cold start",
        )
        .example("5s")
        .see(&["connect-deadline", "backend-deadline", "backend_timeout"]),
        OptionSpec::count(
            "connect-attempts",
            1..=16,
            "How many backends are tried before the client is told that none can be reached. With \
             connect-deadline this bounds the client's wait to 9 s",
        )
        .default("3")
        .example("2")
        .see(&["connect-deadline", "backend-deadline", "backend_unreachable"]),
        OptionSpec::duration(
            "backend-deadline",
            MILLISECOND..=HOUR,
            "How long it may take from the complete head until a backend has accepted, all attempts \
             together. Enough for three attempts that each take the whole connect-deadline",
        )
        .default("9s")
        .example("5s")
        .see(&["connect-attempts", "connect-deadline", "backend_timeout"]),
        OptionSpec::count(
            "eject-failures",
            0..=1_000,
            "After this many failures in a row (refused, unreachable, too slow, closed without an answer \
             that another backend gave) a backend is ejected: it gets no connections for a while. 0: no \
             backend is ever ejected. When all of a host's backends are out, all of them are used (panic \
             mode)",
        )
        .default("3")
        .example("5")
        .see(&["eject-share", "eject-time", "backend_unreachable"]),
        OptionSpec::count(
            "eject-share",
            1..=100,
            "A backend is also ejected when this percentage of its connections within 10 s has failed, and \
             at least five of them",
        )
        .value("PERCENT")
        .default("50")
        .example("80")
        .see(&["eject-failures", "eject-time"]),
        OptionSpec::duration(
            "eject-time",
            Duration::from_millis(10)..=HOUR,
            "How long the first ejection of a backend lasts, a quarter more or less at random; each further \
             one lasts twice as long. Then one connection tries the backend (half-open probe)",
        )
        .default("2s")
        .example("5s")
        .see(&["eject-time-max", "eject-failures"]),
        OptionSpec::duration(
            "eject-time-max",
            Duration::from_millis(10)..=DAY,
            "How long an ejection lasts at most. A backend that has worked for this long begins anew with \
             eject-time",
        )
        .default("1m")
        .example("5m")
        .see(&["eject-time"]),
    ],
};
