//! The choice of a backend for a connection or a request. All cores choose by the same state: the live
//! connections and the health of backends, and the turns of the [`Route`]. So with few connections per
//! core the connections are spread as by a single chooser. Only random numbers are a core's own.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::backend::Backend;
use super::balance::Balance;
use super::client_key::client_key;
use super::route::Route;
use super::ticket::FullBackend;
use crate::health::{Admission, Moment};

/// Part of its weight that a backend has at the beginning of its slow start.
const SLOW_START_LEAST: f64 = 0.1;

/// What a choice depends on besides the route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PickContext<'a> {
    /// Slots of the backends that were tried already.
    pub(crate) tried: &'a [u32],
    /// Needed only if [`Chooser::needs_client`].
    pub(crate) client: Option<IpAddr>,
    pub(crate) now: Moment,
}

/// The result of a choice.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Backend(Chosen),
    /// The backends that are left have as many connections as they may.
    Full,
    /// No backend is left.
    Nothing,
}

/// A chosen backend.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) backend: Arc<Backend>,
    /// Most live connections of the backend, this one included.
    pub(crate) connections_max: Option<NonZeroU32>,
    /// The connection is the probe of a half-open backend.
    pub(crate) is_probe: bool,
    /// Panic mode: no backend of the route is up, so one that is down was chosen.
    pub(crate) is_panic: bool,
}

/// What [`Chooser::full`] found.
#[derive(Debug)]
pub(crate) struct FullBackends {
    pub(crate) backends: Vec<FullBackend>,
    /// All backends of the route are down, so that a slot of any of them may be used.
    pub(crate) is_panic: bool,
}

/// Whether a client may use the slot that it has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuedAdmission {
    Yes,
    /// As the probe of a half-open backend.
    Probe,
    No,
}

/// Chooses backends on one core.
#[derive(Debug)]
pub(crate) struct Chooser {
    balance: Balance,
    rng: fastrand::Rng,
    /// Collected by each choice that looks at all backends. Kept here to use its memory again.
    candidates: Vec<Candidate>,
    /// The backends that would be candidates if they had room.
    full: Full,
}

#[derive(Debug, Default)]
struct Full {
    indices: Vec<usize>,
    /// All backends of the route are down.
    is_panic: bool,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    /// The weight of the share, less during a slow start.
    weight: f64,
}

/// The backends that a step of a choice looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Regular,
    Suspect,
    Backup,
    /// All of them, whatever their health.
    Panic,
}

impl Chooser {
    /// `balance` is for routes without this option. `seed` differs per core, so that cores choose
    /// differently.
    pub(crate) fn new(balance: Balance, seed: u64) -> Chooser {
        Chooser {
            balance,
            rng: fastrand::Rng::with_seed(seed),
            candidates: Vec::new(),
            full: Full::default(),
        }
    }

    /// The full backends of the last choice, which came to [`Choice::Full`].
    pub(crate) fn full(&self, route: &Route) -> FullBackends {
        let full = self.full.indices.iter().filter_map(|index| {
            Some(FullBackend {
                backend: Arc::clone(&route.backends()[*index]),
                connections_max: route.share(*index).connections_max?,
            })
        });
        FullBackends {
            backends: full.collect(),
            is_panic: self.full.is_panic,
        }
    }

    /// Whether the choice depends on the client's address.
    pub(crate) fn needs_client(&self, route: &Route) -> bool {
        self.balance_of(route) == Balance::Source
    }

    /// Chooses among the backends that have an address and room and were not tried. Healthy backends come
    /// first, then suspect ones, then backups, and in panic mode those that are down.
    pub(crate) fn choose(&mut self, route: &Route, context: &PickContext<'_>) -> Choice {
        let balance = self.balance_of(route);
        if balance == Balance::LeastOfTwo
            && is_plain(route)
            && let Some(index) = self.two_at_random(route, context)
        {
            return chosen(route, index, Tier::Regular, false);
        }
        for tier in [Tier::Regular, Tier::Suspect, Tier::Backup, Tier::Panic] {
            self.gather(route, context, tier);
            let mut is_full = !self.full.indices.is_empty();
            while let Some(index) = self.pick(balance, route, context) {
                let health = route.backends()[index].health();
                let needs_probe =
                    tier != Tier::Panic && health.admission(context.now) == Admission::HalfOpen;
                if !needs_probe || health.claim_probe(context.now) {
                    return chosen(route, index, tier, needs_probe);
                }
                // Another core has claimed the probe.
                self.candidates.retain(|candidate| candidate.index != index);
                is_full = false;
            }
            if is_full {
                return Choice::Full;
            }
        }
        Choice::Nothing
    }

