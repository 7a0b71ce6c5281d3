//! The admin endpoint: metrics and status of the process over HTTP, for operators and scrapers.

mod backend_pages;
mod client_page;
mod own_host;
mod page;
mod pages;
mod process;
mod server;
mod sync_pages;

pub(crate) use process::{ProcessState, Reports};
pub(crate) use server::Admin;
