//! The checked configuration, as the rest of the program sees it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::http_settings::HttpSettings;
use super::kernel_version::KernelVersion;
use super::limits::Limits;
use super::proxy_settings::ProxySettings;
use super::sync_settings::SyncSettings;
use crate::protect::LimitSettings;
use crate::protocol::Protocol;
use crate::route::Balance;

/// Everything that was configured, complete and checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Never empty, no two alike.
    pub listeners: Vec<Listener>,
    /// Processor numbers to pin a core to, ascending, never empty, all allowed to this process.
    pub cores: Vec<usize>,
    pub limits: Limits,
    pub client_limits: LimitSettings,
    pub backend_congestion: BackendCongestion,
    pub balance: Balance,
    pub proxy: ProxySettings,
    pub sync: SyncSettings,
    pub http: HttpSettings,
    /// Where the admin endpoint listens; `None`: there is none.
    pub admin: Option<SocketAddr>,
    /// Hosts of the admin endpoint, without ports, besides its own address and localhost.
    pub admin_hosts: Vec<Box<str>>,
    /// Whether the admin endpoint serves `/client`, which tells whose connection a backend sees.
    pub lookup: bool,
    /// Where SIGUSR1 writes its files; `None`: the table goes to the log.
    pub latency_dir: Option<PathBuf>,
    pub log: LogSettings,
    /// Kernel features newer than this version are treated as absent; `None`: all are used. For tests.
    pub kernel_mask: Option<KernelVersion>,
    /// Whether the admin endpoint makes a core panic on request. For tests.
    pub debug_faults: bool,
}

/// TCP congestion control of connections to backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum BackendCongestion {
    /// The system's default, unless that paces.
    #[default]
    Auto,
    /// The system's default.
    System,
    /// An algorithm of the kernel's, by its name there.
    Named(Box<str>),
}

/// One address that every core listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub protocol: Protocol,
    /// Port 0: the kernel chooses.
    pub address: SocketAddr,
    /// False for the IPv6 half of `:PORT`, which a machine without IPv6 goes without.
    pub required: bool,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}
