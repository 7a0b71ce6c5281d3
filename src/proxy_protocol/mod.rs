//! The PROXY protocol, in and out: what a proxy says in front of a client's bytes about where the
//! client is (HAProxy's doc/proxy-protocol.txt, revision 2020/03/05 and later; sections are those of
//! that document). Pure: [`read()`] takes bytes and gives one of four answers, [`write()`] takes addresses
//! and appends bytes.
//!
//! Whether a sender is trusted to speak for clients is not decided here; the caller asks that before it
//! uses a header.

mod fuzz;
mod header;
mod read;
mod tlv;
mod v1;
mod v2;
mod write;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use fuzz::fuzz_proxy_header;
pub use header::{Addresses, Endpoints, Header};
pub(crate) use read::{HEADER_BYTES_MAX, Signature};
pub use read::{Reading, read};
pub use tlv::{OutgoingTlvs, TlvKind};
pub use write::write;