    /// Whether a backend may be used again without a choice.
    pub(crate) fn is_still_good(route: &Route, backend: &Backend, now: Moment) -> bool {
        let index = route.index_of(backend.slot());
        index.is_some_and(|index| {
            !route.share(index).backup && Chooser::may_answer(route, index, now)
        })
    }

    /// Whether the backend at `index` is up and has room.
    pub(crate) fn may_answer(route: &Route, index: usize, now: Moment) -> bool {
        let backend = &route.backends()[index];
        backend.health().admission(now) == Admission::Yes
            && route.is_checked_up(index)
            && has_room(backend, route.share(index).connections_max)
    }

    /// Whether a slot that a client has waited for may be used.
    pub(crate) fn admits_queued(route: &Route, backend: &Backend, now: Moment) -> QueuedAdmission {
        let Some(index) = route.index_of(backend.slot()) else {
            return QueuedAdmission::No;
        };
        let health = backend.health();
        match health.admission(now) {
            _ if !route.is_checked_up(index) => QueuedAdmission::No,
            Admission::Yes | Admission::Suspect => QueuedAdmission::Yes,
            Admission::HalfOpen if health.claim_probe(now) => QueuedAdmission::Probe,
            Admission::HalfOpen | Admission::No => QueuedAdmission::No,
        }
    }

    fn balance_of(&self, route: &Route) -> Balance {
        let said = route.options().and_then(|options| options.host.balance);
        said.unwrap_or(self.balance)
    }

    /// The choice of nearly every connection: draws two backends and looks at no other. `None`: all
    /// backends have to be looked at.
    fn two_at_random(&mut self, route: &Route, context: &PickContext<'_>) -> Option<usize> {
        let backends = route.backends();
        let is_good = |index: &usize| {
            let backend = &backends[*index];
            backend.health().admission(context.now) == Admission::Yes
                && backend.address_count() > 0
                && !context.tried.contains(&backend.slot())
        };
        let count = backends.len();
        if count == 0 {
            return None;
        }
        let one = Some(self.rng.usize(..count)).filter(is_good)?;
        if count == 1 {
            return Some(one);
        }
        let other = (one + 1 + self.rng.usize(..count - 1)) % count;
        let other = Some(other).filter(is_good)?;
        let live = |index: usize| backends[index].connections().count();
        Some(if live(other) < live(one) { other } else { one })
    }

    /// Collects the candidates of a tier, and the backends that would be candidates if they had room.
    fn gather(&mut self, route: &Route, context: &PickContext<'_>, tier: Tier) {
        self.candidates.clear();
        self.full.indices.clear();
        self.full.is_panic = tier == Tier::Panic;
        for (index, backend) in route.backends().iter().enumerate() {
            let share = route.share(index);
            let admission = if route.is_checked_up(index) {
                backend.health().admission(context.now)
            } else {
                Admission::No
            };
            let is_in_tier = match (tier, admission) {
                (Tier::Panic, _) => true,
                (_, Admission::No) => false,
                (Tier::Regular, Admission::Suspect) => false,
                (Tier::Regular, _) => !share.backup,
                (Tier::Suspect, Admission::Suspect) => !share.backup,
                (Tier::Suspect, _) => false,
                (Tier::Backup, _) => share.backup,
            };
            if !is_in_tier
                || backend.address_count() == 0
                || context.tried.contains(&backend.slot())
            {
                continue;
            }
            if !has_room(backend, share.connections_max) {
                self.full.indices.push(index);
                continue;
            }
            let weight = f64::from(share.weight) * slow_start(route, index, context.now);
            self.candidates.push(Candidate { index, weight });
        }
    }

