//! Whose connection it is: PROXY headers, forwarding fields, look-ups.

use super::spec::{OptionSpec, Section};

pub(super) const CLIENT_ADDRESS: Section = Section {
    title: "The client's address",
    page: "client-address.md",
    options: &[
        OptionSpec::many(
            "proxy-from",
            "CIDR",
            "Senders, addresses or networks, whose PROXY headers (v1, v2) are trusted. They use the same \
             ports as direct clients. A PROXY header from anywhere else is refused, because it could claim \
             any address",
        )
        .example("10.1.0.0/24")
        .see(&["proxy-in", "proxy_untrusted", "proxy_missing"]),
        OptionSpec::word(
            "proxy-in",
            &["required", "optional"],
            "required: connections from --proxy-from have to begin with a PROXY header; optional: they may. \
             With optional, when a balancer forgets its header, one that the client itself wrote is \
             trusted, and nobody notices",
        )
        .default("required")
        .example("optional")
        .see(&["proxy-from", "proxy_missing"]),
        OptionSpec::switch(
            "proxy-ja4",
            "yes: PROXY headers to members with proxy=v2 carry the JA4 fingerprint of the client's hello, \
             as TLV 0xE0",
        ),
        OptionSpec::new(
            "forwarded",
            "LIST",
            "Header fields that tell HTTP backends about the client: some of x-forwarded-for, \
             x-forwarded-proto, x-forwarded-port, x-real-ip and forwarded, separated by commas. What the \
             client itself sends in these fields is replaced",
        )
        .example("x-forwarded-for,x-forwarded-proto")
        .see(&["trusted-from"]),
        OptionSpec::many(
            "trusted-from",
            "CIDR",
            "Clients, such as another proxy, that are trusted about the clients before them: --forwarded \
             appends to the fields that they send instead of replacing them",
        )
        .example("10.1.0.0/24")
        .see(&["forwarded", "proxy-from"]),
        OptionSpec::switch(
            "lookup",
            "yes: /client?backend=IP:PORT of the admin endpoint says which client is behind the connection \
             that a backend sees come from IP:PORT. Costs two system calls and some 450 bytes per \
             connection",
        )
        .see(&["admin"]),
    ],
};
