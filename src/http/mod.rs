//! HTTP/1 as a proxy between needs it: heads (request and response), the framing of bodies, and
//! heads written anew. Pure: bytes in, values and bytes out.
//!
//! What is forwarded is what was understood. A head is parsed whole, held to the strict reading of
//! RFC 9112, and written again out of its parts, so that a backend never sees a byte on which two
//! readers could differ; see [`request`] for the rules, `framing` for those of bodies.

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
