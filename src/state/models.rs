//! The budget of connections, counted by two workers in every order of their steps: `scripts/model`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use shuttle::{check_dfs, thread};

use super::ConnectionBudget;
use crate::protect::LimitSettings;

/// Whether there is room and taking it are two steps: each further worker may exceed the budget by one
/// connection, and no more.
#[test]
fn two_workers_exceed_the_budget_by_one_connection_at_most() {
    const MAX: usize = 2;
    let admitted: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    let seen = Arc::clone(&admitted);
    let model = move || {
        let budget = ConnectionBudget::new(2 * MAX, 2, 0, &LimitSettings::default());
        let budget = Arc::new(budget);
        let accept = |budget: &ConnectionBudget| {
            let mut accepted = 0;
            while accepted < MAX && !budget.is_full() {
                budget.begin();
                accepted += 1;
            }
            accepted
        };
        let others = Arc::clone(&budget);
        let other = thread::spawn(move || accept(&others));
        let accepted = accept(&budget) + other.join().unwrap();
        seen.lock().unwrap().insert(accepted);
        assert!(budget.is_full());
        for _ in 0..accepted {
            budget.end();
        }
        assert!(!budget.is_full());
    };
    check_dfs(model, None);
    assert_eq!(*admitted.lock().unwrap(), BTreeSet::from([MAX, MAX + 1]));
}
