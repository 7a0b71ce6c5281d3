//! HTTP/1 as a proxy between needs it: heads (request and response), the framing of bodies, and
//! heads written anew. Pure: bytes in, values and bytes out.
//!
//! What is forwarded is what was understood. A head is parsed whole, held to the strict reading of
//! RFC 9112, and written again out of its parts, so that a backend never sees a byte on which two
//! readers could differ; see [`request`] for the rules, [`framing`] for those of bodies.

mod fields;
pub(crate) mod forwarded;
pub(crate) mod framing;
mod fuzz;
pub(crate) mod h2c;
pub(crate) mod head_search;
mod hpack;
mod huffman;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod rewrite;
mod work;

#[cfg(test)]
mod tests;

pub(crate) use forwarded::{Forwarding, Hop};
pub(crate) use framing::{Chunks, Framing, Length};
#[doc(hidden)]
pub use framing::{fuzz_framing, fuzz_mended};
#[doc(hidden)]
pub use fuzz::fuzz_request;
#[doc(hidden)]
pub use h2c::fuzz_h2c;
pub(crate) use request::{Reading, RequestHead, RequestReader};

/// A field as it was parsed.
pub(crate) type Field<'b> = httparse::Header<'b>;
