//! The process's limits that stand in the way of many connections.

use std::io;

use super::errno::check;

/// What the kernel limits per process (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    /// Descriptors; RLIMIT_NOFILE.
    OpenFiles,
    /// Bytes that may be locked into memory; RLIMIT_MEMLOCK. Rings count against it before Linux
    /// 5.12, and glommio asks for 512 KiB of it on any kernel.
    LockedMemory,
}

/// Raises the soft limit to the hard one, which needs no privilege, and before that the hard one to
/// `hard_min` where it is lower and this process may (CAP_SYS_RESOURCE). Returns the limit in force.
pub(crate) fn raise_limit(limited: Limited, hard_min: u64) -> io::Result<u64> {
    let resource = match limited {
        Limited::OpenFiles => libc::RLIMIT_NOFILE,
        Limited::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to a live local.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) } as libc::ssize_t)?;
    if limit.rlim_max < hard_min {
        let raised = libc::rlimit {
            rlim_cur: hard_min,
            rlim_max: hard_min,
        };
        // SAFETY: the kernel reads one rlimit from a live local.
        if check(unsafe { libc::setrlimit(resource, &raw const raised) } as libc::ssize_t).is_ok() {
            return Ok(hard_min);
        }
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit from a live local.
    check(unsafe { libc::setrlimit(resource, &raw const limit) } as libc::ssize_t)?;
    Ok(limit.rlim_cur)
}
