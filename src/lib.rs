pub mod config;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod protocol;
pub mod reply;
pub mod route;
pub mod sniff;
