//! The spans of a connection's life that are timed.

/// A span of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Accepted until the head is complete and valid: mostly the client's network.
    Head,
    /// Looking up the name in the table.
    Route,
    /// First connect attempt until a backend has accepted, failed attempts included.
    Connect,
    /// Head sent to the backend until its first byte came back.
    FirstByte,
    /// Accepted until both sides are closed.
    Lifetime,
    /// A request's head complete until the head of its response, connecting included.
    Request,
}

impl Stage {
    pub(crate) const ALL: [Stage; 6] = [
        Stage::Head,
        Stage::Route,
        Stage::Connect,
        Stage::FirstByte,
        Stage::Lifetime,
        Stage::Request,
    ];
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Position in [`Stage::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The word in tags, tables and metric labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Head => "head",
            Stage::Route => "route",
            Stage::Connect => "connect",
            Stage::FirstByte => "first_byte",
            Stage::Lifetime => "lifetime",
            Stage::Request => "request",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage.index(), position);
        }
    }
}
