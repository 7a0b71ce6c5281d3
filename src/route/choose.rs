//! Which backend of a route a connection gets. All cores choose by the same counts, turns and marks
//! (those of [`Vitals`](super::Vitals) and [`Route`]), so that with few connections per core the
//! spread is that of one choice for all; a core's own is only its random numbers.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::backend::Backend;
use super::queue::Wanted;
use super::table::Route;
use super::vitals::{Admission, Moment};

/// What a backend that is back gets at least of its weight, so that its slow start begins at all.
const SLOW_START_LEAST: f64 = 0.1;

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Balance {
    /// Two at random, then the one with fewer live connections for its weight ("p2c").
    #[default]
    LeastOfTwo,
    /// The one with the fewest live connections for its weight.
    Least,
    RoundRobin,
    Random,
    /// By the client's address (rendezvous hashing): the same client meets the same backend, and a
    /// backend that is lost moves its own clients only.
    Source,
    /// The heaviest that has room, of several the first by its text.
    First,
}

impl Balance {
    pub const ALL: [Balance; 6] = [
        Balance::LeastOfTwo,
        Balance::Least,
        Balance::RoundRobin,
        Balance::Random,
        Balance::Source,
        Balance::First,
    ];

    /// The word in options.
    pub fn name(self) -> &'static str {
        match self {
            Balance::LeastOfTwo => "p2c",
            Balance::Least => "least",
            Balance::RoundRobin => "round-robin",
            Balance::Random => "random",
            Balance::Source => "source",
            Balance::First => "first",
        }
    }

    pub fn parse(word: &str) -> Option<Balance> {
        Self::ALL.into_iter().find(|balance| balance.name() == word)
    }
}

/// For whom a backend is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'w> {
    /// Slots of backends that came to nothing already.
    pub tried: &'w [u32],
    /// Needed only where the route goes by it; see [`Chooser::goes_by_client`].
    pub client: Option<IpAddr>,
    pub now: Moment,
}

/// What a choice amounts to.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Backend(Chosen),
    /// Those that are up have as many connections as they may.
    Full,
    /// None is left.
    Nothing,
}

/// A backend, and under which conditions.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub backend: Arc<Backend>,
    /// Live connections that it may have, this one included.
    pub connections_max: Option<NonZeroU32>,
    /// Whether it works again is what this connection is to find out.
    pub is_trial: bool,
    /// None of the route's backends is up, so that one that is not was chosen.
    pub is_last_resort: bool,
}

/// One core's choosing.
#[derive(Debug)]
pub(crate) struct Chooser {
    balance: Balance,
    rng: fastrand::Rng,
    /// Made anew by each choice that goes over all backends; the memory stays.
    candidates: Vec<Candidate>,
    /// Those that would be among them, had they room, by their indices; `true`: of the last resort.
    full: (Vec<usize>, bool),
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    /// The share's weight, less while it starts slowly.
    weight: f64,
}

/// Which backends come into question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Regular,
    /// Those of which an answer is overdue.
    Suspect,
    Backup,
    /// Whatever their marks say.
    LastResort,
}

impl Chooser {
    /// `balance` is for routes that say nothing. `seed` differs per core, so that cores do not
    /// choose in step.
    pub(crate) fn new(balance: Balance, seed: u64) -> Chooser {
        Chooser {
            balance,
            rng: fastrand::Rng::with_seed(seed),
            candidates: Vec::new(),
            full: (Vec::new(), false),
        }
    }

    /// Where a place is worth waiting for after a choice among the backends of the route came to
    /// [`Choice::Full`], and whether all of them are down.
    pub(crate) fn full(&self, route: &Route) -> (Vec<Wanted>, bool) {
        let (full, is_last_resort) = &self.full;
        let wanted = full.iter().filter_map(|index| {
            let backend = Arc::clone(&route.backends()[*index]);
            Some((backend, route.share(*index).connections_max?))
        });
        (wanted.collect(), *is_last_resort)
    }

    /// Whether the client's address has to be known.
    pub(crate) fn goes_by_client(&self, route: &Route) -> bool {
        self.balance_of(route) == Balance::Source
    }

