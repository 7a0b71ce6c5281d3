//! Pointsman routes connections by the name in their first bytes and never opens what they carry.
//!
//! Read the life of a connection in this order: [`worker`] (one pinned thread: executor, ring,
//! mailbox, accept loops), [`tls_conn`] (one connection from accept to its one outcome) or, on the HTTP
//! port, [`http_conn`] (one request after the other, by the rules in [`http`]), [`relay`] (the bytes,
//! both ways). On that road lie [`sniff`] (bytes → name), [`route`] (name → backends), [`upstream`]
//! (backends → a connected socket) and [`client`] (what every connection of a client needs);
//! underneath lie [`state`] (what a worker holds), [`ring`] (what is waited for) and [`sys`] (what is
//! called). Beside the workers run [`sync`](mod@sync), which keeps the routing table true, [`prober`],
//! which makes health checks, and [`control`], which obeys signals; [`run`] puts them together.
//!
//! A module imports only modules with a lower number, and no files of a module import each other in a
//! circle; `tests/sources` holds both.
//!
//! | number | modules | what they are |
//! |---|---|---|
//! | 1 | `protocol`, `due`, `host`, `refusal`, `quantity`, `primitives` | words that all others share |
//! | 2 | `health` | passive health and the results of health checks |
//! | 3 | `route` | from a name to backends |
//! | 4 | `sniff` | from the first bytes to a name |
//! | 5 | `http`, `proxy_protocol`, `protect` | the other parsers, and limits per client |
//! | 6 | `outcome` | how a connection ended |
//! | 7 | `metrics`, `config`, `prober` | what is counted, what is configured; the thread of the health checks |
//! | 8 | `sys`, `sync` | system calls; the thread that keeps routes as Redis and DNS have them |
//! | 9 | `ring`, `reply`, `explain`, `lookup`, `log` | io_uring; the bytes of error responses; who is behind a connection; the log |
//! | 10 | `state` | what a worker holds for all its connections |
//! | 11 | `client` | what every connection of a client needs |
//! | 12 | `upstream` | from a route to a connected backend |
//! | 13 | `relay` | bytes, both ways |
//! | 14 | `tls_conn`, `http_conn` | a connection from accept to its outcome, of TLS and of HTTP |
//! | 15 | `worker` | one pinned thread: executor, ring, mailbox |
//! | 16 | `cores`, `preflight` | all cores from outside; what a start needs of the machine |
//! | 17 | `admin` | the HTTP endpoint for operators |
//! | 18 | `control` | signals, dumps and the end of the process |
//! | 19 | `run`, `demo` | the process, put together |
//! | 20 | `command` | the command line |
//! | 21 | `internals` | what tests, fuzz targets and the benchmark see |
//!
//! What it does not do: terminate TLS, look into bodies beyond their framing, or remember a client.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]

mod admin;
mod client;
mod command;
mod config;
mod control;
mod cores;
mod demo;
mod due;
mod explain;
#[cfg(test)]
mod fixtures;
mod health;
mod host;
mod http;
mod http_conn;
#[doc(hidden)]
pub mod internals;
mod log;
mod lookup;
mod metrics;
mod outcome;
mod preflight;
mod primitives;
mod prober;
mod protect;
mod protocol;
mod proxy_protocol;
mod quantity;
mod refusal;
mod relay;
mod reply;
#[allow(unsafe_code)]
mod ring;
mod route;
mod run;
mod sniff;
mod state;
mod sync;
#[allow(unsafe_code)]
mod sys;
mod tls_conn;
mod upstream;
mod worker;

pub use command::main;
