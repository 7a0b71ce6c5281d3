//! What the results of system calls mean.

use std::io;

/// Whether reading or writing is to be tried again when the socket is ready again. ENOBUFS and ENOMEM
/// pass by themselves; readiness is reported again when they have.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// The return value of a system call as a result: a negative value is the errno.
pub(super) fn check(returned: libc::ssize_t) -> io::Result<usize> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned as usize)
    }
}
