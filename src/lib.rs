//! Pointsman routes connections by the name in their first bytes and never opens what they carry.
//!
//! Read the life of a connection in this order: [`core`] (one pinned thread: executor, ring,
//! mailbox, accept loops), [`conn`] (one connection from accept to its one outcome), [`relay`]
//! (the bytes, both ways); on the HTTP port [`exchange`] (one request after the other) in its place,
//! by the rules in [`http`]. On that road lie [`sniff`] (bytes → name), [`route`] (name →
//! backends) and [`dial`] (backends → a connected socket); underneath lie [`ring`] (what is
//! waited for) and [`sys`] (what is called). Beside the cores run [`sync`](mod@sync), which keeps
//! the routing table true, [`health`], which asks backends how they are, and [`control`], which obeys
//! signals; [`run`] puts them together.
//!
//! Imports only go downward:
//!
//! | layer | modules |
//! |---|---|
//! | 3 threads | `run`, `preflight`, `demo`, `core`, `cores`, `sync`, `health`, `admin`, `control`, `log`, `command`, `internals` |
//! | 2 connection | `conn`, `exchange`, `client`, `listen`, `dial`, `relay`, `lease`, `drain`, `local` |
//! | 1 kernel | `ring`, `sys`: the only unsafe code |
//! | 0 pure | `due`, `host`, `refusal`, `sniff`, `http`, `route`, `lookup`, `reply`, `metrics`, `outcome`, `protocol`, `proxy_protocol`, `protect`, `config` |
//!
//! What it does not do: terminate TLS, look into bodies beyond their framing, or remember a client.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]

mod admin;
mod client;
mod command;
mod config;
mod conn;
mod control;
mod core;
mod cores;
mod demo;
mod dial;
mod drain;
mod due;
mod exchange;
mod health;
mod host;
mod http;
#[doc(hidden)]
pub mod internals;
mod lease;
mod listen;
mod local;
mod log;
mod lookup;
mod metrics;
mod outcome;
mod preflight;
mod protect;
mod protocol;
mod proxy_protocol;
mod refusal;
mod relay;
mod reply;
#[allow(unsafe_code)]
mod ring;
mod route;
mod run;
mod sniff;
mod sync;
#[allow(unsafe_code)]
mod sys;

pub use command::main;
