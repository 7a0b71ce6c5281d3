//! What a connection of a client needs whichever protocol it speaks: who the client is, whether it is
//! admitted, PROXY headers in and out, its entries in the log and in the look-up table, sending, and
//! the ways in which a connection ends.

mod access_log;
pub(crate) mod admit;
mod close;
mod cut;
pub(crate) mod failure;
mod identity;
mod linger;
mod lookup_entry;
mod proxy_in;
mod proxy_out;
mod reset;
mod send;

pub(crate) use access_log::AccessLogEntry;
pub(crate) use close::{Ended, close, reset_if_cut, send_error_response};
pub(crate) use cut::{cut_all, until_cut};
pub(crate) use identity::Client;
pub(crate) use linger::{Discard, linger};
pub(crate) use lookup_entry::{LookupEntry, OpenConnection};
pub(crate) use proxy_in::{ProxyPhase, early_close_outcome, read_proxy_header};
pub(crate) use proxy_out::{HeadWithProxy, write_proxy_header};
pub(crate) use reset::{flush_patience, pass_reset_on};
pub(crate) use send::{send_all, send_counting};
