//! HTTP/1 as a proxy needs it: parsing the heads of requests and responses, finding the ends of bodies,
//! and writing the heads that are forwarded. Pure: bytes in, values and bytes out.
//!
//! What is forwarded is what was understood. A head is parsed whole by the strict rules of RFC 9112 and
//! written again from its parts, so that a backend never gets a byte that it could read differently
//! from this proxy. The rules are in `request` for request heads, in [`response`] for response heads
//! and in `framing` for bodies.
//!
//! Of HTTP/2 only the beginning of a connection without TLS is read ([`h2c`]).

mod authority;
mod field_lines;
mod fields;
mod forwarded;
mod framing;
mod fuzz;
pub(crate) mod h2c;
mod head_walk;
mod hpack;
mod huffman;
pub(crate) mod incomplete_head;
mod length;
mod normalize;
pub(crate) mod request;
mod request_line;
pub(crate) mod response;
pub(crate) mod rewrite;
mod steps;

#[cfg(test)]
mod tests;

pub use fields::FieldStorage;
pub(crate) use forwarded::{Downstream, Forwarding};
pub use framing::Framing;
#[doc(hidden)]
pub use fuzz::{fuzz_chunks, fuzz_h2c, fuzz_request, fuzz_response};
pub use length::Length;
pub(crate) use normalize::ChunkedOutput;
pub use request::{Reading, RequestHead, RequestReader};
