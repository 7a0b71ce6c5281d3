//! How HTTP is carried.

use super::spec::{DAY, KIB, MIB, MILLISECOND, OptionSpec, Section};

pub(super) const HTTP: Section = Section {
    title: "HTTP",
    page: "http.md",
    options: &[
        OptionSpec::duration(
            "keep-alive-deadline",
            MILLISECOND..=DAY,
            "How long an HTTP connection may wait for its next request; as long as browsers keep \
             connections. Behind a balancer, set it longer than the balancer keeps its own: an AWS ALB 60 \
             s, a load balancer of Google Cloud 600 s",
        )
        .default("60s")
        .example("75s")
        .see(&["requests-per-connection-max", "keep_alive_timeout"]),
        OptionSpec::duration(
            "body-deadline",
            MILLISECOND..=DAY,
            "In every span of this length at least 1 KiB of a request's body has to come, or the rest of \
             it. Slower senders would hold a backend for nothing",
        )
        .default("30s")
        .example("60s")
        .see(&["body_timeout"]),
        OptionSpec::duration(
            "response-deadline",
            MILLISECOND..=DAY,
            "How long it may take from a request sent to the head of its response. As long as common \
             proxies wait",
        )
        .default("60s")
        .example("5m")
        .see(&["half-closed-deadline", "response_timeout"]),
        OptionSpec::bytes(
            "request-head-bytes-max",
            KIB..=MIB,
            "Largest head of a request. As large as usual servers take",
        )
        .default("32KiB")
        .example("64KiB")
        .see(&["response-head-bytes-max", "request_head_too_large"]),
        OptionSpec::bytes("response-head-bytes-max", KIB..=MIB, "Largest head of a response")
            .default("32KiB")
            .example("64KiB")
            .see(&["request-head-bytes-max", "response_head_too_large"]),
        OptionSpec::count(
            "requests-per-connection-max",
            1..=u32::MAX,
            "How many requests are served on one connection before it is closed. Spreads long-lived clients \
             over the cores anew",
        )
        .default("10000")
        .example("1000")
        .see(&["keep-alive-deadline"]),
        OptionSpec::count(
            "pool-per-backend",
            0..=65_536,
            "How many idle connections to one backend a core keeps for the next request, of whichever \
             client; 0 keeps none",
        )
        .default("64")
        .example("256")
        .see(&["pool-per-core", "pool-idle-deadline"]),
        OptionSpec::count(
            "pool-per-core",
            0..=1_048_576,
            "How many idle connections a core keeps to all backends together. Those of all cores take at \
             most half of the descriptors that clients leave",
        )
        .default("1024")
        .example("4096")
        .see(&["pool-per-backend"]),
        OptionSpec::duration(
            "pool-idle-deadline",
            MILLISECOND..=DAY,
            "An idle connection to a backend is closed after this long. Shorter than servers wait, so that \
             a request seldom meets a connection that its server is just closing",
        )
        .default("30s")
        .example("4s")
        .see(&["pool-per-backend", "backend_closed"]),
        OptionSpec::word(
            "client-finished",
            &["wait", "abort"],
            "What becomes of a request whose client finishes sending before it has its response. wait: the \
             client may still read; abort: the request ends at once, since most such clients have left. The \
             option client-finished of a host overrides it",
        )
        .default("wait")
        .example("abort")
        .see(&["half-closed-deadline", "client_finished"]),
        OptionSpec::switch(
            "h2c",
            "yes: carry HTTP/2 without TLS on the HTTP port. The whole connection is routed by its first \
             request; requests for other hosts on it reach the same backend",
        )
        .see(&["http2_preface", "h2c_malformed"]),
        OptionSpec::word(
            "outcome-header",
            &["yes", "no"],
            "no: leave the outcome's name out of the proxy's own error responses",
        )
        .default("yes")
        .example("no")
        .see(&["error-page"]),
        OptionSpec::many(
            "error-page",
            "STATUS=FILE",
            "Send this HTML file with the proxy's own error responses of that status. Read at the start, \
             256 KiB at most",
        )
        .example("502=/etc/pointsman/502.html")
        .see(&["outcome-header"]),
        OptionSpec::word(
            "unknown-host",
            &["421", "404"],
            "The status for a host without a route: 421, after which a client may try another connection, \
             or 404",
        )
        .value("STATUS")
        .default("421")
        .example("404")
        .see(&["unknown_name"]),
    ],
};
