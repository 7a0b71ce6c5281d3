//! What this kernel's io_uring can do: probed once at the start and kept in one value that every use asks.
//! Also the errors that say why there is no io_uring, and what to do.

use std::{fmt, io};

use io_uring::{Builder, IoUring, Probe, opcode, squeue};

use crate::config::KernelVersion;

/// Completion entries per submission entry. Multishot accepts and expiring polls complete in
/// bursts; what does not fit the kernel keeps (IORING_FEAT_NODROP), at a price.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;
/// The smallest ring that is still worth starting with, in entries: 5.10 kernels before .199
/// count rings against RLIMIT_MEMLOCK, 64 KiB by default there.
const ENTRIES_MIN: u32 = 64;

/// The io_uring features that differ between Linux 5.8 and today and that the proxy makes use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Only one task submits, and completions are run when it enters the kernel, so that other processors
    /// never interrupt it (IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN, Linux 6.1).
    pub defer_taskrun: bool,
    /// Completions wait for the next system call instead of interrupting (IORING_SETUP_COOP_TASKRUN,
    /// Linux 5.19).
    pub coop_taskrun: bool,
    /// One accept operation yields every connection (IORING_ACCEPT_MULTISHOT, Linux 5.19).
    pub multishot_accept: bool,
    /// One poll operation reports every change of a socket (IORING_POLL_ADD_MULTI, Linux 5.13; its
    /// code was rewritten in 5.17, and it is used from 5.19 on, which a probe can tell).
    pub multishot_poll: bool,
}

const DEFER_TASKRUN_SINCE: KernelVersion = KernelVersion::new(6, 1);
const COOP_TASKRUN_SINCE: KernelVersion = KernelVersion::new(5, 19);
const MULTISHOT_SINCE: KernelVersion = KernelVersion::new(5, 19);

/// Tries out what the kernel offers. With a mask, features newer than that version are treated
/// as absent and never asked for.
pub(crate) fn probe(mask: Option<KernelVersion>) -> Result<Features, RingError> {
    let allowed = |since| mask.is_none_or(|mask| since <= mask);
    let plain = builder().build(8).map_err(RingError::new)?;
    let mut operations = Probe::new();
    plain
        .submitter()
        .register_probe(&mut operations)
        .map_err(RingError::new)?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("TIMEOUT", opcode::Timeout::CODE),
    ];
    for (name, code) in needed {
        if !operations.is_supported(code) {
            return Err(RingError::missing(name));
        }
    }
    if !plain.params().is_feature_nodrop() || !plain.params().is_feature_fast_poll() {
        return Err(RingError::missing("IORING_FEAT_FAST_POLL"));
    }
    // Multishot operations have no probe of their own; the SOCKET operation came in the same release.
    let multishot = allowed(MULTISHOT_SINCE) && operations.is_supported(opcode::Socket::CODE);
    Ok(Features {
        defer_taskrun: allowed(DEFER_TASKRUN_SINCE)
            && builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(8)
                .is_ok(),
        coop_taskrun: allowed(COOP_TASKRUN_SINCE)
            && builder().setup_coop_taskrun().build(8).is_ok(),
        multishot_accept: multishot,
        multishot_poll: multishot,
    })
}

fn builder() -> Builder<squeue::Entry> {
    IoUring::builder()
}

impl Features {
    /// A ring with the best set-up the features allow, as large as `entries` or, when memory that
    /// may be locked runs out, smaller by halves.
    pub(super) fn build(self, entries: u32) -> Result<IoUring, RingError> {
        let mut entries = entries.next_power_of_two().max(ENTRIES_MIN);
        loop {
            let mut builder = builder();
            builder.setup_cqsize(entries * COMPLETIONS_PER_SUBMISSION);
            if self.defer_taskrun {
                builder.setup_single_issuer().setup_defer_taskrun();
            } else if self.coop_taskrun {
                builder.setup_coop_taskrun();
            }
            match builder.build(entries) {
                Ok(uring) => return Ok(uring),
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM) && entries > ENTRIES_MIN =>
                {
                    entries /= 2;
                }
                Err(error) => return Err(RingError::new(error)),
            }
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |present| if present { "yes" } else { "no" };
        write!(
            f,
            "defer_taskrun={} coop_taskrun={} multishot_accept={} multishot_poll={}",
            word(self.defer_taskrun),
            word(self.coop_taskrun),
            word(self.multishot_accept),
            word(self.multishot_poll)
        )
    }
}

/// Why the kernel gives no usable io_uring: cause and remedy.
#[derive(Debug)]
pub(crate) struct RingError {
    cause: String,
    remedy: String,
}

impl RingError {
    pub(super) fn new(error: io::Error) -> RingError {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .map(|value| value.trim().to_owned())
            .unwrap_or_else(|_| "0".to_owned());
        let (cause, remedy) = match error.raw_os_error() {
            Some(libc::EPERM) if disabled != "0" => (
                format!("io_uring is switched off: sysctl kernel.io_uring_disabled is {disabled}"),
                "set it to 0, or with 1 put the user into the group of kernel.io_uring_group"
                    .to_owned(),
            ),
            Some(libc::EPERM | libc::EACCES) => (
                format!(
                    "io_uring is denied to this process ({error}), as the default seccomp \
                    profiles of Docker, containerd and some service managers do"
                ),
                "run outside the container, or give it a seccomp profile that allows \
                 io_uring_setup, io_uring_enter and io_uring_register"
                    .to_owned(),
            ),
            Some(libc::ENOSYS) => (
                "the io_uring system calls are missing: the kernel is older than 5.1, built \
                 without CONFIG_IO_URING, or a seccomp profile hides them"
                    .to_owned(),
                "use Linux 5.8 or later with io_uring, or a seccomp profile that allows it"
                    .to_owned(),
            ),
            Some(libc::ENOMEM) => (
                "there is not enough lockable memory for a ring (kernels before 5.12 count rings \
                 against RLIMIT_MEMLOCK)"
                    .to_owned(),
                "raise the limit (LimitMEMLOCK= in systemd, ulimit -l) or lower --ring-entries"
                    .to_owned(),
            ),
            Some(libc::EMFILE | libc::ENFILE) => (
                format!("no descriptor is left for a ring ({error})"),
                "raise the limit of open files (LimitNOFILE= in systemd, ulimit -n)".to_owned(),
            ),
            _ => (
                format!("io_uring cannot be set up: {error}"),
                "run `pointsman check`".to_owned(),
            ),
        };
        RingError { cause, remedy }
    }

    fn missing(what: &str) -> RingError {
        RingError {
            cause: format!("this kernel's io_uring lacks {what}"),
            remedy: "use Linux 5.8 or later".to_owned(),
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl std::error::Error for RingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_hides_what_is_newer_and_nothing_else() {
        let all = probe(None).unwrap();
        let old = probe(Some(KernelVersion::new(5, 8))).unwrap();
        assert_eq!(
            old,
            Features {
                defer_taskrun: false,
                coop_taskrun: false,
                multishot_accept: false,
                multishot_poll: false,
            }
        );
        let middle = probe(Some(KernelVersion::new(5, 19))).unwrap();
        assert!(!middle.defer_taskrun);
        assert_eq!(middle.multishot_accept, all.multishot_accept);
    }

    #[test]
    fn the_cause_of_a_denied_ring_is_named() {
        let denied = RingError::new(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(
            denied.contains("seccomp") || denied.contains("io_uring_disabled"),
            "{denied}"
        );
        let old = RingError::new(io::Error::from_raw_os_error(libc::ENOSYS)).to_string();
        assert!(old.contains("5.8"), "{old}");
    }
}
