//! The admin endpoint: what an operator and a scraper may ask the process, over HTTP.

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