    /// Picks among the backends that have an address, room, and no mark against them, and whose slots
    /// are not in `tried`; backups only when no other is up, and those with marks only when no backup
    /// is either.
    pub(crate) fn choose(&mut self, route: &Route, wish: &Wish<'_>) -> Choice {
        let balance = self.balance_of(route);
        if balance == Balance::LeastOfTwo
            && is_plain(route)
            && let Some(index) = self.two_at_random(route, wish)
        {
            return chosen(route, index, Tier::Regular, false);
        }
        for tier in [Tier::Regular, Tier::Suspect, Tier::Backup, Tier::LastResort] {
            self.gather(route, wish, tier);
            let mut is_full = !self.full.0.is_empty();
            while let Some(index) = self.pick(balance, route, wish) {
                let vitals = route.backends()[index].vitals();
                let needs_trial =
                    tier != Tier::LastResort && vitals.admission(wish.now) == Admission::Trial;
                if !needs_trial || vitals.claim_trial(wish.now) {
                    return chosen(route, index, tier, needs_trial);
                }
                // Another core has the trial.
                self.candidates.retain(|candidate| candidate.index != index);
                is_full = false;
            }
            if is_full {
                return Choice::Full;
            }
        }
        Choice::Nothing
    }

    /// Whether a backend that served before may serve again, without a choice.
    pub(crate) fn is_still_good(route: &Route, backend: &Backend, now: Moment) -> bool {
        let index = route.index_of(backend.slot());
        index.is_some_and(|index| {
            !route.share(index).backup && Chooser::may_answer(route, index, now)
        })
    }

    /// Whether nothing speaks against the backend at `index`.
    pub(crate) fn may_answer(route: &Route, index: usize, now: Moment) -> bool {
        let backend = &route.backends()[index];
        backend.vitals().admission(now) == Admission::Yes
            && route.checks().get(index).is_none_or(|check| check.is_up())
            && has_room(backend, route.share(index).connections_max)
    }

    /// Whether a place that was waited for is still worth taking; as a trial, if that is `Some(true)`.
    pub(crate) fn takes_place(route: &Route, backend: &Backend, now: Moment) -> Option<bool> {
        let index = route.index_of(backend.slot())?;
        let check = route.checks().get(index);
        let vitals = backend.vitals();
        match check.is_none_or(|check| check.is_up()) {
            false => None,
            true => match vitals.admission(now) {
                Admission::Yes | Admission::Suspect => Some(false),
                Admission::Trial => vitals.claim_trial(now).then_some(true),
                Admission::No => None,
            },
        }
    }

    fn balance_of(&self, route: &Route) -> Balance {
        let said = route.options().and_then(|options| options.said.balance);
        said.unwrap_or(self.balance)
    }

