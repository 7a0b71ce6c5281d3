//! Non-blocking reads and writes, with results as the loop needs them.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

/// The result of one read or write.
#[derive(Debug)]
pub enum Moved {
    Bytes(usize),
    /// It would block; an event follows.
    Blocked,
    /// The other side has finished sending (reads only).
    Finished,
    Failed(io::Error),
}

pub fn read(stream: &mut TcpStream, into: &mut [u8]) -> Moved {
    loop {
        return match stream.read(into) {
            Ok(0) => Moved::Finished,
            Ok(length) => Moved::Bytes(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Moved::Blocked,
            Err(error) => Moved::Failed(error),
        };
    }
}

pub fn write(stream: &mut TcpStream, from: &[u8]) -> Moved {
    loop {
        return match stream.write(from) {
            Ok(length) => Moved::Bytes(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // While the connect is under way Linux returns EAGAIN; ENOTCONN would be allowed, too.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotConnected
                ) =>
            {
                Moved::Blocked
            }
            Err(error) => Moved::Failed(error),
        };
    }
}

/// Finds the end of an HTTP head that may come in several reads. It keeps the last four bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadEnd {
    tail: u32,
}

impl HeadEnd {
    /// Position behind the empty line in `bytes`, if it is there; the search then begins anew.
    pub fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.tail = self.tail << 8 | u32::from(*byte);
            if self.tail == u32::from_be_bytes(*b"\r\n\r\n") {
                self.tail = 0;
                return Some(index + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_however_it_was_cut() {
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        for cut in 0..whole.len() {
            let mut end = HeadEnd::default();
            let found = match end.advance(&whole[..cut]) {
                Some(position) => Some(position),
                None => end.advance(&whole[cut..]).map(|position| cut + position),
            };
            assert_eq!(found, Some(25));
        }
    }
}
