//! The second stage: what was typed → a complete configuration, or all that is wrong with it.

mod collect;
mod sync;
mod unwrap;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use collect::Checker;

use super::error::{ConfigError, ConfigErrors, Fault};
use super::typed::Typed;
use super::{
    Config, KernelVersion, Limits, Listener, LogFormat, LogLevel, LogSettings, ProxySettings,
    proxy_settings, value,
};
use crate::protect::LimitSettings;
use crate::protocol::Protocol;
use crate::route::{Balance, EjectRules};

/// What the check must know of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Processor numbers that this process may run on.
    pub allowed_cores: Vec<usize>,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Typed {
    /// Checks every value and puts the defaults in.
    ///
    /// # Errors
    /// All that is wrong, with what was found when it was read.
    pub(crate) fn check(&self, machine: &Machine) -> Result<Config, ConfigErrors> {
        let checker = Checker::new(self);
        let config = checker.config(machine);
        checker.finish(config)
    }
}

impl Checker<'_> {
    fn config(&self, machine: &Machine) -> Result<Config, ConfigError> {
        let listeners = if self.typed.unwrap {
            self.check_unwrap();
            self.listeners_of(&[("listen", Protocol::Tcp)])?
        } else {
            self.refuse_those_of_unwrap();
            let listeners =
                self.listeners_of(&[("https", Protocol::Tls), ("http", Protocol::Http)])?;
            self.require_source_of_routes();
            listeners
        };
        let config = Config {
            cores: self.value("cores", |text| value::cores(text, &machine.allowed_cores))?,
            limits: self.limits()?,
            client_limits: self.client_limits()?,
            backend_congestion: self.value("backend-congestion", value::congestion)?,
            balance: self.value("balance", |text| {
                value::word(text, &Balance::ALL.map(|balance| (balance.name(), balance)))
            })?,
            proxy: self.proxy_settings()?,
            sync: self.sync_settings()?,
            http: self.http_settings()?,
            admin: self.optional("admin", value::admin_address)?,
            admin_hosts: self.all("admin-host", value::admin_host)?,
            lookup: self.value("lookup", yes_or_no)?,
            latency_dir: self.optional("latency-dir", path)?,
            log: self.log()?,
            kernel_mask: self.optional("kernel-mask", kernel_version)?,
            debug_faults: self.value("debug-faults", yes_or_no)?,
            listeners,
        };
        if config.lookup && !self.is_set("admin") {
            let fault = Fault::new(
                "nobody can ask without an admin endpoint",
                "add --admin ADDR, or leave --lookup out",
            );
            self.note("lookup", fault);
        }
        if let Some(admin) = config.admin {
            let taken = |listener: &Listener| admin.port() != 0 && listener.address == admin;
            if config.listeners.iter().any(taken) {
                let fault = Fault::new(
                    format!("{admin} is already listened on for clients"),
                    "give the admin endpoint a port of its own",
                );
                self.note("admin", fault);
            }
        }
        Ok(config)
    }

    fn listeners_of(
        &self,
        options: &[(&'static str, Protocol)],
    ) -> Result<Vec<Listener>, ConfigError> {
        let mut listeners: Vec<Listener> = Vec::new();
        for &(name, protocol) in options {
            let addresses = self.all(name, value::listen_addresses)?;
            for (address, required) in addresses.into_iter().flatten() {
                let twice = |other: &Listener| address.port() != 0 && other.address == address;
                if listeners.iter().any(twice) {
                    let fault = Fault::new(
                        format!("{address} is listened on twice"),
                        "name each address once",
                    );
                    self.note(name, fault);
                    continue;
                }
                listeners.push(Listener {
                    protocol,
                    address,
                    required,
                });
            }
        }
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        let remedy = if self.typed.unwrap {
            "add --listen ADDR, like --listen :8443"
        } else {
            "add --https ADDR, --http ADDR or both, like --https :443"
        };
        self.require_one_of(&names, Fault::new("there is nothing to listen on", remedy));
        Ok(listeners)
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let duration = |name, range: RangeInclusive<Duration>| {
            self.value(name, |text| value::duration(text, range.clone()))
        };
        let count = |name, range: RangeInclusive<u32>| {
            self.value(name, |text| value::count(text, range.clone()))
        };
        let bytes = |name, range: RangeInclusive<usize>| {
            self.value(name, |text| value::bytes(text, range.clone()))
        };
        let connect_deadline = duration("connect-deadline", MILLISECOND..=HOUR)?;
        let first_byte_deadline = self.optional("first-byte-deadline", |text| {
            value::duration(text, MILLISECOND..=HOUR)
        })?;
        Ok(Limits {
            head_deadline: duration("head-deadline", MILLISECOND..=HOUR)?,
            connect_deadline,
            first_byte_deadline: first_byte_deadline.unwrap_or(connect_deadline),
            connect_attempts: count("connect-attempts", 1..=16)?,
            backend_deadline: duration("backend-deadline", MILLISECOND..=HOUR)?,
            queue_max: count("queue", 0..=65_536)?,
            queue_deadline: duration("queue-deadline", MILLISECOND..=HOUR)?,
            eject: EjectRules {
                failures: count("eject-failures", 0..=1_000)?,
                share_percent: count("eject-share", 1..=100)?,
                time: duration("eject-time", 10 * MILLISECOND..=HOUR)?,
                time_max: duration("eject-time-max", 10 * MILLISECOND..=DAY)?,
            },
            idle_deadline: duration("idle-deadline", MILLISECOND..=30 * DAY)?,
            // The kernel takes 32,767 s at most.
            tcp_keep_alive: duration("tcp-keep-alive", Duration::ZERO..=9 * HOUR)?,
            half_closed_deadline: duration("half-closed-deadline", MILLISECOND..=30 * DAY)?,
            // Below a kibibyte no real hello fits; above a mebibyte one connection's head costs
            // more than thousands of others.
            hello_bytes_max: bytes("hello-bytes-max", KIB..=MIB)?,
            request_head_bytes_max: bytes("request-head-bytes-max", KIB..=MIB)?,
            // More than 65,535 waiting clients would have given up before their turn.
            backlog: count("backlog", 1..=65_535)?,
            turn_bytes: bytes("turn-bytes", 16 * KIB..=64 * MIB)?,
            // One page at least; the largest pipe the kernel makes for root by default settings
            // is far below the upper bound.
            pipe_bytes: bytes("pipe-bytes", 4 * KIB..=64 * MIB)?,
            pipes_per_core: count("pipes-per-core", 0..=65_536)? as usize,
            drain: duration("drain", Duration::ZERO..=DAY)?,
            ring_entries: self.value("ring-entries", ring_entries)?,
            keep_alive_deadline: duration("keep-alive-deadline", MILLISECOND..=DAY)?,
            body_deadline: duration("body-deadline", MILLISECOND..=DAY)?,
            response_deadline: duration("response-deadline", MILLISECOND..=DAY)?,
            response_head_bytes_max: bytes("response-head-bytes-max", KIB..=MIB)?,
            requests_per_connection_max: count("requests-per-connection-max", 1..=u32::MAX)?,
            pool_per_backend: count("pool-per-backend", 0..=65_536)? as usize,
            pool_per_core: count("pool-per-core", 0..=1_048_576)? as usize,
            pool_idle_deadline: duration("pool-idle-deadline", MILLISECOND..=DAY)?,
        })
    }

    fn client_limits(&self) -> Result<LimitSettings, ConfigError> {
        let limit = |name, max| {
            let count = self.optional(name, |text| value::count(text, 1..=max))?;
            Ok(count.and_then(NonZeroU32::new))
        };
        let settings = LimitSettings {
            connections_max: limit("max-connections", u32::MAX)?,
            client_connections_max: limit("max-connections-per-client", 1_000_000)?,
            client_rate_max: limit("max-rate-per-client", 1_000_000)?,
            exempt: self.all("limit-exempt", proxy_settings::network)?,
        };
        let limits = ["max-connections-per-client", "max-rate-per-client"];
        if self.is_set("limit-exempt") && !limits.iter().any(|name| self.is_set(name)) {
            let fault = Fault::new(
                "there is no limit to be exempt from",
                "add --max-connections-per-client or --max-rate-per-client, or leave limit-exempt out",
            );
            self.note("limit-exempt", fault);
        }
        Ok(settings)
    }

    fn proxy_settings(&self) -> Result<ProxySettings, ConfigError> {
        const YES_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];
        let settings = ProxySettings {
            from: self.all("proxy-from", proxy_settings::network)?,
            required: self.value("proxy-in", |text| {
                value::word(text, &[("required", true), ("optional", false)])
            })?,
            ja4: self.value("proxy-ja4", |text| value::word(text, &YES_NO))?,
        };
        if self.is_set("proxy-in") && !self.is_set("proxy-from") {
            let fault = Fault::new(
                "nobody may send PROXY headers",
                "name the senders with --proxy-from, or leave proxy-in out",
            );
            self.note("proxy-in", fault);
        }
        Ok(settings)
    }

    fn log(&self) -> Result<LogSettings, ConfigError> {
        const LEVELS: [(&str, LogLevel); 5] = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        const FORMATS: [(&str, LogFormat); 2] =
            [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Ok(LogSettings {
            level: self.value("log", |text| value::word(text, &LEVELS))?,
            format: self.value("log-format", |text| value::word(text, &FORMATS))?,
        })
    }
}

fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new(
            "is no path",
            "name a path, or leave the option out",
        ));
    }
    Ok(PathBuf::from(text))
}

fn kernel_version(text: &str) -> Result<KernelVersion, Fault> {
    KernelVersion::parse(text).ok_or_else(|| {
        Fault::new(
            format!("{text:?} is no kernel version"),
            "write it like 5.10",
        )
    })
}

fn yes_or_no(text: &str) -> Result<bool, Fault> {
    value::word(text, &[("yes", true), ("no", false)])
}

/// The kernel would round up in silence; a power of two says what one gets.
fn ring_entries(text: &str) -> Result<u32, Fault> {
    // 32768 is IORING_MAX_ENTRIES.
    let entries = value::count(text, 8..=32_768)?;
    if entries.is_power_of_two() {
        return Ok(entries);
    }
    Err(Fault::new(
        format!("{entries} is no power of two"),
        format!("write {}", entries.next_power_of_two()),
    ))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
