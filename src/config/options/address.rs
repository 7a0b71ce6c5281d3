//! Whose connection it is: PROXY headers, forwarding fields, look-ups.

use super::spec::{OptionSpec, Section};

pub(super) const CLIENT_ADDRESS: Section = Section {
    title: "The client's address",
    page: "client-address.md",
    options: &[
        OptionSpec::many(
            "proxy-from",
            "CIDR",
            "Senders whose PROXY headers (v1, v2) are believed, addresses or networks; they use the same \
             ports as direct clients. From all others a PROXY header is refused, because it could claim any \
             address",
        )
        .example("10.1.0.0/24")
        .see(&["proxy-in", "proxy_untrusted", "proxy_missing"]),
        OptionSpec::word(
            "proxy-in",
            &["required", "optional"],
            "required: those senders have to begin with a header; optional: they may. Where a balancer \
             forgets its header, optional would believe the one that a client writes itself, and nobody \
             would notice",
        )
        .default("required")
        .example("optional")
        .see(&["proxy-from", "proxy_missing"]),
        OptionSpec::switch(
            "proxy-ja4",
            "yes: headers for members with proxy=v2 carry the JA4 fingerprint of the client's hello, as TLV \
             0xE0",
        ),
        OptionSpec::new(
            "forwarded",
            "LIST",
            "Tell HTTP backends about the client: some of x-forwarded-for, x-forwarded-proto, \
             x-forwarded-port, x-real-ip and forwarded, with commas between. What the client itself says in \
             these fields is replaced",
        )
        .example("x-forwarded-for,x-forwarded-proto")
        .see(&["trusted-from"]),
        OptionSpec::many(
            "trusted-from",
            "CIDR",
            "Clients from here, such as another proxy, are believed about those before them: --forwarded \
             appends to what they say",
        )
        .example("10.1.0.0/24")
        .see(&["forwarded", "proxy-from"]),
        OptionSpec::switch(
            "lookup",
            "yes: /client?backend=IP:PORT of the admin endpoint tells who is behind the connection that a \
             backend sees come from there; takes two system calls and some 450 bytes per connection",
        )
        .see(&["admin"]),
    ],
};
