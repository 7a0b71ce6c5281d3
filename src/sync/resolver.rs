//! Looks up the DNS names of backends. [`dns_cache`](super::dns_cache) says which and when.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::dns_cache::Question;
use super::routing_state::RoutingState;
use crate::config::SyncSettings;

/// How long a look-up may take whose last one did not fail. Servers that know the name, or are near a
/// server that does, answer faster; a hundred dead names that are looked up first delay the others by four
/// times this.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// What came of a look-up.
enum Answer {
    Found {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    TimedOut,
    Failed(String),
}

/// Looks up names as they become due, for ever. `reload` signals that resolv.conf or /etc/hosts may have
/// changed.
pub(super) async fn resolve_names(
    state: Rc<RefCell<RoutingState>>,
    settings: Rc<SyncSettings>,
    reload: Rc<Notify>,
) -> Infallible {
    let wake = Rc::clone(&state.borrow().dns.wake);
    let mut resolver = resolver(&settings.dns_servers);
    let mut look_ups = JoinSet::new();
    loop {
        let next = {
            let cache = &mut state.borrow_mut().dns;
            let now = Instant::now();
            while let Some(question) = cache.next_question(now) {
                let resolver = resolver.clone();
                look_ups.spawn(async move {
                    let answer = look_up(&resolver, &question).await;
                    (question, answer)
                });
            }
            cache.next_due()
        };
        let pause = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Ok((question, answer))) = look_ups.join_next() => {
                let state = &mut state.borrow_mut();
                file(state, &question, answer);
                // Of several answers the status is updated once.
                while let Some(Ok((question, answer))) = look_ups.try_join_next() {
                    file(state, &question, answer);
                }
                state.update_dns_status();
                state.update_ready();
            }
            () = pause => {}
            () = wake.notified() => {}
            () = reload.notified() => {
                resolver = self::resolver(&settings.dns_servers);
                state.borrow_mut().dns.expire_all(Instant::now());
            }
        }
    }
}

async fn look_up(resolver: &TokioResolver, question: &Question) -> Answer {
    let look_up = resolver.lookup_ip(&*question.name);
    let found = if question.is_failing {
        look_up.await
    } else {
        match tokio::time::timeout(LOOKUP_TIMEOUT, look_up).await {
            Ok(found) => found,
            Err(_) => return Answer::TimedOut,
        }
    };
    match found {
        Ok(found) => {
            let ttl = found
                .valid_until()
                .saturating_duration_since(Instant::now());
            Answer::Found {
                addresses: found.iter().collect(),
                ttl,
            }
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn file(state: &mut RoutingState, question: &Question, answer: Answer) {
    let now = Instant::now();
    let name = &*question.name;
    match answer {
        Answer::Found { addresses, ttl } => {
            let count = addresses.len();
            if state.dns.set_answer(question, addresses, ttl, now) {
                tracing::debug!(
                    dns.question.name = name,
                    addresses = count,
                    "backend name resolved"
                );
            }
        }
        Answer::TimedOut => state.dns.set_timed_out(question, now),
        Answer::Failed(error) => {
            if state.dns.set_failure(question, now) == 1 {
                tracing::warn!(
                    dns.question.name = name,
                    error,
                    "backend name does not resolve, its last addresses stay in use; check the name and the \
                    DNS servers"
                );
            }
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> TokioResolver {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder(provider).unwrap_or_else(|error| {
            let error = error.to_string();
            tracing::warn!(
                error,
                "resolv.conf cannot be used, names are looked up in /etc/hosts only"
            );
            let config = ResolverConfig::from_name_servers(Vec::new());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        })
    } else {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut one| {
                one.port = address.port();
                one
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, provider)
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // A second cache beside the DnsCache would lengthen the TTLs.
    options.cache_size = 0;
    builder
        .build()
        .expect("a plain resolver needs nothing that can be missing")
}
