//! From a name to backends. Pure: no socket, clock or log. The redis-sync thread builds tables; each
//! core looks names up in its view of the newest one.

mod address_policy;
mod backend;
mod backend_index;
mod balance;
mod choose;
mod client_key;
mod endpoint;
mod fuzz;
mod host_options;
mod host_policies;
mod key;
mod live_connections;
mod master;
mod member;
mod member_options;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod probe_target;
mod queue;
mod registry;
#[expect(clippy::module_inception, reason = "the file of the type Route")]
mod route;
mod shard;
mod share;
mod table;
mod ticket;

pub(crate) use address_policy::{AddressPolicy, Denied};
pub(crate) use backend::{Address, Backend};
pub(crate) use backend_index::BackendIndex;
pub(crate) use balance::Balance;
pub(crate) use choose::{Choice, Chooser, Chosen, PickContext, QueuedAdmission};
pub(crate) use client_key::client_key;
pub(crate) use endpoint::Endpoint;
pub use fuzz::{fuzz_host_options, fuzz_member};
pub(crate) use host_options::{HostOptions, as_option, option_entry, validate_entry};
pub(crate) use host_policies::{ClientFinished, Removal, Reuse};
pub(crate) use key::{Key, KeyError, Layer};
pub(crate) use master::{Change, Master, Seen};
pub(crate) use member::{Member, MemberAddress};
pub use member_options::ProxyVersion;
pub(crate) use member_options::{Delivery, Nat46Prefix, Source};
pub(crate) use probe_target::ProbeTarget;
pub(crate) use registry::Registry;
pub use route::Route;
pub(crate) use route::{NO_ROUTE, RouteOptions};
pub use table::Table;
pub(crate) use table::{MatchedKey, Update};
pub(crate) use ticket::Ticket;
