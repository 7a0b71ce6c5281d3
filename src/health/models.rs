//! The passive health of a backend, changed by several threads in every order of their steps:
//! `scripts/model`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::{check_dfs, thread};

use super::moment::Moment;
use super::passive::{Admission, EjectionRules, PassiveHealth};

/// Both failures count, one of them ejects; one of two gets the probe, and one success ends it.
#[test]
fn an_ejection_its_probe_and_its_end_belong_to_one_worker_each() {
    let both = |health: &Arc<PassiveHealth>, act: fn(&PassiveHealth) -> bool| {
        let others = Arc::clone(health);
        let other = thread::spawn(move || act(&others));
        [act(health), other.join().unwrap()]
    };
    const ONE_OF_TWO: [[bool; 2]; 2] = [[true, false], [false, true]];
    fn start() -> Moment {
        Moment::of(*START.get_or_init(Instant::now))
    }
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    fn later() -> Moment {
        start().after(Duration::from_secs(60))
    }
    let eject = |health: &PassiveHealth| {
        let rules = EjectionRules {
            consecutive_failures: 2,
            ..EjectionRules::default()
        };
        health.record_failure(start(), &rules, 0.0).is_some()
    };
    let model = move || {
        let health = Arc::new(PassiveHealth::default());
        assert!(ONE_OF_TWO.contains(&both(&health, eject)));
        assert_eq!(health.admission(start()), Admission::No);
    };
    check_dfs(model, None);
    let model = move || {
        let health = Arc::new(PassiveHealth::default());
        (0..2).for_each(|_| _ = eject(&health));
        let probes = both(&health, |health| health.claim_probe(later()));
        assert!(ONE_OF_TWO.contains(&probes));
        let ends = both(&health, |health| health.record_success(later()));
        assert!(ONE_OF_TWO.contains(&ends));
        assert_eq!(health.admission(later()), Admission::Yes);
    };
    check_dfs(model, None);
}
