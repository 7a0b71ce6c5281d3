//! Relays the bytes of one connection in both directions until both have ended: [`Relay`]. The body of an
//! HTTP message is relayed by [`BodyRelay`] instead, which knows where the body ends. Both move bytes in
//! the same way: copied while they come in small pieces, spliced while they come in bulk.

mod body;
mod carried;
mod chunk_run;
mod connection;
mod direction;
mod pace;

pub(crate) use body::{BodyEnd, BodyRelay};
pub(crate) use carried::Flow;
pub(crate) use connection::{FirstEvent, KEEP_ALIVE_AFTER, Relay, RelayParts};
