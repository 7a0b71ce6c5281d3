//! Asks for the names of backends, as [`names`](super::names) says which and when.

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

use super::limits::LOOKUP_PATIENCE;
use super::names::Question;
use super::truth::Truth;
use crate::config::SyncSettings;

/// What came of a question.
enum Answer {
    Found(Vec<IpAddr>, Duration),
    /// Nothing for longer than who expects an answer waits.
    Slow,
    Failed(String),
}

/// Asks for names as they come due, for ever. `reload` says that resolv.conf or hosts may be new.
pub(super) async fn keep_asking(
    truth: Rc<RefCell<Truth>>,
    settings: Rc<SyncSettings>,
    reload: Rc<Notify>,
) -> Infallible {
    let wake = Rc::clone(&truth.borrow().book.wake);
    let mut resolver = resolver(&settings.dns_servers);
    let mut asking = JoinSet::new();
    loop {
        let next = {
            let book = &mut truth.borrow_mut().book;
            let now = Instant::now();
            while let Some(question) = book.ask(now) {
                let resolver = resolver.clone();
                asking.spawn(async move {
                    let answer = ask(&resolver, &question).await;
                    (question, answer)
                });
            }
            book.next()
        };
        let pause = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Ok((question, answer))) = asking.join_next() => {
                let truth = &mut truth.borrow_mut();
                file(truth, &question, answer);
                // What has come meanwhile is told and looked at in one go.
                while let Some(Ok((question, answer))) = asking.try_join_next() {
                    file(truth, &question, answer);
                }
                truth.tell_names();
                truth.check_ready();
            }
            () = pause => {}
            () = wake.notified() => {}
            () = reload.notified() => {
                resolver = self::resolver(&settings.dns_servers);
                truth.borrow_mut().book.expire_all(Instant::now());
            }
        }
    }
}

async fn ask(resolver: &TokioResolver, question: &Question) -> Answer {
    let answer = resolver.lookup_ip(&*question.name);
    let answer = if question.is_patient {
        answer.await
    } else {
        match tokio::time::timeout(LOOKUP_PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => return Answer::Slow,
        }
    };
    match answer {
        Ok(found) => {
            let ttl = found
                .valid_until()
                .saturating_duration_since(Instant::now());
            Answer::Found(found.iter().collect(), ttl)
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn file(truth: &mut Truth, question: &Question, answer: Answer) {
    let now = Instant::now();
    let name = &*question.name;
    match answer {
        Answer::Found(addresses, ttl) => {
            let count = addresses.len();
            if truth.book.answer(question, addresses, ttl, now) {
                tracing::debug!(name, count, "backend name resolved");
            }
        }
        Answer::Slow => truth.book.set_slow(question, now),
        Answer::Failed(error) => {
            if truth.book.fail(question, now) == 1 {
                tracing::warn!(
                    name,
                    error,
                    "backend name does not resolve, keeping its last addresses; check the name and the DNS servers"
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
            tracing::warn!(error, "resolv.conf cannot be used, only /etc/hosts is");
            let settings = ResolverConfig::from_name_servers(Vec::new());
            TokioResolver::builder_with_config(settings, TokioRuntimeProvider::default())
        })
    } else {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut one| {
                one.port = address.port();
                one
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let settings = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(settings, provider)
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // The book is the cache; a second one would stretch its TTLs.
    options.cache_size = 0;
    builder
        .build()
        .expect("a plain resolver needs nothing that can be missing")
}
