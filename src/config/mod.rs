//! Configuration in two stages: as typed (command line, environment, file), and checked. Nothing
//! behind this module sees a value that was not checked, and nothing in a checked value is
//! missing.

mod check;
mod command;
mod error;
mod file;
mod http;
mod limits;
mod names;
mod options;
mod proxy_settings;
mod sync_settings;
mod typed;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) use check::Machine;
pub(crate) use error::{ConfigErrors, Refused};
pub(crate) use http::HttpSettings;
pub(crate) use limits::Limits;
pub(crate) use proxy_settings::ProxySettings;
pub(crate) use sync_settings::StaticRoute;
pub use sync_settings::{RedisSettings, SyncSettings};
pub(crate) use typed::{Action, Typed, read};

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
    /// Where the admin endpoint listens; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Hosts by which the admin endpoint is asked, besides its own address and localhost; without ports.
    pub admin_hosts: Vec<Box<str>>,
    /// Whether the admin endpoint can tell who is behind a connection that a backend sees.
    pub lookup: bool,
    /// Where SIGUSR1 writes its files; `None`: the table goes to the log.
    pub latency_dir: Option<PathBuf>,
    pub log: LogSettings,
    /// Kernel features newer than this version are treated as absent; `None`: what is there is used.
    pub kernel_mask: Option<KernelVersion>,
    /// Whether the admin endpoint makes a core panic when asked to.
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

/// A kernel release, as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    pub major: u32,
    pub minor: u32,
}

impl KernelVersion {
    pub const fn new(major: u32, minor: u32) -> KernelVersion {
        KernelVersion { major, minor }
    }

    /// The first two numbers of a release as uname prints it (`6.1.0-18-amd64`) or of a version as
    /// an operator writes it (`5.8`); `None` when there are no two numbers.
    pub fn parse(text: &str) -> Option<KernelVersion> {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit());
            part[..digits.unwrap_or(part.len())].parse::<u32>().ok()
        });
        Some(KernelVersion {
            major: numbers.next()??,
            minor: numbers.next()??,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_far_as_features_need() {
        assert_eq!(
            KernelVersion::parse("6.18.44-fc-v669"),
            Some(KernelVersion::new(6, 18))
        );
        assert_eq!(
            KernelVersion::parse("5.10-rc1"),
            Some(KernelVersion::new(5, 10))
        );
        assert_eq!(KernelVersion::parse("5.8"), Some(KernelVersion::new(5, 8)));
        for wrong in ["", "5", "five.eight", "5.", ".8"] {
            assert_eq!(KernelVersion::parse(wrong), None, "{wrong:?}");
        }
        assert!(KernelVersion::new(5, 19) < KernelVersion::new(6, 1));
    }
}
