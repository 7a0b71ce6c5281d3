//! Every limit and deadline that a core obeys, each with its unit, its default and the reason for
//! it. The help text of the command line is checked against these defaults by a test.

use std::time::Duration;

use crate::health::EjectionRules;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What the cores obey. Complete and in bounds once it comes out of [`super::Config`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From accept until the head is complete; 10 s. Long enough for a phone on a bad network,
    /// short enough that silent connections do not pile up.
    pub head_deadline: Duration,
    /// For one connect attempt; 3 s. One lost SYN is sent again after 1 s (RFC 6298 section 2.1),
    /// a second one after 3 s in all.
    pub connect_deadline: Duration,
    /// For the first byte of a TLS backend that has the hello, before another one gets it, too; that of
    /// `connect_deadline`, since a server that answers later than one may take to accept is as slow.
    pub first_byte_deadline: Duration,
    /// Backends tried before the client is told that none is reachable; 3. With the deadline this
    /// bounds a client's wait to 9 s.
    pub connect_attempts: u32,
    /// From the head until some backend has accepted, or answered where that can be told, all
    /// attempts together; 9 s. Three attempts that each take the whole connect deadline.
    pub backend_deadline: Duration,
    /// Clients that may wait per route while every backend has as many connections as its `max=`
    /// allows, unless the route says otherwise; 128. More could not all be served in time.
    pub queue_max: u32,
    /// How long one of them waits; 1 s. Longer than a usual exchange, shorter than a client's patience.
    pub queue_deadline: Duration,
    /// When failures keep a backend out, and for how long.
    pub eject: EjectionRules,
    /// Without a byte in either direction; 1 h. Longer than the keep-alives of usual tunnels; without
    /// it a vanished peer holds two descriptors for ever.
    pub idle_deadline: Duration,
    /// Silence after which the kernel probes whether a client or a backend is still there, with a
    /// quarter of it between probes; the fourth without an answer ends the connection. 60 s, found after
    /// two minutes: most networks forget a silent connection after five or more. 0: no probes.
    pub tcp_keep_alive: Duration,
    /// Without a byte of one side once the other has finished; 60 s. As long as a response may take.
    pub half_closed_deadline: Duration,
    /// Of a TLS ClientHello with its record headers, bytes; 64 KiB. Four times the largest single
    /// record, several times what post-quantum clients send.
    pub hello_bytes_max: usize,
    /// Of an HTTP request head, bytes; 32 KiB. What usual origin servers take at most.
    pub request_head_bytes_max: usize,
    /// Finished handshakes that wait for accept, per core and address; 4096. The kernel cuts it to
    /// net.core.somaxconn, which is 4096 since 5.4.
    pub backlog: u32,
    /// One direction moves at most this in one piece and turn, bytes, while others have something to
    /// do; 1 MiB. The small connections of the core wait for one such turn at a time, less than
    /// 0.1 ms; half of it costs a tenth more processor time in bulk.
    pub turn_bytes: usize,
    /// Capacity asked for each splice pipe, bytes, and what a direction that is alone on its core
    /// moves in one piece; 2 MiB, a tenth cheaper than 1 MiB. Without CAP_SYS_RESOURCE
    /// fs.pipe-max-size bounds it, which is 1 MiB unless it was raised.
    pub pipe_bytes: usize,
    /// Splice pipes per core; 256. A pipe is held only while a bulk direction has bytes under way,
    /// so this bounds kernel memory, not the number of connections.
    pub pipes_per_core: usize,
    /// Given to open connections after the first SIGTERM or SIGINT; 30 s. The usual grace period of
    /// service managers.
    pub drain: Duration,
    /// Submission entries of a core's ring; 1024. The completion queue has twice as many and the
    /// kernel keeps what overflows, so this bounds one batch, not the connections.
    pub ring_entries: u32,
    /// Between two requests of an HTTP connection; 60 s. What browsers keep connections for.
    pub keep_alive_deadline: Duration,
    /// In which at least 1 KiB of a request's body must come, or the rest of it; 30 s.
    pub body_deadline: Duration,
    /// From a request sent to the head of its response; 60 s. What the common proxies wait.
    pub response_deadline: Duration,
    /// Of an HTTP response head, bytes; 32 KiB.
    pub response_head_bytes_max: usize,
    /// Requests served on one connection before it is closed; 10,000. It bounds how long a client
    /// stays on one core.
    pub requests_per_connection_max: u32,
    /// Idle connections kept per backend and core; 64. 0: none is kept.
    pub pool_per_backend: usize,
    /// Idle connections to backends kept per core; 1024, each costs a descriptor on both sides.
    pub pool_per_core: usize,
    /// An idle connection to a backend is closed after this; 30 s. Less than what servers wait.
    pub pool_idle_deadline: Duration,
}

impl Limits {
    /// A turn that has moved this much is over. A pipe filled with whole pages falls a little short
    /// of what it was asked for, and a small last piece costs as many system calls as a large one.
    pub(crate) fn full_turn_bytes(&self) -> u64 {
        (self.turn_bytes - self.turn_bytes / 4) as u64
    }

    /// What goes into a pipe at most at a time; as much as there is room for, when the direction is
    /// `alone` on its core.
    pub(crate) fn piece_bytes(&self, alone: bool) -> usize {
        if alone {
            self.turn_bytes.max(self.pipe_bytes)
        } else {
            self.turn_bytes
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_deadline: Duration::from_secs(10),
            connect_deadline: Duration::from_secs(3),
            first_byte_deadline: Duration::from_secs(3),
            connect_attempts: 3,
            backend_deadline: Duration::from_secs(9),
            queue_max: 128,
            queue_deadline: Duration::from_secs(1),
            eject: EjectionRules::default(),
            idle_deadline: Duration::from_secs(60 * 60),
            tcp_keep_alive: Duration::from_secs(60),
            half_closed_deadline: Duration::from_secs(60),
            hello_bytes_max: 64 * KIB,
            request_head_bytes_max: 32 * KIB,
            backlog: 4096,
            turn_bytes: MIB,
            pipe_bytes: 2 * MIB,
            pipes_per_core: 256,
            drain: Duration::from_secs(30),
            ring_entries: 1024,
            keep_alive_deadline: Duration::from_secs(60),
            body_deadline: Duration::from_secs(30),
            response_deadline: Duration::from_secs(60),
            response_head_bytes_max: 32 * KIB,
            requests_per_connection_max: 10_000,
            pool_per_backend: 64,
            pool_per_core: 1024,
            pool_idle_deadline: Duration::from_secs(30),
        }
    }
}
