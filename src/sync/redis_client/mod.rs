//! The client of Redis: subscribes to changes, reads the whole table, then reads what changed.

mod backoff;
mod comparison;
mod connection;
mod connection_error;
mod expiry;
mod invalidations;
mod key_aliases;
mod key_reader;
mod key_schema;
mod ping;
mod rejected_keys;
mod removal_guard;
mod removals;
mod replication;
mod reply;
mod sync_loop;

pub(super) use connection::Connector;
pub(super) use connection_error::CLUSTER_NODE;
pub(super) use sync_loop::SyncLoop;
