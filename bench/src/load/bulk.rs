//! Bulk that the load does not copy: it sends pages that were filled once, and has the kernel discard what
//! it receives. A load that copied every byte twice would need its whole processor before a splicing proxy
//! does, and would then limit the result.
//!
//! The proxy receives fragments of one page, as from a file or a network card; bytes that a program writes
//! on loopback come in larger ones. Whether bytes arrive unchanged is checked by the proxy's own tests, not
//! here.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use super::buffers::Moved;

/// Bytes that are sent again and again: as many as a pipe may have without privilege.
const STOCK_BYTES: usize = 1024 * 1024;
/// Written to the socket before it is emptied again; less than its buffers hold.
const FILL_BYTES: usize = 64 * 1024;

/// Bytes to send.
#[derive(Debug)]
pub struct Stock {
    /// Never emptied, only duplicated (tee(2)).
    stock: Ends,
    /// The duplicates to be sent next, of whichever stream is next.
    next: Ends,
    next_bytes: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    fn new() -> io::Result<Ends> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, STOCK_BYTES)?;
        Ok(Ends { read, write })
    }
}

impl Stock {
    pub fn new() -> io::Result<Stock> {
        let stock = Ends::new()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut near = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        let mut stocked = 0;
        while stocked < STOCK_BYTES {
            near.write_all(&[0x55; FILL_BYTES])?;
            let mut left = FILL_BYTES;
            while left > 0 {
                left -= splice(&far, None, &stock.write, None, left, SpliceFlags::empty())?;
            }
            stocked += FILL_BYTES;
        }
        Ok(Stock {
            stock,
            next: Ends::new()?,
            next_bytes: 0,
        })
    }

    /// Sends at most `bytes_max`.
    pub fn send(&mut self, stream: &TcpStream, bytes_max: usize) -> Moved {
        let flags = SpliceFlags::NONBLOCK;
        if self.next_bytes == 0 {
            match tee(&self.stock.read, &self.next.write, STOCK_BYTES, flags) {
                Ok(bytes) => self.next_bytes = bytes,
                Err(error) => return Moved::Failed(error.into()),
            }
        }
        let bytes_max = bytes_max.min(self.next_bytes);
        let sent = splice(&self.next.read, None, stream, None, bytes_max, flags);
        if let Ok(bytes) = sent {
            self.next_bytes -= bytes;
        }
        moved(sent)
    }
}

/// Sends a few bytes in one segment with the bulk that follows at once.
pub fn send_before_more(stream: &TcpStream, bytes: &[u8]) -> Moved {
    let flags = SendFlags::MORE | SendFlags::DONTWAIT;
    moved(rustix::net::send(stream, bytes, flags))
}

/// Receives at most `scratch` and throws it away; `scratch` stays as it is (tcp(7), MSG_TRUNC).
pub fn discard(stream: &TcpStream, scratch: &mut [u8]) -> Moved {
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    moved(rustix::net::recv(stream, scratch, flags).map(|(_, bytes)| bytes))
}

fn moved(result: rustix::io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Finished,
        Ok(bytes) => Moved::Bytes(bytes),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Moved::Blocked,
        Err(error) => Moved::Failed(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_stock_never_ends_and_arrives_as_it_was_sent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let near = TcpStream::from_std(near);
        let (mut far, _) = listener.accept().unwrap();
        let mut stock = Stock::new().unwrap();
        let mut sent = 0;
        let mut buffer = vec![0; STOCK_BYTES];
        while sent < 3 * STOCK_BYTES {
            let Moved::Bytes(bytes) = stock.send(&near, 100_000) else {
                panic!("the socket was emptied");
            };
            far.read_exact(&mut buffer[..bytes]).unwrap();
            assert!(buffer[..bytes].iter().all(|byte| *byte == 0x55));
            sent += bytes;
        }
    }

    #[test]
    fn what_is_discarded_is_counted_and_not_copied() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(b"twelve bytes").unwrap();
        let far = TcpStream::from_std(far);
        let mut scratch = [0; 64];
        assert!(matches!(discard(&far, &mut scratch), Moved::Bytes(12)));
        assert!(matches!(discard(&far, &mut scratch), Moved::Blocked));
        assert_eq!(scratch, [0; 64]);
    }
}
