//! Long streams that are sent and checked without being kept in memory. A stream repeats one block of noise
//! of an odd length, so that a byte that is lost, doubled or from another stream is noticed at once.

use std::io::{self, Read, Write};

/// A prime just below 256 KiB, so that no buffer size of the proxy divides it.
const BLOCK_BYTES: usize = 262_139;

/// One endless stream. The same seed gives the same stream.
pub struct Flow {
    block: Vec<u8>,
}

/// How a received stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub bytes: u64,
    pub reset: bool,
}

impl Flow {
    pub fn new(seed: u64) -> Flow {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let block = (0..BLOCK_BYTES).map(|_| {
            // The step of xorshift64 (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Flow {
            block: block.collect(),
        }
    }

    /// Sends the first `bytes` of the stream.
    pub fn send(&self, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes {
            let piece = self.at(sent, (bytes - sent) as usize);
            to.write_all(piece)?;
            sent += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads to the end of the connection, calling `before_read` each time.
    ///
    /// # Panics
    /// When a byte is not that of the stream, or the end is neither a close nor a reset.
    pub fn receive(&self, from: &mut impl Read, mut before_read: impl FnMut(u64)) -> Received {
        let mut buffer = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            before_read(bytes);
            match from.read(&mut buffer) {
                Ok(0) => {
                    return Received {
                        bytes,
                        reset: false,
                    };
                }
                Ok(count) => {
                    self.check(&buffer[..count], bytes);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Received { bytes, reset: true };
                }
                Err(error) => panic!("after {bytes} bytes: {error}"),
            }
        }
    }

    fn check(&self, mut got: &[u8], mut at: u64) {
        while !got.is_empty() {
            let expected = self.at(at, got.len());
            let (piece, rest) = got.split_at(expected.len());
            assert!(piece == expected, "not the stream, within {at}..");
            at += piece.len() as u64;
            got = rest;
        }
    }

    /// Up to `bytes_max` bytes of the stream at a position.
    fn at(&self, position: u64, bytes_max: usize) -> &[u8] {
        let start = (position % BLOCK_BYTES as u64) as usize;
        let end = BLOCK_BYTES.min(start + bytes_max);
        &self.block[start..end]
    }
}
