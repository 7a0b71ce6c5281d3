//! The items that are read from `/proc`. When a file is missing or cannot be understood, its item is a
//! warning and no failure.

use std::path::{Path, PathBuf};

use super::report::Item;
use super::requirements;
use crate::config::{Config, KernelVersion};
use crate::worker::LOCKED_MEMORY_PER_CORE_BYTES;

/// The oldest kernel whose io_uring has the operations that the ring needs.
const KERNEL_MIN: KernelVersion = KernelVersion::new(5, 8);

/// Since this kernel rings do not count against RLIMIT_MEMLOCK.
const MEMLOCK_FREE_SINCE: KernelVersion = KernelVersion::new(5, 12);

/// With a lower limit of open files, a machine runs out of descriptors before it is busy.
const OPEN_FILES_COMFORTABLE: u64 = 65_536;

/// Client and backend socket.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

const PAGE_BYTES: usize = 4096;

/// capabilities(7), as bits of CapEff.
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_IPC_LOCK: u64 = 1 << 14;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// `/proc` below a root.
pub(super) struct Proc {
    root: PathBuf,
}

impl Proc {
    pub(super) fn new(root: &Path) -> Proc {
        Proc {
            root: root.join("proc"),
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn sysctl(&self, path: &str) -> Option<u64> {
        self.read(&format!("sys/{path}"))?.parse().ok()
    }

    fn release(&self) -> Option<KernelVersion> {
        KernelVersion::parse(&self.read("sys/kernel/osrelease")?)
    }

    /// The value of `name:` in `/proc/self/status`.
    fn status(&self, name: &str) -> Option<String> {
        let status = self.read("self/status")?;
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .to_owned(),
            )
        };
        status.lines().find_map(value)
    }

    fn has_capability(&self, bits: u64) -> bool {
        let effective = self.status("CapEff");
        let effective = effective.and_then(|text| u64::from_str_radix(&text, 16).ok());
        effective.is_some_and(|effective| effective & bits != 0)
    }

    /// Whether this process may set IP_TRANSPARENT.
    pub(super) fn may_use_any_source(&self) -> bool {
        self.has_capability(CAP_NET_ADMIN | CAP_NET_RAW)
    }

    /// An interface, or `all`, that uses packet marks for its reverse path filter.
    pub(super) fn interface_with_src_valid_mark(&self) -> Option<String> {
        const CONF: &str = "sys/net/ipv4/conf";
        let interfaces = std::fs::read_dir(self.root.join(CONF)).ok()?;
        let mut names = interfaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.find(|name| {
            // `default` holds for interfaces that are added later.
            name != "default"
                && self.sysctl(&format!("net/ipv4/conf/{name}/src_valid_mark")) == Some(1)
        })
    }

