//! Answers → up or down. Pure: one answer is chance, so many in a row are a verdict.

/// How a backend stands under one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    is_up: bool,
    /// Answers in a row that speak against the verdict.
    against: u8,
}

impl Verdict {
    /// Up until answers say otherwise: a proxy that has just started has clients to serve.
    pub(super) fn new() -> Verdict {
        Verdict {
            is_up: true,
            against: 0,
        }
    }

    /// Takes in one answer; `Some` when that turns the verdict. `rise` good answers in a row make a
    /// backend up, `fall` bad ones make it down.
    pub(super) fn turned_by(&mut self, is_good: bool, rise: u8, fall: u8) -> Option<bool> {
        if is_good == self.is_up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.is_up { fall } else { rise };
        if self.against < needed {
            return None;
        }
        *self = Verdict {
            is_up: is_good,
            against: 0,
        };
        Some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` is a good answer; gives back at which answers the verdict turned.
    fn turns(answers: &str, rise: u8, fall: u8) -> Vec<(usize, bool)> {
        let mut verdict = Verdict::new();
        let answers = answers.chars().map(|answer| answer == '+').enumerate();
        answers
            .filter_map(|(at, is_good)| Some((at, verdict.turned_by(is_good, rise, fall)?)))
            .collect()
    }

    #[test]
    fn only_answers_in_a_row_turn_it() {
        assert_eq!(turns("--+--+--+", 2, 3), []);
        assert_eq!(turns("----", 2, 3), [(2, false)]);
        assert_eq!(turns("---+-+-++-", 2, 3), [(2, false), (8, true)]);
        assert_eq!(
            turns("---++--+---", 2, 3),
            [(2, false), (4, true), (10, false)]
        );
    }

    #[test]
    fn one_answer_is_enough_where_one_is_asked_for() {
        assert_eq!(turns("+-+-", 1, 1), [(1, false), (2, true), (3, false)]);
    }

    #[test]
    fn the_greatest_counts_are_reached() {
        assert_eq!(turns(&"-".repeat(300), 100, 100), [(99, false)]);
    }
}
