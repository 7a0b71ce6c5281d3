//! Name → backends. Pure: no socket, clock or log; the redis-sync thread builds tables out of
//! this, each core looks names up in its view.

mod host;

#[doc(hidden)]
pub use host::fuzz_host;
pub use host::{HOST_BYTES_MAX, Host, HostError};