    /// Soft and hard limit, `u64::MAX` for unlimited.
    fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let limits = self.read("self/limits")?;
        let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = values.split_whitespace().map(|value| match value {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some((values.next()??, values.next()??))
    }

    pub(super) fn kernel(&self) -> Item {
        const NAME: &str = "kernel";
        match self.release() {
            Some(release) if release >= KERNEL_MIN => Item::ok(NAME, format!("Linux {release}")),
            Some(release) => Item::fail(
                NAME,
                format!("Linux {release} lacks io_uring operations"),
                format!("use Linux {KERNEL_MIN} or later"),
            ),
            None => unknown(NAME, "sys/kernel/osrelease"),
        }
    }

    pub(super) fn seccomp(&self) -> Item {
        const NAME: &str = "seccomp";
        match self.status("Seccomp").as_deref() {
            Some("0") => Item::ok(NAME, "no filter"),
            Some(_) => Item::warn(
                NAME,
                "a filter is in force, as in a container",
                "nothing to do when io_uring above is ok; otherwise allow io_uring_setup, \
                 io_uring_enter and io_uring_register in it",
            ),
            None => unknown(NAME, "self/status"),
        }
    }

    /// Only the hard limit counts: the process raises the soft one to it.
    pub(super) fn open_files(&self, config: &Config) -> Item {
        const NAME: &str = "open files";
        let Some((_, hard)) = self.limit("Max open files") else {
            return unknown(NAME, "self/limits");
        };
        if let Err(error) = requirements::try_descriptors(config, hard) {
            return Item::fail(NAME, error, "");
        }
        let found = format!(
            "limit {hard}, enough for {} connections",
            hard / DESCRIPTORS_PER_CONNECTION
        );
        if hard >= OPEN_FILES_COMFORTABLE {
            return Item::ok(NAME, found);
        }
        let remedy = "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn) to twice the \
                      connections expected";
        Item::warn(NAME, found, remedy)
    }

    pub(super) fn locked_memory(&self, config: &Config) -> Item {
        const NAME: &str = "locked memory";
        // The start raises the soft limit to the hard one, and the hard one if it is allowed to.
        let (Some((_, hard)), Some(release)) = (self.limit("Max locked memory"), self.release())
        else {
            return unknown(NAME, "self/limits");
        };
        if self.has_capability(CAP_SYS_RESOURCE) {
            return Item::ok(NAME, "enough, or raised at the start");
        }
        if hard < LOCKED_MEMORY_PER_CORE_BYTES {
            return Item::fail(
                NAME,
                format!(
                    "limit {hard} bytes; the executor of a core needs {LOCKED_MEMORY_PER_CORE_BYTES}"
                ),
                format!(
                    "raise it (LimitMEMLOCK= in systemd, ulimit -Hl) to {LOCKED_MEMORY_PER_CORE_BYTES} \
                     bytes or more"
                ),
            );
        }
        let needed = LOCKED_MEMORY_PER_CORE_BYTES * config.cores.len() as u64;
        let is_counted = release < MEMLOCK_FREE_SINCE && !self.has_capability(CAP_IPC_LOCK);
        if !is_counted || hard >= needed {
            return Item::ok(NAME, "enough");
        }
        Item::warn(
            NAME,
            format!("limit {hard} bytes; kernels before 5.12 count rings against it"),
            format!("raise it (LimitMEMLOCK= in systemd, ulimit -Hl) to {needed} bytes"),
        )
    }

    pub(super) fn backlog(&self, config: &Config) -> Item {
        const NAME: &str = "backlog";
        let Some(somaxconn) = self.sysctl("net/core/somaxconn") else {
            return unknown(NAME, "sys/net/core/somaxconn");
        };
        let backlog = config.limits.backlog;
        if somaxconn >= u64::from(backlog) {
            return Item::ok(NAME, format!("{backlog}"));
        }
        Item::warn(
            NAME,
            format!("{backlog} is cut to net.core.somaxconn = {somaxconn}"),
            format!("set net.core.somaxconn to {backlog}, or --backlog to {somaxconn}"),
        )
    }

    pub(super) fn pipes(&self, config: &Config) -> Item {
        const NAME: &str = "pipes";
        let (Some(soft_pages), Some(size_max)) = (
            self.sysctl("fs/pipe-user-pages-soft"),
            self.sysctl("fs/pipe-max-size"),
        ) else {
            return unknown(NAME, "sys/fs/pipe-user-pages-soft");
        };
        let limits = &config.limits;
        let pipes = limits.pipes_per_core * config.cores.len();
        if self.has_capability(CAP_SYS_RESOURCE) {
            return Item::ok(NAME, format!("{pipes} at most, unlimited for this user"));
        }
        let wanted = limits.pipe_bytes;
        let pages = (pipes * wanted.div_ceil(PAGE_BYTES)) as u64;
        // 0 is no limit.
        if pages > soft_pages && soft_pages != 0 && !self.has_capability(CAP_SYS_ADMIN) {
            return Item::warn(
                NAME,
                format!(
                    "{pipes} pipes may take {pages} pages, fs.pipe-user-pages-soft is {soft_pages}; \
                     beyond it bulk streams get smaller pipes or are copied"
                ),
                format!(
                    "grant CAP_SYS_RESOURCE, or set the sysctl to {pages}, or lower --pipes-per-core"
                ),
            );
        }
        if wanted as u64 > size_max {
            return Item::warn(
                NAME,
                format!("smaller than pipe-bytes {wanted}: fs.pipe-max-size is {size_max}"),
                format!(
                    "grant CAP_SYS_RESOURCE, or set the sysctl to {wanted}, or --pipe-bytes to {size_max}"
                ),
            );
        }
        Item::ok(NAME, format!("{pipes} at most"))
    }

    pub(super) fn ports(&self, config: &Config) -> Item {
        const NAME: &str = "low ports";
        // 1024 on kernels without the setting.
        let first_free = self
            .sysctl("net/ipv4/ip_unprivileged_port_start")
            .unwrap_or(1024);
        let low = ports(config).find(|port| u64::from(*port) < first_free);
        match low {
            Some(port) if !self.has_capability(CAP_NET_BIND_SERVICE) => Item::fail(
                NAME,
                format!("port {port} needs CAP_NET_BIND_SERVICE"),
                "give it (AmbientCapabilities= in systemd, setcap on the binary) or lower \
                 net.ipv4.ip_unprivileged_port_start",
            ),
            Some(_) => Item::ok(NAME, "allowed"),
            None => Item::ok(NAME, "none"),
        }
    }

    /// While the process is not running, the kernel may use the port of a listener as the source port of
    /// some connection. The next start then finds the port in use.
    pub(super) fn local_ports(&self, config: &Config) -> Item {
        const NAME: &str = "local ports";
        const RANGE: &str = "sys/net/ipv4/ip_local_port_range";
        let range = self.read(RANGE).and_then(|text| {
            let mut ends = text.split_whitespace().map(str::parse::<u16>);
            Some((ends.next()?.ok()?, ends.next()?.ok()?))
        });
        let Some((first, last)) = range else {
            return unknown(NAME, RANGE);
        };
        let reserved = self
            .read("sys/net/ipv4/ip_local_reserved_ports")
            .unwrap_or_default();
        let taken = ports(config)
            .find(|port| (first..=last).contains(port) && !is_reserved(&reserved, *port));
        let found = format!("{first} to {last} for connections to backends");
        match taken {
            None => Item::ok(NAME, found),
            Some(port) => Item::warn(
                NAME,
                format!(
                    "{found}; the listening port {port} is among them and may be in use at a start"
                ),
                format!("add {port} to net.ipv4.ip_local_reserved_ports"),
            ),
        }
    }
}

fn unknown(name: &'static str, path: &str) -> Item {
    Item::warn(name, format!("/proc/{path} cannot be read"), "mount /proc")
}

/// The ports to listen on, without those that the kernel chooses.
fn ports(config: &Config) -> impl Iterator<Item = u16> {
    let listeners = config.listeners.iter().map(|listener| listener.address);
    let ports = listeners.chain(config.admin).map(|address| address.port());
    ports.filter(|port| *port != 0)
}

/// Whether `port` is in a list like `8080,9000-9100`.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        }
    })
}
