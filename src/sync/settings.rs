//! The checked configuration, as this thread takes it.

use super::{RedisConfig, SyncConfig};
use crate::config::SyncSettings;

impl From<&SyncSettings> for SyncConfig {
    fn from(settings: &SyncSettings) -> SyncConfig {
        let redis = settings.redis.as_ref().map(|url| RedisConfig {
            url: url.secret().to_owned(),
            prefix: settings.redis_prefix.clone(),
            ca_file: settings.redis_ca.clone(),
        });
        SyncConfig {
            redis,
            static_routes: settings.static_routes.clone(),
            routes_file: settings.routes_file.clone(),
            snapshot: settings.snapshot.clone(),
            full_comparison: settings.full_comparison,
            ping: settings.ping,
            ping_timeout: settings.ping_timeout,
            hold: settings.hold,
            dns_ttl_min: settings.dns_ttl_min,
            dns_ttl_max: settings.dns_ttl_max,
            dns_servers: settings.dns_servers.clone(),
            backend_policy: settings.backend_policy.clone(),
        }
    }
}
