//! The process's limit of open descriptors.

use super::check;
use std::io;

/// Soft and hard limit of open descriptors (getrlimit(2), RLIMIT_NOFILE).
pub fn open_files_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to a live local.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } as libc::ssize_t)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit to the hard one, which needs no privilege, and returns the limit in force.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let (_, hard) = open_files_limit()?;
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads one rlimit from a live local.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } as libc::ssize_t)?;
    Ok(hard)
}