    /// One of the candidates; `None` when there is none.
    fn pick(
        &mut self,
        balance: Balance,
        route: &Route,
        context: &PickContext<'_>,
    ) -> Option<usize> {
        let backends = route.backends();
        match (balance, context.client) {
            (Balance::LeastOfTwo, _) => {
                let one = self.draw(None)?;
                let other = self.draw(Some(one.index));
                let other = other.filter(|other| load(route, other) < load(route, &one));
                Some(other.unwrap_or(one).index)
            }
            (Balance::Least, _) => {
                // The search starts at random, so that equal backends get equal shares.
                let start = self.rng.usize(..self.candidates.len().max(1));
                let (before, from) = self.candidates.split_at(start.min(self.candidates.len()));
                let in_turn = from.iter().chain(before);
                let least = in_turn.min_by(|a, b| load(route, a).total_cmp(&load(route, b)));
                least.map(|candidate| candidate.index)
            }
            (Balance::RoundRobin, _) => self.in_turn(route),
            (Balance::Source, Some(client)) => {
                let client = client_key(client);
                let score = |candidate: &Candidate| {
                    let mixed = mix(backends[candidate.index].identity() ^ mix(client));
                    // Weighted rendezvous hashing: the smallest -ln(u)/weight wins.
                    -unit(mixed).ln() / candidate.weight
                };
                let scored = self.candidates.iter();
                let best = scored.min_by(|a, b| score(a).total_cmp(&score(b)));
                best.map(|candidate| candidate.index)
            }
            // The client's address may be unknown.
            (Balance::Random, _) | (Balance::Source, None) => {
                self.draw(None).map(|candidate| candidate.index)
            }
            (Balance::First, _) => {
                let order = |candidate: &&Candidate| {
                    let weight = route.share(candidate.index).weight;
                    (std::cmp::Reverse(weight), backends[candidate.index].text())
                };
                let first = self.candidates.iter().min_by_key(order);
                first.map(|candidate| candidate.index)
            }
        }
    }

    /// A candidate at random, by weight; not the one at `except`.
    fn draw(&mut self, except: Option<usize>) -> Option<Candidate> {
        let meant = |candidate: &&Candidate| Some(candidate.index) != except;
        let total: f64 = self
            .candidates
            .iter()
            .filter(meant)
            .map(|one| one.weight)
            .sum();
        let mut point = self.rng.f64() * total;
        let mut last = None;
        for candidate in self.candidates.iter().filter(meant) {
            last = Some(*candidate);
            point -= candidate.weight;
            if point < 0.0 {
                break;
            }
        }
        last
    }

    /// With equal weights, one candidate after the other. Otherwise each candidate has an arc of a circle as
    /// long as its weight, and turn after turn moves on by the golden angle, which spreads any number of
    /// turns evenly.
    fn in_turn(&mut self, route: &Route) -> Option<usize> {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let first = *self.candidates.first()?;
        let turn = route.next_turn();
        if self.candidates.iter().all(|one| one.weight == first.weight) {
            let start = turn as usize % route.backends().len();
            let next = self.candidates.iter().find(|one| one.index >= start);
            return Some(next.unwrap_or(&first).index);
        }
        let total: f64 = self.candidates.iter().map(|one| one.weight).sum();
        let mut point = (f64::from(turn) * GOLDEN).fract() * total;
        let reached = self.candidates.iter().find(|one| {
            point -= one.weight;
            point < 0.0
        });
        Some(reached.unwrap_or(&first).index)
    }
}

/// Whether all backends are equal: no shares, no health checks, no slow start.
fn is_plain(route: &Route) -> bool {
    !route.has_shares()
        && route.health_checks().is_empty()
        && route
            .options()
            .is_none_or(|options| options.host.slow_start.is_none())
}

fn chosen(route: &Route, index: usize, tier: Tier, is_probe: bool) -> Choice {
    Choice::Backend(Chosen {
        backend: Arc::clone(&route.backends()[index]),
        connections_max: route.share(index).connections_max,
        is_probe,
        is_panic: tier == Tier::Panic,
    })
}

fn has_room(backend: &Backend, connections_max: Option<NonZeroU32>) -> bool {
    backend.connections().has_room(connections_max)
}

/// Live connections, the new one included, divided by the weight.
fn load(route: &Route, candidate: &Candidate) -> f64 {
    let live = route.backends()[candidate.index].connections().count();
    (f64::from(live) + 1.0) / candidate.weight
}

/// The part of its weight that a backend has: 1, or less when it came back a short while ago.
fn slow_start(route: &Route, index: usize, now: Moment) -> f64 {
    let Some(span) = route.options().and_then(|options| options.host.slow_start) else {
        return 1.0;
    };
    let by_connections = route.backends()[index].health().readmitted_at();
    let health_check = route.health_checks().get(index);
    let by_checks = health_check.and_then(|check| check.up_since());
    let Some(since) = by_connections.max(by_checks).filter(|_| !span.is_zero()) else {
        return 1.0;
    };
    let part = now.since(since).as_secs_f64() / span.as_secs_f64();
    part.clamp(SLOW_START_LEAST, 1.0)
}

/// The finisher of SplitMix64: each bit of the result depends on all bits of the number.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number between 0 and 1, both excluded.
fn unit(number: u64) -> f64 {
    ((number >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests;
