//! A pipe that carries bulk between two sockets without copying it (splice(2)).
//!
//! A pipe counts the bytes in it. `WouldBlock` from filling an empty pipe means that the socket has nothing
//! to read. With bytes in the pipe it may also mean that the pipe is full; then the pipe is drained first.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::pipe::SpliceFlags;

use super::errno::check;
use super::socket::Socket;

/// The capacity of a new pipe (pipe(7)), unless its user is above the soft limit. Less is not asked for.
const DEFAULT_CAPACITY_BYTES: i32 = 64 * 1024;

/// Both ends of a non-blocking pipe, and how many bytes are in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    held_bytes: usize,
    capacity_bytes: usize,
}

impl Pipe {
    /// A pipe of `capacity_bytes`, or of a half of it, a quarter and so on, down to what the kernel allows.
    /// An unprivileged user cannot enlarge a pipe above pipe-max-size or pipe-user-pages-soft (pipe(7)),
    /// and above the latter a new pipe has 8 KiB. [`Pipe::capacity_bytes`] says what it has become.
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
                && wanted > DEFAULT_CAPACITY_BYTES
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

    /// Bytes that were spliced in and not out yet.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The nominal capacity. The pipe may hold more, since a slot for one page can hold a larger fragment.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// Whether a fill of at most `bytes_max` that moved `bytes` has most likely emptied the socket; another
    /// fill would then only fail with EAGAIN. A fill of many small fragments may look the same: each takes
    /// a slot of its own.
    pub(crate) fn is_short_fill(&self, bytes: usize, bytes_max: usize) -> bool {
        bytes < self.capacity_bytes.min(bytes_max) / 4
    }

    /// Moves up to `bytes_max` from the socket into the pipe; 0 means the end of the stream.
    pub(crate) fn fill_from(&mut self, socket: &Socket, bytes_max: usize) -> io::Result<usize> {
        let moved = splice(socket, &self.write_end, bytes_max)?;
        self.held_bytes += moved;
        Ok(moved)
    }

    /// Moves bytes of the pipe to the socket, as many as that takes.
    pub(crate) fn drain_to(&mut self, socket: &Socket) -> io::Result<usize> {
        let moved = splice(&self.read_end, socket, self.held_bytes)?;
        self.held_bytes -= moved;
        Ok(moved)
    }
}

/// SPLICE_F_NONBLOCK covers only the pipe; sockets have O_NONBLOCK. SPLICE_F_MORE is never set: when the
/// sender pauses, it would keep the last bytes back for up to 200 ms.
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

    /// It does not stay at the 64 KiB of a new pipe.
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
