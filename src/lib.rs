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
//! | 3 threads | `run`, `check`, `preflight`, `demo`, `core`, `sync`, `health`, `control`, `log` |
//! | 2 connection | `conn`, `exchange`, `client`, `listen`, `dial`, `relay`, `lease`, `drain`, `local` |
//! | 1 kernel | `ring`, `sys`: the only unsafe code |
//! | 0 pure | `due`, `sniff`, `http`, `route`, `lookup`, `reply`, `metrics`, `outcome`, `protocol`, `proxy_protocol`, `protect`, `config` |
//!
//! What it does not do: terminate TLS, look into bodies beyond their framing, or remember a client.

#![deny(unsafe_code)]

pub mod check;
pub mod client;
pub mod config;
pub mod conn;
pub mod control;
pub mod core;
pub mod demo;
pub mod dial;
pub mod drain;
pub mod due;
pub mod exchange;
pub mod health;
pub mod http;
pub mod lease;
pub mod listen;
pub mod local;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod outcome;
pub mod preflight;
pub mod protect;
pub mod protocol;
pub mod proxy_protocol;
pub mod relay;
pub mod reply;
#[allow(unsafe_code)]
pub mod ring;
pub mod route;
pub mod run;
pub mod sniff;
pub mod sync;
#[allow(unsafe_code)]
pub mod sys;
