//! Name → backends. Pure: no socket, clock or log; the redis-sync thread builds tables out of
//! this, each core looks names up in its view.

mod backend;
mod check_state;
mod choose;
mod health_check;
mod host_options;
mod key;
mod master;
mod member;
mod member_options;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod queue;
mod registry;
mod roster;
mod shard;
mod share;
mod table;
mod vitals;

pub(crate) use backend::{Address, Backend};
pub(crate) use check_state::{AskedAs, CheckState};
pub(crate) use choose::{Balance, Choice, Chooser, Chosen, Wish, client_number};
pub(crate) use health_check::CheckKind;
pub(crate) use host_options::{
    ClientFinished, HostOptions, Removal, Reuse, as_option, check_entry, option_entry,
};
pub(crate) use key::{Key, KeyError};
pub(crate) use master::{Change, Layer, Master, Seen};
pub(crate) use member::{Member, MemberAddress};
pub use member_options::ProxyVersion;
pub(crate) use member_options::{Delivery, Nat46Prefix, Source};
pub(crate) use queue::Ticket;
pub(crate) use registry::Registry;
pub(crate) use roster::Roster;
pub(crate) use share::Seat;
pub(crate) use table::{NO_ROUTE, Place, RouteOptions, Update};
pub use table::{Route, Table};
pub(crate) use vitals::{Admission, Condition, EjectRules, Moment};
