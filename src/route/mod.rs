//! Name → backends. Pure: no socket, clock or log; the redis-sync thread builds tables out of
//! this, each core looks names up in its view.

mod host;

pub use host::Host;
