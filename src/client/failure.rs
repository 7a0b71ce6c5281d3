//! What the log says, whatever its level, of a client that its backends have failed: which host, which
//! backend, and why. A host that is down is asked again and again, so that a core writes only so many
//! lines, and counts the others.

use crate::outcome::Outcome;
use crate::route::Route;
use crate::state::Local;

/// Says that a client was turned away for want of a backend, or of a sound answer from it; other
/// outcomes are nobody's business here. `rule` is the one that the answer breaks, where it does. Gives
/// back the outcome.
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

/// One of a route's backends, as an operator writes it.
pub(crate) fn backend_text(route: &Route, slot: Option<u32>) -> Option<&str> {
    let slot = slot?;
    let mut backends = route.backends().iter();
    let backend = backends.find(|backend| backend.slot() == slot)?;
    Some(backend.text())
}
