//! Limits the lines that a worker writes about backends that failed their clients. Clients ask again and
//! again for a host that is down, so lines beyond a number per second are counted instead of written.

use std::time::{Duration, Instant};

/// Lines per span. Ten workers with a broken host write 100 lines a second.
const LINES_MAX: u32 = 10;
const SPAN: Duration = Duration::from_secs(1);

/// The lines of one worker in the present span.
#[derive(Default)]
pub(crate) struct FailureLog {
    span: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl FailureLog {
    /// Asks for a line. `Some`: it may be written, and so many were left out since the last one.
    pub(crate) fn enter(&mut self, now: Instant) -> Option<u64> {
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
