//! When a response head that arrives in pieces is worth parsing again. Parsing begins at its first byte,
//! so that doing it with every piece would cost the square of its length.

use super::steps;

/// A head is also parsed again when one fourth of it is new, so that one that breaks a rule is refused
/// before its end, which may never come. All parsing before the last then costs at most five times the
/// length of the head.
const NEW_PART: usize = 4;

/// A head whose end has not arrived. It keeps positions only, never bytes.
#[derive(Debug, Default)]
pub(crate) struct IncompleteHead {
    /// Bytes that were there when it was last parsed.
    parsed: usize,
    /// Bytes that were searched for the empty line.
    searched: usize,
    /// Whether a byte was found that is none of the empty lines that may precede a head.
    has_begun: bool,
}

impl IncompleteHead {
    /// `received` were parsed and are no whole head.
    pub(crate) fn new(received: &[u8]) -> IncompleteHead {
        let mut head = IncompleteHead {
            parsed: received.len(),
            ..IncompleteHead::default()
        };
        head.finds_end(received);
        head
    }

    /// Whether to parse `received`: what the last call got, and more behind it. Always when the head has
    /// ended, or is as long as it may be.
    pub(crate) fn should_parse(&mut self, received: &[u8], bytes_max: usize) -> bool {
        self.finds_end(received)
            || received.len() >= self.parsed + self.parsed / NEW_PART
            || received.len() >= bytes_max
    }

    /// Whether an empty line has come since the last call.
    fn finds_end(&mut self, received: &[u8]) -> bool {
        let begin = std::mem::replace(&mut self.searched, received.len());
        steps::count(received.len() - begin);
        (begin..received.len()).any(|at| {
            let (before, byte) = (&received[..at], received[at]);
            self.has_begun |= !matches!(byte, b'\r' | b'\n');
            self.has_begun
                && byte == b'\n'
                && (before.ends_with(b"\n") || before.ends_with(b"\n\r"))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::FieldStorage;
    use crate::http::response::{RequestSummary, ResponseFault, ResponseHead};

    const BYTES_MAX: usize = 65_536;

    fn read(received: &[u8]) -> Result<Option<usize>, ResponseFault> {
        steps::count(received.len());
        let request = RequestSummary {
            is_head: false,
            minor_version: 1,
        };
        let mut storage = FieldStorage::new();
        let head = ResponseHead::parse(received, BYTES_MAX, request, &mut storage)?;
        Ok(head.map(|head| head.head_bytes))
    }

    /// What comes of bytes in pieces, and how many of them were there.
    fn dribbled(bytes: &[u8], piece: usize) -> (Result<Option<usize>, ResponseFault>, usize) {
        let mut incomplete: Option<IncompleteHead> = None;
        let mut end = 0;
        while end < bytes.len() {
            end = bytes.len().min(end + piece);
            let received = &bytes[..end];
            let should_parse = incomplete
                .as_mut()
                .is_none_or(|head| head.should_parse(received, BYTES_MAX));
            if should_parse {
                match read(received) {
                    Ok(None) => incomplete = Some(IncompleteHead::new(received)),
                    verdict => return (verdict, end),
                }
            }
        }
        (Ok(None), end)
    }

    const HEADS: [&str; 5] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "\r\n\n\r\nHTTP/1.1 200 OK\nX: y\n\nhello",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 302 Found\r\nLocation: /\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\n\r\n",
    ];

    #[test]
    fn a_head_is_read_with_the_piece_that_ends_it() {
        for head in HEADS.map(str::as_bytes) {
            let found = read(head).expect("it is sound").expect("it is whole");
            for piece in 1..=head.len() {
                let (verdict, there) = dribbled(head, piece);
                assert_eq!(verdict, Ok(Some(found)), "pieces of {piece}");
                assert_eq!(there, head.len().min(found.div_ceil(piece) * piece));
            }
            for end in 0..found {
                assert_eq!(dribbled(&head[..end], 1).0, Ok(None));
            }
        }
    }

    #[test]
    fn the_work_is_that_of_the_bytes() {
        let fields = "X: y\r\n".repeat(200);
        for (what, head) in [
            ("many fields", format!("HTTP/1.1 200 OK\r\n{fields}\r\n")),
            (
                "a long field",
                format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20_000)),
            ),
            (
                "empty lines before",
                format!("{}HTTP/1.1 200 OK\r\n\r\n", "\r\n".repeat(5_000)),
            ),
        ] {
            for piece in [1, 2, 7] {
                let steps = steps::taken_by(|| {
                    assert_eq!(dribbled(head.as_bytes(), piece).0, Ok(Some(head.len())));
                });
                assert!(
                    steps <= 12 * head.len(),
                    "{what}: {steps} steps for {}",
                    head.len()
                );
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_before_it_ends() {
        let broken = b"HTTP/1.1 200 OK\r\nServer: s\r\nX : y\r\nDate: today\r\n";
        for piece in 1..broken.len() {
            assert_eq!(dribbled(broken, piece).0, Err(ResponseFault::FieldName));
        }
    }

    proptest! {
        #[test]
        fn pieces_change_no_verdict(
            head in "\r?\n?(HTTP/1\\.1 200 OK\r?\n)([A-C]{1,3}: ?[a-c]{0,5}\r?\n|[ -~]{0,9}\r?\n){0,4}\r?\n?",
            piece in 1usize..20,
        ) {
            let (verdict, there) = dribbled(head.as_bytes(), piece);
            match read(head.as_bytes()) {
                Ok(whole) => prop_assert_eq!(verdict, Ok(whole)),
                // It may not have come to a reading again.
                Err(fault) => prop_assert!(
                    verdict == Err(fault) || verdict == Ok(None) && there == head.len(),
                ),
            }
        }
    }
}
