#![deny(unsafe_code)]
pub mod check;
pub mod config;
pub mod conn;
pub mod control;
pub mod core;
pub mod demo;
pub mod dial;
pub mod listen;
pub mod local;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod protocol;
pub mod relay;
pub mod reply;
#[allow(unsafe_code)]
pub mod ring;
pub mod route;
pub mod sniff;
pub mod sync;
#[allow(unsafe_code)]
pub mod sys;