    /// The way of nearly every connection: two draws, and no look at the other backends. `None`: it
    /// takes a closer look.
    fn two_at_random(&mut self, route: &Route, wish: &Wish<'_>) -> Option<usize> {
        let backends = route.backends();
        let is_good = |index: &usize| {
            let backend = &backends[*index];
            backend.vitals().admission(wish.now) == Admission::Yes
                && backend.address_count() > 0
                && !wish.tried.contains(&backend.slot())
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
        let live = |index: usize| backends[index].vitals().live();
        Some(if live(other) < live(one) { other } else { one })
    }

    /// Collects the candidates of a tier, and those that would be some, had they room.
    fn gather(&mut self, route: &Route, wish: &Wish<'_>, tier: Tier) {
        self.candidates.clear();
        self.full.0.clear();
        self.full.1 = tier == Tier::LastResort;
        for (index, backend) in route.backends().iter().enumerate() {
            let share = route.share(index);
            let check = route.checks().get(index);
            let admission = match check.is_none_or(|check| check.is_up()) {
                true => backend.vitals().admission(wish.now),
                false => Admission::No,
            };
            let is_meant = match (tier, admission) {
                (Tier::LastResort, _) => true,
                (_, Admission::No) => false,
                (Tier::Regular, Admission::Suspect) => false,
                (Tier::Regular, _) => !share.backup,
                (Tier::Suspect, Admission::Suspect) => !share.backup,
                (Tier::Suspect, _) => false,
                (Tier::Backup, _) => share.backup,
            };
            if !is_meant || backend.address_count() == 0 || wish.tried.contains(&backend.slot()) {
                continue;
            }
            if !has_room(backend, share.connections_max) {
                self.full.0.push(index);
                continue;
            }
            let weight = f64::from(share.weight) * slow_start(route, index, wish.now);
            self.candidates.push(Candidate { index, weight });
        }
    }

    /// One of the candidates; `None` when there is none.
    fn pick(&mut self, balance: Balance, route: &Route, wish: &Wish<'_>) -> Option<usize> {
        let backends = route.backends();
        match (balance, wish.client) {
            (Balance::LeastOfTwo, _) => {
                let one = self.draw(None)?;
                let other = self.draw(Some(one.index));
                let other = other.filter(|other| load(route, other) < load(route, &one));
                Some(other.unwrap_or(one).index)
            }
            (Balance::Least, _) => {
                // From a random one on, so that equals share.
                let start = self.rng.usize(..self.candidates.len().max(1));
                let (before, from) = self.candidates.split_at(start.min(self.candidates.len()));
                let in_turn = from.iter().chain(before);
                let least = in_turn.min_by(|a, b| load(route, a).total_cmp(&load(route, b)));
                least.map(|candidate| candidate.index)
            }
            (Balance::RoundRobin, _) => self.in_turn(route),
            (Balance::Source, Some(client)) => {
                let client = client_number(client);
                let score = |candidate: &Candidate| {
                    let mixed = mix(backends[candidate.index].identity() ^ mix(client));
                    // Of weighted rendezvous hashing the smallest of -ln(u)/weight wins.
                    -unit(mixed).ln() / candidate.weight
                };
                let scored = self.candidates.iter();
                let best = scored.min_by(|a, b| score(a).total_cmp(&score(b)));
                best.map(|candidate| candidate.index)
            }
            // A client without an address has nothing to go by.
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

    /// With equal weights one after the other. Otherwise the turns are laid on a circle at the golden
    /// angle, which spreads any number of them evenly over arcs as long as the weights.
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

/// Whether nothing has been said about the members or how they are looked after.
fn is_plain(route: &Route) -> bool {
    !route.has_shares()
        && route.checks().is_empty()
        && route
            .options()
            .is_none_or(|options| options.said.slow_start.is_none())
}

fn chosen(route: &Route, index: usize, tier: Tier, is_trial: bool) -> Choice {
    Choice::Backend(Chosen {
        backend: Arc::clone(&route.backends()[index]),
        connections_max: route.share(index).connections_max,
        is_trial,
        is_last_resort: tier == Tier::LastResort,
    })
}

fn has_room(backend: &Backend, connections_max: Option<NonZeroU32>) -> bool {
    backend.vitals().has_room(connections_max)
}

/// Live connections for its weight, the one to come included.
fn load(route: &Route, candidate: &Candidate) -> f64 {
    let live = route.backends()[candidate.index].vitals().live();
    (f64::from(live) + 1.0) / candidate.weight
}

/// The part of its weight that a backend has, 1 unless it came back a short while ago.
fn slow_start(route: &Route, index: usize, now: Moment) -> f64 {
    let Some(span) = route.options().and_then(|options| options.said.slow_start) else {
        return 1.0;
    };
    let by_itself = route.backends()[index].vitals().back_since();
    let by_check = route
        .checks()
        .get(index)
        .and_then(|check| check.back_since());
    let Some(since) = by_itself.max(by_check).filter(|_| !span.is_zero()) else {
        return 1.0;
    };
    let part = now.since(since).as_secs_f64() / span.as_secs_f64();
    part.clamp(SLOW_START_LEAST, 1.0)
}

/// What is one client: an IPv4 address, or the /64 of an IPv6 address, of which each subscriber has
/// one at least (RFC 6177) and in which it changes its address by itself (RFC 8981).
pub(crate) fn client_number(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()) | 4 << 32,
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// The finisher of SplitMix64, which spreads every bit over all.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 to 1, neither of them reached.
fn unit(number: u64) -> f64 {
    ((number >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests;
