//! The limits and deadlines that a core keeps, each with its unit, its default and the reason for the
//! default. A test compares these defaults with those of the options.

use std::time::Duration;

use crate::health::EjectionRules;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The limits of a core, complete and within their bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Time from accept until the head is complete; 10 s. Long enough for a phone on a bad network, short
    /// enough that silent connections do not pile up.
    pub head_deadline: Duration,
    /// Time for one attempt to connect; 3 s. A lost SYN is sent again after 1 s (RFC 6298 section 2.1), a
    /// second one 2 s later.
    pub connect_deadline: Duration,
    /// Time that a TLS backend with the hello has for its first byte, before another backend gets the
    /// hello as well. As long as `connect_deadline` by default: a server that is slow to answer is no
    /// better than one that is slow to accept.
    pub first_byte_deadline: Duration,
    /// Backends that are tried before the client is told that none can be reached; 3. With
    /// `connect_deadline` this bounds a client's wait to 9 s.
    pub connect_attempts: u32,
    /// Time from the head until a backend has accepted, or has answered where the proxy waits for that,
    /// all attempts together; 9 s. Enough for three attempts that each take the whole connect deadline.
    pub backend_deadline: Duration,
    /// Clients of a route that may wait while each of its backends has as many connections as its `max=`
    /// allows; 128. More could not all be served in time. A route may override it.
    pub queue_max: u32,
    /// Time that a client waits in this queue; 1 s. Longer than a usual exchange, shorter than a client's
    /// patience.
    pub queue_deadline: Duration,
    /// When a backend is ejected, and for how long.
    pub eject: EjectionRules,
    /// Time without a byte in either direction; 1 h. Longer than the keep-alives of usual tunnels. Without
    /// this deadline a vanished peer would hold two descriptors for ever.
    pub idle_deadline: Duration,
    /// Silence after which the kernel probes whether a client or a backend is still there; 60 s. Probes
    /// follow each other after a quarter of it, and the fourth without an answer ends the connection, so
    /// that a vanished peer is found after two minutes. Most networks forget a silent connection after
    /// five minutes or more. 0: no probes.
    pub tcp_keep_alive: Duration,
    /// Time without a byte from one side once the other has finished sending; 60 s. As long as a response
    /// may take.
    pub half_closed_deadline: Duration,
    /// Largest TLS ClientHello with its record headers; 64 KiB. Four times the largest single record, and
    /// several times what post-quantum clients send.
    pub hello_bytes_max: usize,
    /// Largest head of an HTTP request; 32 KiB. Usual servers take no larger one.
    pub request_head_bytes_max: usize,
    /// Connections that may wait for accept, per core and address; 4096. The kernel cuts it to
    /// net.core.somaxconn, which is 4096 since 5.4.
    pub backlog: u32,
    /// Bytes that one direction moves in a turn at most, while other connections of the core have
    /// something to do; 1 MiB. They wait for one such turn at a time, less than 0.1 ms. With half as much,
    /// bulk costs a tenth more processor time.
    pub turn_bytes: usize,
    /// Capacity to ask for each splice pipe, and the bytes that a direction moves at a time when no other
    /// connection of the core has anything to do; 2 MiB, a tenth cheaper than 1 MiB. Without
    /// CAP_SYS_RESOURCE fs.pipe-max-size bounds it, which is 1 MiB by default.
    pub pipe_bytes: usize,
    /// Splice pipes per core; 256. A direction holds a pipe only while it has bytes in it, so this bounds
    /// kernel memory, not the number of connections.
    pub pipes_per_core: usize,
    /// Time that open connections have after the first SIGTERM or SIGINT; 30 s. The usual grace period of
    /// service managers.
    pub drain: Duration,
    /// Submission entries of a core's ring; 1024. The completion queue has twice as many, and the kernel
    /// keeps completions that do not fit, so this bounds one batch and not the number of connections.
    pub ring_entries: u32,
    /// Time that an HTTP connection waits for its next request; 60 s. As long as browsers keep connections.
    pub keep_alive_deadline: Duration,
    /// Time in which at least 1 KiB of a request's body has to come, or the rest of it; 30 s.
    pub body_deadline: Duration,
    /// Time from a request sent to the head of its response; 60 s. As long as common proxies wait.
    pub response_deadline: Duration,
    /// Largest head of an HTTP response; 32 KiB.
    pub response_head_bytes_max: usize,
    /// Requests that are served on one connection before it is closed; 10,000. Bounds how long a client
    /// stays on one core.
    pub requests_per_connection_max: u32,
    /// Idle connections that a core keeps to one backend; 64. 0: none.
    pub pool_per_backend: usize,
    /// Idle connections that a core keeps to all backends; 1024. Each costs a descriptor on both sides.
    pub pool_per_core: usize,
    /// Time after which an idle connection to a backend is closed; 30 s. Shorter than servers wait.
    pub pool_idle_deadline: Duration,
}

impl Limits {
    /// Bytes after which a turn ends. Less than [`Limits::turn_bytes`], because a pipe that is full of
    /// whole pages holds a little less than its capacity, and moving a small rest costs as many system
    /// calls as moving a large one.
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
