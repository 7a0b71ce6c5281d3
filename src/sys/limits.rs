//! The resource limits of the process (getrlimit(2)) that many connections reach.

use std::io;

use super::errno::check;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Descriptors; RLIMIT_NOFILE.
    OpenFiles,
    /// Bytes that may be locked into memory; RLIMIT_MEMLOCK. Rings count against it before Linux
    /// 5.12, and glommio asks for 512 KiB of it on any kernel.
    LockedMemory,
}

/// Raises the soft limit to the hard limit, which needs no privilege. A hard limit below `hard_min` is
/// raised to that first, where the process may do so (CAP_SYS_RESOURCE). Returns the limit in force.
pub(crate) fn raise_limit(resource: Resource, hard_min: u64) -> io::Result<u64> {
    let number = match resource {
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to a live local.
    check(unsafe { libc::getrlimit(number, &raw mut limit) } as libc::ssize_t)?;
    if limit.rlim_max < hard_min {
        let raised = libc::rlimit {
            rlim_cur: hard_min,
            rlim_max: hard_min,
        };
        // SAFETY: the kernel reads one rlimit from a live local.
        if check(unsafe { libc::setrlimit(number, &raw const raised) } as libc::ssize_t).is_ok() {
            return Ok(hard_min);
        }
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit from a live local.
    check(unsafe { libc::setrlimit(number, &raw const limit) } as libc::ssize_t)?;
    Ok(limit.rlim_cur)
}
