//! The named reasons for which a head is refused.

/// What the client is told about a refusal; `reply` turns it into an alert or a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// TLS alert decode_error; HTTP 400.
    Malformed,
    /// TLS alert decode_error; HTTP 431.
    TooLarge,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The first byte is no TLS record of type handshake.
    NotTls,
}

impl Refusal {
    const ALL: [Refusal; 1] = [Refusal::NotTls];
    pub const COUNT: usize = Self::ALL.len();

    pub fn all() -> impl Iterator<Item = Refusal> {
        Self::ALL.into_iter()
    }

    /// Position in [`Refusal::all`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotTls => "not_tls",
        }
    }

    pub fn answer(self) -> Answer {
        Answer::Malformed
    }
}
