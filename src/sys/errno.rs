//! The results of system calls.

use std::io;

/// Whether a failed read or write is to be tried again once the socket is ready. A shortage of memory
/// (ENOBUFS, ENOMEM) ends by itself, and the socket is reported ready then.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// The return value of a system call as a result. A negative value stands for the error in `errno`.
pub(super) fn check(returned: libc::ssize_t) -> io::Result<usize> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned as usize)
    }
}
