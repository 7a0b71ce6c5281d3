//! The sniffer held against bytes of real clients, hellos and heads built to order, and noise.

mod fixtures;
mod hello_builder;
mod http;
mod tls;

use super::*;

/// The limits in use, `config`'s defaults.
const LIMITS: HeadLimits = HeadLimits {
    hello_bytes_max: 65_536,
    request_head_bytes_max: 32_768,
};

fn sniff(protocol: Protocol, data: &[u8]) -> Sniff {
    Sniffer::new(protocol, LIMITS).advance(data)
}

/// The verdict as one word: the name, `-` for no name, `...` for more, or the refusal's name.
fn word(verdict: &Sniff) -> String {
    match verdict {
        Sniff::Found(head) => head
            .name
            .as_ref()
            .map_or_else(|| "-".to_owned(), Host::to_string),
        Sniff::More => "...".to_owned(),
        Sniff::Refused(refusal) => refusal.name().to_owned(),
    }
}

/// The verdict on `data` handed over byte by byte, each time with all that came before.
fn sniff_byte_by_byte(protocol: Protocol, data: &[u8]) -> Sniff {
    let mut sniffer = Sniffer::new(protocol, LIMITS);
    (1..=data.len())
        .map(|end| sniffer.advance(&data[..end]))
        .find(|verdict| *verdict != Sniff::More)
        .unwrap_or(Sniff::More)
}
