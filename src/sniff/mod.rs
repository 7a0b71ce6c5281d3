//! The first bytes of a TLS connection → the ClientHello and the name in it. Pure: bytes come in, one
//! of three answers goes out, and every refusal has a name.
//!
//! The caller owns the bytes and hands in all of them each time; the [`Sniffer`] remembers how far it
//! has looked. Bytes behind the hello, such as early data, are never looked at; they are relayed as
//! they came.

mod fuzz;
mod head;
mod hello;
mod ja4;
mod records;
mod sniffer;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use fuzz::fuzz_hello;
pub use head::Head;
pub use ja4::ja4;
pub(crate) use records::is_hello_alone;
pub use sniffer::{Sniff, Sniffer};
