//! A pipe that carries bulk between two sockets without copying it (splice(2)).
//!
//! The pipe counts what it holds. `WouldBlock` on filling an empty one always means the socket;
//! with something inside it may be the pipe that is full, so it is drained before that is believed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::pipe::SpliceFlags;

use super::errno::check;
use super::socket::Socket;

/// A pipe has this many bytes from the start (pipe(7)), unless it was made above the soft limit.
const SIZE_ASKED_MIN: i32 = 64 * 1024;

/// Both ends of one non-blocking pipe, and how many bytes are inside.
#[derive(Debug)]
pub(crate) struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    held_bytes: usize,
    capacity_bytes: usize,
}

impl Pipe {
    /// A pipe of `capacity_bytes`, or of a half, a quarter … as the kernel grants: growing fails for
    /// an unprivileged user beyond pipe-max-size or pipe-user-pages-soft (pipe(7)), and a pipe made
    /// above the soft limit has 8 KiB. The caller asks [`Pipe::capacity_bytes`].
    pub(crate) fn new(capacity_bytes: usize) -> io::Result<Pipe> {
        let mut ends = [0; 2];
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the kernel writes two descriptors to a live array of two.
        let returned = unsafe { libc::pipe2(ends.as_mut_ptr(), flags) };
        check(returned as libc::ssize_t)?;
        // SAFETY: both descriptors were just made and nobody else owns them.
        let (read_end, write_end) =
            unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        let mut wanted = i32::try_from(capacity_bytes).unwrap_or(i32::MAX);
        // SAFETY: fcntl(2) with these commands takes no pointers.
        let capacity_bytes = unsafe {
            while libc::fcntl(write_end.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) < 0
                && wanted > SIZE_ASKED_MIN
            {
                wanted /= 2;
            }
            libc::fcntl(write_end.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        Ok(Pipe {
            read_end,
            write_end,
            held_bytes: 0,
            capacity_bytes: check(capacity_bytes as libc::ssize_t)?,
        })
    }

    /// Bytes inside, spliced in and not yet out.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Nominal size. What the pipe holds may be more: a page-sized slot can carry a larger fragment.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// Whether a fill of at most `bytes_max` that moved `bytes` has most likely emptied the socket, so
    /// that another would only be told that there is nothing. One of many small fragments may be
    /// taken for it, of which the pipe holds one in each page-sized slot.
    pub(crate) fn is_short_fill(&self, bytes: usize, bytes_max: usize) -> bool {
        bytes < self.capacity_bytes.min(bytes_max) / 4
    }

    /// Moves up to `bytes_max` from the socket into the pipe; 0 is the end of stream.
    pub(crate) fn fill_from(&mut self, socket: &Socket, bytes_max: usize) -> io::Result<usize> {
        let moved = splice(socket, &self.write_end, bytes_max)?;
        self.held_bytes += moved;
        Ok(moved)
    }

    /// Moves what the socket takes of what the pipe holds.
    pub(crate) fn drain_to(&mut self, socket: &Socket) -> io::Result<usize> {
        let moved = splice(&self.read_end, socket, self.held_bytes)?;
        self.held_bytes -= moved;
        Ok(moved)
    }
}

/// SPLICE_F_NONBLOCK covers only the pipe end; sockets are O_NONBLOCK by themselves.
/// SPLICE_F_MORE is never set: it corks the stream for 200 ms when the sender pauses.
fn splice(from: &impl AsFd, to: &impl AsFd, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(
        from, None, to, None, bytes_max, flags,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Rather than the 64 KiB that a pipe has from the start.
    #[test]
    fn a_pipe_that_may_not_be_as_large_is_as_large_as_it_may() {
        let most = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let pipe = Pipe::new(2 * most).unwrap();
        assert!(pipe.capacity_bytes() >= most, "{}", pipe.capacity_bytes());
    }

    #[test]
    fn a_fill_of_all_that_was_asked_for_is_not_short() {
        let pipe = Pipe::new(1 << 20).unwrap();
        let quarter = pipe.capacity_bytes() / 4;
        assert!(pipe.is_short_fill(quarter - 1, 1 << 20));
        assert!(!pipe.is_short_fill(quarter, usize::MAX));
        assert!(!pipe.is_short_fill(1000, 1000));
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_the_count_follows() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (out_near, mut out_far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        out_near.set_nonblocking(true).unwrap();
        let from = Socket::from_accepted(far.into());
        let to = Socket::from_accepted(out_near.into());
        let mut pipe = Pipe::new(1 << 16).unwrap();
        let empty = pipe.fill_from(&from, 1024).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"twelve bytes").unwrap();
        assert_eq!(pipe.fill_from(&from, 1024).unwrap(), 12);
        assert_eq!(pipe.held_bytes(), 12);
        assert_eq!(pipe.drain_to(&to).unwrap(), 12);
        assert_eq!(pipe.held_bytes(), 0);
        let mut received = [0; 12];
        out_far.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"twelve bytes");
        drop(near);
        assert_eq!(pipe.fill_from(&from, 1024).unwrap(), 0);
    }
}
