//! What the end-to-end tests share: the proxy as a process of its own, backends and clients, both real ones
//! and ones that misbehave.

// Every test binary compiles all of this and uses a part of it.
#![allow(dead_code)]

pub mod backend;
pub mod client;
pub mod dns;
pub mod ends;
pub mod flow;
pub mod http;
pub mod netns;
pub mod nginx;
pub mod port;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod smuggled;
pub mod sync_rig;
pub mod tenant;
pub mod trio;

use std::io::Write;
use std::time::{Duration, Instant};

/// Says on standard error that a test did not run. The harness shows what a test prints only if it fails.
pub fn skipped(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped {name}: {why}");
}

/// Checks that `condition` holds during the whole `span`.
///
/// # Panics
/// With `what`, as soon as `condition` does not hold.
pub fn assert_stays(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(condition(), "no longer: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// With `what`, if it does not hold within `patience`.
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
