//! From single answers to a verdict. A single answer may be chance; several in a row are not.

/// Whether a backend counts as up under one health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    is_up: bool,
    /// Answers in a row that contradict the verdict.
    contradictions: u8,
}

impl Verdict {
    /// Up until answers say otherwise: a proxy that has just started has clients to serve.
    pub(crate) fn new() -> Verdict {
        Verdict {
            is_up: true,
            contradictions: 0,
        }
    }

    /// Takes in one answer and returns the new verdict if it changed. `rise` good answers in a row turn
    /// it up, `fall` bad ones turn it down.
    pub(crate) fn changed_by(&mut self, is_good: bool, rise: u8, fall: u8) -> Option<bool> {
        if is_good == self.is_up {
            self.contradictions = 0;
            return None;
        }
        self.contradictions = self.contradictions.saturating_add(1);
        let needed = if self.is_up { fall } else { rise };
        if self.contradictions < needed {
            return None;
        }
        *self = Verdict {
            is_up: is_good,
            contradictions: 0,
        };
        Some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which answers the verdict changes. `+` is a good answer.
    fn changes(answers: &str, rise: u8, fall: u8) -> Vec<(usize, bool)> {
        let mut verdict = Verdict::new();
        let answers = answers.chars().map(|answer| answer == '+').enumerate();
        answers
            .filter_map(|(at, is_good)| Some((at, verdict.changed_by(is_good, rise, fall)?)))
            .collect()
    }

    #[test]
    fn only_answers_in_a_row_change_it() {
        assert_eq!(changes("--+--+--+", 2, 3), []);
        assert_eq!(changes("----", 2, 3), [(2, false)]);
        assert_eq!(changes("---+-+-++-", 2, 3), [(2, false), (8, true)]);
        assert_eq!(
            changes("---++--+---", 2, 3),
            [(2, false), (4, true), (10, false)]
        );
    }

    #[test]
    fn one_answer_is_enough_where_rise_and_fall_are_1() {
        assert_eq!(changes("+-+-", 1, 1), [(1, false), (2, true), (3, false)]);
    }

    #[test]
    fn the_greatest_counts_are_reached() {
        assert_eq!(changes(&"-".repeat(300), 100, 100), [(99, false)]);
    }
}
