//! The ways in which a route chooses among its backends, and their names in options.

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) enum Balance {
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
    pub(crate) const ALL: [Balance; 6] = [
        Balance::LeastOfTwo,
        Balance::Least,
        Balance::RoundRobin,
        Balance::Random,
        Balance::Source,
        Balance::First,
    ];

    /// The word in options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Balance::LeastOfTwo => "p2c",
            Balance::Least => "least",
            Balance::RoundRobin => "round-robin",
            Balance::Random => "random",
            Balance::Source => "source",
            Balance::First => "first",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Balance> {
        Self::ALL.into_iter().find(|balance| balance.name() == word)
    }
}
