//! The options that say where routes come from.

use super::unwrap;
use super::validator::Validator;
use crate::config::error::{Fault, Origin};
use crate::config::options::option;
use crate::config::sync_settings::{RedisSettings, RedisUrl, StaticRoute, SyncSettings};
use crate::config::typed::{Typed, TypedValue};
use crate::config::value::{self, network, path};
use crate::protocol::Protocol;
use crate::route::{AddressPolicy, Key, KeyError, Member, as_option, validate_entry};

impl SyncSettings {
    /// The settings that these options make, as if typed: each with its name and value. Every other
    /// option is at its default. For the tests of the repository.
    ///
    /// # Errors
    /// The mistakes in the values.
    ///
    /// # Panics
    /// When no option has one of the names.
    pub fn of_options(options: &[(&str, &str)]) -> Result<SyncSettings, String> {
        let mut typed = Typed::default();
        for (name, value) in options {
            let spec = option(name).expect("an option that exists");
            typed.values.entry(spec.name).or_default().push(TypedValue {
                text: String::from(*value),
                origin: Origin::CommandLine,
            });
        }
        let validator = Validator::new(&typed);
        let settings = validator.sync_settings();
        let settings = validator.finish(settings);
        settings.map_err(|errors| errors.to_string())
    }
}

/// Every option at its default: no source of routes at all.
impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings::of_options(&[]).expect("the defaults of the options are right")
    }
}

impl Validator<'_> {
    pub(super) fn sync_settings(&self) -> SyncSettings {
        let url = self.optional("redis", RedisUrl::parse);
        let prefix = self.value("redis-prefix", redis_prefix);
        let ca_file = self.optional("redis-ca", path);
        let settings = SyncSettings {
            redis: url.map(|url| RedisSettings {
                url,
                prefix,
                ca_file,
            }),
            static_routes: if self.typed.unwrap {
                self.all("to", unwrap::route)
            } else {
                let routes = self.all("route", static_route);
                routes.into_iter().flatten().collect()
            },
            routes_file: self.optional("routes", path),
            snapshot: self.optional("snapshot", path),
            full_comparison: self.duration("redis-full-comparison"),
            ping: self.duration("redis-ping"),
            ping_timeout: self.duration("redis-ping-timeout"),
            hold: self.duration("redis-hold"),
            dns_servers: self.all("dns-server", value::server_address),
            dns_ttl_min: self.duration("dns-ttl-min"),
            dns_ttl_max: self.duration("dns-ttl-max"),
            backend_policy: AddressPolicy::new(self.all("backend-allow", network)),
        };
        let ttl_bounds = ["dns-ttl-min", "dns-ttl-max"];
        if settings.dns_ttl_min > settings.dns_ttl_max && self.are_valid(&ttl_bounds) {
            let fault = Fault::new(
                "is longer than dns-ttl-max",
                "shorten it or lengthen dns-ttl-max",
            );
            self.note("dns-ttl-min", fault);
        }
        for StaticRoute { key, entry } in &settings.static_routes {
            let denied = match Member::parse(entry) {
                Ok(member) if as_option(entry).is_none() => {
                    settings.backend_policy.validate_member(&member).err()
                }
                _ => None,
            };
            if let Some(denied) = denied {
                let fault = Fault::new(
                    format!("{key}={entry}: no backend may be at {}", denied.address()),
                    denied.remedy(),
                );
                self.note(if self.typed.unwrap { "to" } else { "route" }, fault);
            }
        }
        settings
    }

    pub(super) fn require_source_of_routes(&self) {
        let fault = Fault::new(
            "there is no source of routes",
            "add --redis URL, --route HOST=MEMBER or --routes FILE",
        );
        self.require_one_of(&["redis", "route", "routes"], fault);
    }
}

fn redis_prefix(text: &str) -> Result<String, Fault> {
    if text.chars().any(char::is_control) || text.len() > 256 {
        return Err(Fault::new(
            "holds control characters or more than 256 bytes",
            "write what the keys begin with, like hostnames:",
        ));
    }
    Ok(text.to_owned())
}

/// `HOST=MEMBER[,MEMBER]` as one route per member.
fn static_route(text: &str) -> Result<Vec<StaticRoute>, Fault> {
    let fault = |problem: &str| {
        Fault::new(
            format!("{text:?} {problem}"),
            "write HOST=MEMBER[,MEMBER], like one.test=127.0.0.1:8001,127.0.0.1:8002",
        )
    };
    let (host, members) = text
        .split_once('=')
        .ok_or_else(|| fault("has no equals sign"))?;
    let host = host.trim();
    if host.is_empty() {
        return Err(fault("has no host"));
    }
    let key = Key::parse(host).map_err(|error| fault(&format!("has a wrong host: {error}")))?;
    if key == Key::Default(Protocol::Tcp) {
        return Err(fault(&format!("has a wrong host: {}", KeyError::Default)));
    }
    members
        .split(',')
        .map(str::trim)
        .map(|member| match validate_entry(member) {
            Ok(()) => Ok(StaticRoute {
                key: key.clone(),
                entry: member.to_owned(),
            }),
            Err(error) => Err(fault(&format!("has a wrong member: {error}"))),
        })
        .collect()
}
