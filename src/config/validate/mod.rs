//! The second stage: makes a complete configuration of the values that were set, or lists all mistakes.

mod http;
mod limits;
mod sync;
mod unwrap;
mod validator;

use validator::Validator;

use super::error::{ConfigErrors, Fault};
use super::proxy_settings::ProxySettings;
use super::settings::{Config, Listener, LogFormat, LogLevel, LogSettings};
use super::typed::Typed;
use super::value::{self, yes_or_no};
use crate::protocol::Protocol;
use crate::route::Balance;

/// What validation has to know about the machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Processor numbers that this process may run on.
    pub allowed_cores: Vec<usize>,
}

impl Typed {
    /// Validates every value, and fills in the defaults.
    ///
    /// # Errors
    /// All mistakes, those of the first stage included.
    pub(crate) fn validate(&self, machine: &Machine) -> Result<Config, ConfigErrors> {
        let validator = Validator::new(self);
        let config = validator.config(machine);
        validator.finish(config)
    }
}

impl Validator<'_> {
    fn config(&self, machine: &Machine) -> Config {
        let listeners = if self.typed.unwrap {
            self.validate_unwrap();
            self.listeners_of(&[("listen", Protocol::Tcp)])
        } else {
            self.refuse_those_of_unwrap();
            let listeners =
                self.listeners_of(&[("https", Protocol::Tls), ("http", Protocol::Http)]);
            self.require_source_of_routes();
            listeners
        };
        let config = Config {
            cores: self.value("cores", |text| value::cores(text, &machine.allowed_cores)),
            limits: self.limits(),
            client_limits: self.client_limits(),
            backend_congestion: self.value("backend-congestion", value::congestion),
            balance: self.value("balance", |text| {
                value::word(text, &Balance::ALL.map(|balance| (balance.name(), balance)))
            }),
            proxy: self.proxy_settings(),
            sync: self.sync_settings(),
            http: self.http_settings(),
            admin: self.optional("admin", value::admin_address),
            admin_hosts: self.all("admin-host", value::admin_host),
            lookup: self.value("lookup", yes_or_no),
            latency_dir: self.optional("latency-dir", value::path),
            log: self.log(),
            kernel_mask: self.optional("kernel-mask", value::kernel_version),
            debug_faults: self.value("debug-faults", yes_or_no),
            listeners,
        };
        if config.lookup && !self.is_set("admin") {
            let fault = Fault::new(
                "/client needs an admin endpoint",
                "add --admin ADDR, or leave --lookup out",
            );
            self.note("lookup", fault);
        }
        if let Some(admin) = config.admin {
            let taken = |listener: &Listener| admin.port() != 0 && listener.address == admin;
            if config.listeners.iter().any(taken) {
                let fault = Fault::new(
                    format!("{admin} is an address for clients already"),
                    "give the admin endpoint a port of its own",
                );
                self.note("admin", fault);
            }
        }
        config
    }

    fn listeners_of(&self, options: &[(&'static str, Protocol)]) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for &(name, protocol) in options {
            let addresses = self.all(name, value::listen_addresses);
            for value::ListenAddress { address, required } in addresses.into_iter().flatten() {
                let twice = |other: &Listener| address.port() != 0 && other.address == address;
                if listeners.iter().any(twice) {
                    let fault = Fault::new(
                        format!("{address} is there twice"),
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
        self.require_one_of(
            &names,
            Fault::new("there is no address to listen on", remedy),
        );
        listeners
    }

    fn proxy_settings(&self) -> ProxySettings {
        let settings = ProxySettings {
            from: self.all("proxy-from", value::network),
            required: self.value("proxy-in", |text| {
                value::word(text, &[("required", true), ("optional", false)])
            }),
            ja4: self.value("proxy-ja4", yes_or_no),
        };
        if self.is_set("proxy-in") && !self.is_set("proxy-from") {
            let fault = Fault::new(
                "no sender of PROXY headers is trusted",
                "name the senders with --proxy-from, or leave proxy-in out",
            );
            self.note("proxy-in", fault);
        }
        settings
    }

    fn log(&self) -> LogSettings {
        const LEVELS: [(&str, LogLevel); 5] = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        const FORMATS: [(&str, LogFormat); 2] =
            [("text", LogFormat::Text), ("json", LogFormat::Json)];
        LogSettings {
            level: self.value("log", |text| value::word(text, &LEVELS)),
            format: self.value("log-format", |text| value::word(text, &FORMATS)),
        }
    }
}
