//! What the log says, whatever its level, of a client that its backends have failed: which host, which
//! backend, and why. A host that is down is asked again and again, so that a core writes only so many
//! lines, and counts the others.

use std::time::{Duration, Instant};

use crate::local::Local;
use crate::outcome::Outcome;
use crate::route::Route;

/// In each span this many lines; ten cores that meet a broken host write 100 lines a second.
const LINES_MAX: u32 = 10;
const SPAN: Duration = Duration::from_secs(1);

/// How much one core has said of late.
#[derive(Default)]
pub(crate) struct FailureLog {
    span: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl FailureLog {
    /// Whether there is room for one more line, and how many had none since the last one.
    fn enter(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began| now.saturating_duration_since(began) >= SPAN;
        if self.span.is_none_or(is_over) {
            self.span = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

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
            host = host().as_deref().unwrap_or("-"),
            backend = backend.unwrap_or("-"),
            attempts,
            rule,
            left_out,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_instead_of_written() {
        let mut log = FailureLog::default();
        let begin = Instant::now();
        let written = (0..1000).filter(|_| log.enter(begin).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(log.enter(begin + SPAN), Some(990));
        assert_eq!(log.enter(begin + SPAN), Some(0));
    }
}
