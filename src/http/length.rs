//! How long a body is, by the Content-Length and Transfer-Encoding fields of its head (RFC 9112
//! section 6).

/// The length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    Bytes(u64),
    /// The chunks say where it ends.
    Chunked,
    /// It ends when the sender closes; in responses only.
    UntilClose,
}

/// What the Content-Length and Transfer-Encoding fields read so far say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LengthFields {
    content_length: Option<u64>,
    is_chunked: bool,
}

/// Which rule about lengths a head breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LengthFault {
    /// A Content-Length is no number of at most 64 bits.
    Number,
    /// Two Content-Lengths differ.
    Differ,
    /// There are a Content-Length and a Transfer-Encoding.
    Both,
    /// A Transfer-Encoding is not `chunked`, or there are two.
    Encoding,
}

impl LengthFields {
    pub(super) fn read_content_length(&mut self, value: &[u8]) -> Result<(), LengthFault> {
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(LengthFault::Number);
        }
        let text = std::str::from_utf8(digits).map_err(|_| LengthFault::Number)?;
        let length: u64 = text.parse().map_err(|_| LengthFault::Number)?;
        match self.content_length.replace(length) {
            Some(other) if other != length => Err(LengthFault::Differ),
            _ => Ok(()),
        }
    }

    /// Only `chunked`, once: a body in an unknown coding has no known end, and of two fields some
    /// readers see only one.
    pub(super) fn read_transfer_encoding(&mut self, value: &[u8]) -> Result<(), LengthFault> {
        if self.is_chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(LengthFault::Encoding);
        }
        self.is_chunked = true;
        Ok(())
    }

    /// Whether both fields are there.
    pub(super) fn has_both(self) -> bool {
        self.is_chunked && self.content_length.is_some()
    }

    /// The length; `None` when no field states it.
    ///
    /// # Errors
    /// When both fields are there.
    pub(super) fn strict(self) -> Result<Option<Length>, LengthFault> {
        if self.has_both() {
            return Err(LengthFault::Both);
        }
        Ok(self.lenient())
    }

    /// As [`LengthFields::strict`], but of two fields Transfer-Encoding counts (RFC 9112 section 6.3,
    /// rule 3).
    pub(super) fn lenient(self) -> Option<Length> {
        if self.is_chunked {
            return Some(Length::Chunked);
        }
        self.content_length.map(Length::Bytes)
    }
}
