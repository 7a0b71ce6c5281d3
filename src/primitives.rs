//! The atomics and locks of what workers share: those of std, or in `scripts/model` those of shuttle,
//! which then decides before each step of each thread who takes the next one.

#[cfg(not(all(test, feature = "model")))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize},
};

#[cfg(all(test, feature = "model"))]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize},
};
