//! What a completion of the kernel means to whoever waits for it.

use std::io;

/// The user data of completions that concern nobody: those of cancellations.
pub(super) const NOBODY: u64 = u64::MAX;

/// What the result of an operation means.
pub(crate) trait Completed {
    /// From what the system call would have returned; a negative value is the errno.
    fn of(result: i32) -> Self;
}

impl Completed for io::Result<()> {
    fn of(result: i32) -> io::Result<()> {
        match result {
            0.. => Ok(()),
            _ => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}
