//! Name → backends. Pure: no socket, clock or log; the redis-sync thread builds tables out of
//! this, each core looks names up in its view.

mod backend;
mod check_state;
mod choose;
mod health_check;
mod host;
mod host_options;
mod key;
mod master;
mod member;
mod member_options;
mod queue;
mod registry;
mod roster;
mod shard;
mod share;
mod table;
mod vitals;

pub use backend::{Address, Backend};
pub use check_state::{AskedAs, CheckState, Last};
pub use choose::{Balance, Choice, Chooser, Chosen, Wish, client_number};
pub use health_check::{Check, CheckKind};
#[doc(hidden)]
pub use host::fuzz_host;
pub use host::{Host, HostError};
pub use host_options::{
    ClientFinished, EntryError, HostOptions, Removal, Reuse, as_option, check_entry, option_entry,
};
pub use key::{Key, KeyError};
pub use master::{Change, Layer, Master, Seen};
pub use member::{Member, MemberAddress, MemberError};
pub use member_options::{Delivery, Nat46Prefix, OptionError, ProxyVersion, Source};
pub use queue::{Ticket, Wanted};
pub use registry::Registry;
pub use roster::Roster;
pub use share::{Seat, Share};
pub use table::{NO_ROUTE, Place, Queued, Route, RouteOptions, Table, Update};
pub use vitals::{Admission, Condition, EjectRules, Moment, Vitals};
