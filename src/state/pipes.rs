//! The pipes of one core. A direction borrows one while it carries bulk and gives it back empty.

use crate::sys::Pipe;

/// A smaller pipe carries too little per system call to beat copying. An unprivileged user above the
/// soft limit of pipe pages gets pipes of two pages (pipe(7), pipe-user-pages-soft).
const USEFUL_CAPACITY_BYTES: usize = 64 * 1024;
/// Empty pipes kept for the next bulk direction; each costs two descriptors and no memory.
const IDLE_MAX: usize = 64;

/// Bounded pool of pipes.
#[derive(Debug)]
pub(crate) struct PipePool {
    idle: Vec<Pipe>,
    out: usize,
    out_max: usize,
    capacity_bytes: usize,
}

impl PipePool {
    /// At most `out_max` pipes of `capacity_bytes` each exist at once, idle ones included, since a
    /// new one is made only when none is idle.
    pub(crate) fn new(out_max: usize, capacity_bytes: usize) -> PipePool {
        PipePool {
            idle: Vec::new(),
            out: 0,
            out_max,
            capacity_bytes,
        }
    }

    /// An empty pipe. `None` when all are in use, or when the system has no descriptor or no memory for a
    /// useful one; the caller then copies.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if self.out == self.out_max {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => Pipe::new(self.capacity_bytes).ok()?,
        };
        if pipe.capacity_bytes() < USEFUL_CAPACITY_BYTES {
            return None;
        }
        self.out += 1;
        Some(pipe)
    }

    /// Takes a pipe back. A pipe that still holds bytes of a connection is closed and never reused.
    pub(crate) fn give_back(&mut self, pipe: Pipe) {
        self.out -= 1;
        if pipe.held_bytes() == 0 && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::Socket;

    #[test]
    fn pipes_are_reused_when_empty_and_closed_when_not() {
        let mut pool = PipePool::new(2, 1 << 20);
        let first = pool.take().unwrap();
        let mut second = pool.take().unwrap();
        assert!(pool.take().is_none());
        pool.give_back(first);
        assert_eq!((pool.idle(), pool.out()), (1, 1));
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"secret").unwrap();
        far.set_nonblocking(true).unwrap();
        second
            .fill_from(&Socket::from_accepted(far.into()), 100)
            .unwrap();
        pool.give_back(second);
        assert_eq!((pool.idle(), pool.out()), (1, 0));
    }

    #[test]
    fn a_pipe_too_small_to_help_is_not_handed_out() {
        let mut pool = PipePool::new(2, 4096);
        assert!(pool.take().is_none());
        assert_eq!(pool.out(), 0);
    }
}
