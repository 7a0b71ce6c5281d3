//! What an operator sees, and what the machine is asked for.

use super::spec::{KIB, MIB, OptionSpec, Section};

pub(super) const OPERATION: Section = Section {
    title: "Operation",
    page: "operate.md",
    options: &[
        OptionSpec::new(
            "admin",
            "ADDR",
            "Serve /metrics, /status, /backends and /ready on this address. :PORT is loopback only, because \
             all clients of the endpoint see the names of all backends",
        )
        .example("127.0.0.1:9090")
        .see(&["admin-host", "lookup"]),
        OptionSpec::many(
            "admin-host",
            "HOST",
            "Serve requests to the admin endpoint with this Host, without port. Its own address and \
             localhost are always served. Others get 421, so that no web page can read the endpoint through \
             a name of its own (DNS rebinding)",
        )
        .example("metrics.example")
        .see(&["admin"]),
        OptionSpec::word(
            "log",
            &["error", "warn", "info", "debug", "trace"],
            "Level of the log, on standard error. Single connections appear at debug; on a busy proxy they \
             are most of the log. From warn on there is a line for each client that a backend failed, ten a \
             second for each core at most",
        )
        .value("LEVEL")
        .default("info")
        .example("debug")
        .see(&["log-format"]),
        OptionSpec::word("log-format", &["text", "json"], "One line per event, as key=value pairs or as JSON")
            .value("FORMAT")
            .default("text")
            .example("json")
            .see(&["log"]),
        OptionSpec::new(
            "latency-dir",
            "DIR",
            "Where SIGUSR1 writes histograms of latencies; without it their table goes to the log",
        )
        .example("/var/lib/pointsman/latency"),
    ],
};

pub(super) const RESOURCES: Section = Section {
    title: "Cores, pipes and rings",
    page: "operate.md",
    options: &[
        OptionSpec::new(
            "cores",
            "LIST",
            "Processors to run a core on, like 0-3,6, or all that this process may use",
        )
        .default("all")
        .example("0-3"),
        OptionSpec::bytes(
            "turn-bytes",
            16 * KIB..=64 * MIB,
            "How much one direction of a connection moves at most while other connections wait for their \
             turn. A larger value starves small connections, a smaller one costs processor time in bulk",
        )
        .default("1MiB")
        .example("512KiB")
        .see(&["pipe-bytes"]),
        OptionSpec::bytes(
            "pipe-bytes",
            // One page at least. The largest pipe that the kernel makes for root by default is far below
            // the upper bound.
            4 * KIB..=64 * MIB,
            "Capacity of each splice pipe, and how much a stream moves at a time when it has its core to \
             itself. Without CAP_SYS_RESOURCE fs.pipe-max-size bounds it: then half as much is tried until \
             it fits",
        )
        .default("2MiB")
        .example("1MiB")
        .see(&["pipes-per-core", "turn-bytes"]),
        OptionSpec::count(
            "pipes-per-core",
            0..=65_536,
            "Largest number of splice pipes of a core. Bounds kernel memory: bulk streams beyond it are \
             copied. 0 never splices",
        )
        .default("256")
        .example("64")
        .see(&["pipe-bytes"]),
        OptionSpec::count(
            "ring-entries",
            // 32768 is IORING_MAX_ENTRIES.
            8..=32_768,
            "Submission entries of each core's io_uring, a power of two. Bounds one batch, not the number \
             of connections",
        )
        .default("1024")
        .example("4096"),
    ],
};

pub(super) const FOR_TESTS: Section = Section {
    title: "For tests",
    page: "operate.md",
    options: &[
        OptionSpec::new(
            "kernel-mask",
            "MAJOR.MINOR",
            "Treat kernel features newer than this version as absent. For tests of the code for older \
             kernels",
        )
        .example("5.10")
        .hidden(),
        OptionSpec::switch(
            "debug-faults",
            "yes: POST /debug/panic/CORE of the admin endpoint makes that core panic. For tests",
        )
        .hidden(),
    ],
};
