//! The warning that a client was refused because of its backends: which host, which backend, and why.
//! See [`crate::state`] for the limit of such lines.

use crate::outcome::Outcome;
use crate::route::Route;
use crate::state::Local;

/// Warns that a client gets an error because no backend could be reached, or because of what the backend
/// sent; `rule` is the rule that its response breaks. Other outcomes are not logged. Gives back the
/// outcome.
pub(crate) fn note(
    local: &Local,
    outcome: Outcome,
    host: impl FnOnce() -> Option<String>,
    backend: Option<&str>,
    attempts: u32,
    rule: Option<&'static str>,
) -> Outcome {
    let is_backends = matches!(
        outcome,
        Outcome::NoAddress
            | Outcome::BackendUnreachable
            | Outcome::BackendTimeout
            | Outcome::BackendsFull
            | Outcome::BackendClosed
            | Outcome::ResponseTimeout
            | Outcome::ResponseInvalid
            | Outcome::ResponseHeadTooLarge
    );
    if !is_backends {
        return outcome;
    }
    let room = local.failures.borrow_mut().enter(local.ring.now());
    if let Some(left_out) = room {
        tracing::warn!(
            core = local.core,
            server.address = host().as_deref().unwrap_or("-"),
            backend = backend.unwrap_or("-"),
            attempts,
            rule,
            left_out,
            see = outcome.see(),
            "{}: {}",
            outcome.name(),
            outcome.explain()
        );
    }
    outcome
}

/// The backend of a route in this slot, as an operator writes it.
pub(crate) fn backend_text(route: &Route, slot: Option<u32>) -> Option<&str> {
    let slot = slot?;
    let mut backends = route.backends().iter();
    let backend = backends.find(|backend| backend.slot() == slot)?;
    Some(backend.text())
}
