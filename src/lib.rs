//! Pointsman is a reverse proxy. It routes TLS connections by the name in the ClientHello (SNI), without
//! decrypting them, and HTTP requests by their Host.
//!
//! To follow a connection through the code, read in this order:
//!
//! 1. [`worker`]: one thread per processor, with its executor, its ring and its accept loops.
//! 2. [`tls_conn`]: a TLS connection from accept to its outcome; or [`http_conn`]: a connection of the
//!    HTTP port, one request after the other, by the rules in [`http`].
//! 3. [`sniff`]: from the first bytes to a name. [`route`]: from the name to backends. [`upstream`]: from
//!    the backends to a connected socket. [`client`]: what both kinds of connection need.
//! 4. [`relay`]: the bytes, both ways.
//! 5. [`state`]: what a worker holds. [`ring`]: io_uring, where everything waits. [`sys`]: system calls.
//!
//! Other threads run beside the workers: [`sync`](mod@sync) keeps the routing table as Redis and DNS have
//! it, [`prober`] makes health checks, [`control`] handles signals. [`run`] starts all of them.
//!
//! A module imports only modules with a lower number, and the files of a module do not import each other
//! in a circle. `tests/sources` checks both.
//!
//! | number | modules | what they are |
//! |---|---|---|
//! | 1 | `protocol`, `due`, `host`, `refusal`, `quantity`, `primitives` | types that all others share |
//! | 2 | `health` | passive health, and the results of health checks |
//! | 3 | `route` | from a name to backends |
//! | 4 | `sniff` | from the first bytes to a name |
//! | 5 | `http`, `proxy_protocol`, `protect` | the other parsers, and limits per client |
//! | 6 | `outcome` | how a connection ended |
//! | 7 | `metrics`, `config`, `prober` | counters; configuration; the thread that makes health checks |
//! | 8 | `sys`, `sync` | system calls; the thread that keeps routes as Redis and DNS have them |
//! | 9 | `ring`, `reply` | io_uring; error responses |
//! | 9 | `explain`, `lookup`, `log` | documentation offline; the client of a backend's connection; the log |
//! | 10 | `state` | what a worker holds for all its connections |
//! | 11 | `client` | what every connection of a client needs |
//! | 12 | `upstream` | from a route to a connected backend |
//! | 13 | `relay` | bytes, both ways |
//! | 14 | `tls_conn`, `http_conn` | a connection from accept to its outcome, of TLS and of HTTP |
//! | 15 | `worker` | a thread pinned to a processor: executor, ring, mailbox |
//! | 16 | `cores`, `preflight` | all workers, as other threads see them; what a start needs of the machine |
//! | 17 | `admin` | the HTTP endpoint for operators |
//! | 18 | `control` | signals, dumps and the end of the process |
//! | 19 | `run`, `demo` | start and end of the process |
//! | 20 | `command` | the command line |
//! | 21 | `internals` | what tests, fuzz targets and the benchmark see |
//!
//! The proxy does not terminate TLS, does not look into bodies beyond their framing, and keeps nothing of a
//! client when its connections have ended.

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
