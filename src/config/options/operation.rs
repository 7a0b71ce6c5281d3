//! What an operator sees, and what the machine is asked for.

use super::spec::{KIB, MIB, OptionSpec, Section};

pub(super) const OPERATION: Section = Section {
    title: "Operation",
    page: "operate.md",
    options: &[
        OptionSpec::new(
            "admin",
            "ADDR",
            "Serve /metrics, /status, /backends and /ready here; :PORT is loopback only, because whoever \
             reaches it sees every backend's name",
        )
        .example("127.0.0.1:9090")
        .see(&["admin-host", "lookup"]),
        OptionSpec::many(
            "admin-host",
            "HOST",
            "Answer requests to the admin endpoint whose Host is this, without port; its own address and \
             localhost always are. Others get 421, so that no page in a browser can read it under a name of \
             its own",
        )
        .example("metrics.example")
        .see(&["admin"]),
        OptionSpec::word(
            "log",
            &["error", "warn", "info", "debug", "trace"],
            "Level of the log, on standard error. Single connections appear at debug: on a busy proxy they \
             are most of the volume. From warn on there is a line for each client that a backend failed, \
             ten a second for each core at most",
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
            "What one direction of a connection moves at most while others wait for their turn; more \
             starves small connections, less costs processor time in bulk",
        )
        .default("1MiB")
        .example("512KiB")
        .see(&["pipe-bytes"]),
        OptionSpec::bytes(
            "pipe-bytes",
            // One page at least. The largest pipe that the kernel makes for root by default is far below
            // the upper bound.
            4 * KIB..=64 * MIB,
            "Capacity of each splice pipe, and what a stream that has its core to itself moves in one \
             piece. Without CAP_SYS_RESOURCE fs.pipe-max-size bounds it, and half as much is taken until it \
             fits",
        )
        .default("2MiB")
        .example("1MiB")
        .see(&["pipes-per-core", "turn-bytes"]),
        OptionSpec::count(
            "pipes-per-core",
            0..=65_536,
            "Splice pipes of a core at most. Bounds kernel memory, since bulk beyond it is copied; 0 never \
             splices",
        )
        .default("256")
        .example("64")
        .see(&["pipe-bytes"]),
        OptionSpec::count(
            "ring-entries",
            // 32768 is IORING_MAX_ENTRIES.
            8..=32_768,
            "Submission entries of each core's io_uring, a power of two; bounds one batch, not the number of \
             connections",
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
            "Treat kernel features newer than this version as absent; for tests of the older paths",
        )
        .example("5.10")
        .hidden(),
        OptionSpec::switch(
            "debug-faults",
            "yes: POST /debug/panic/CORE of the admin endpoint makes that core panic; for tests of what \
             becomes of the process",
        )
        .hidden(),
    ],
};
