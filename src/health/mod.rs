//! What is known about the health of a backend. Pure: time comes in as an argument.
//!
//! Passive health ([`PassiveHealth`]) is what a backend's own connections tell: failures eject it for a
//! while, and a missing answer makes it suspect. Active health ([`HealthCheckState`]) is what health
//! checks tell: a [`HealthCheck`] says what is sent and how often, a [`Verdict`] turns single answers
//! into up or down.
//!
//! This module lies below `route`, whose backends hold this state. The thread that makes the checks is
//! the module `prober`. It lies above `route`, because it needs the addresses of backends.

mod answer;
mod check;
mod check_options;
mod check_state;
#[cfg(test)]
#[cfg(feature = "model")]
mod models;
mod moment;
mod passive;
mod verdict;

pub(crate) use answer::{Answer, CheckFailure, read_http_status, read_server_hello};
pub(crate) use check::{HealthCheck, HealthCheckKind, StatusRange};
pub(crate) use check_options::{HealthCheckOptionError, HealthCheckOptions};
pub(crate) use check_state::{HealthCheckState, ProbedAs};
pub(crate) use moment::Moment;
pub(crate) use passive::{Admission, Condition, EjectionRules, PassiveHealth};
pub(crate) use verdict::Verdict;
