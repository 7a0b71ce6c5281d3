//! The sniffer held against bytes of real clients, hellos built to order, and noise.

mod fixtures;
mod hello_builder;
mod hellos;

use super::*;

/// The default of `hello-bytes-max`.
const BYTES_MAX: usize = 65_536;

fn sniff(data: &[u8]) -> Sniff {
    Sniffer::new(BYTES_MAX).advance(data)
}

/// The verdict as one word: the name, `-` for no name, `...` for more, or the refusal's name.
fn word(verdict: &Sniff) -> String {
    match verdict {
        Sniff::Found(head) => {
            let name = head.name.as_ref();
            name.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        Sniff::More => "...".to_owned(),
        Sniff::Refused(refusal) => refusal.name().to_owned(),
    }
}

/// The verdict on `data` handed over byte by byte, each time with all that came before.
fn sniff_byte_by_byte(data: &[u8]) -> Sniff {
    let mut sniffer = Sniffer::new(BYTES_MAX);
    (1..=data.len())
        .map(|end| sniffer.advance(&data[..end]))
        .find(|verdict| *verdict != Sniff::More)
        .unwrap_or(Sniff::More)
}
