//! The accept loop of one listening socket, for as long as the worker lives. When descriptors or memory
//! run out it pauses; it never spins and never ends for that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::metrics::Counter;
use crate::protocol::Protocol;
use crate::ring::{Accepts, Deadline};
use crate::state::Local;
use crate::sys::{Listener, Socket};

/// Pause after accept(2) ran out of descriptors or memory, and between two looks at the budget while it
/// is full. Ten looks a second cost nothing, and a client waits a tenth of a second at most.
const PAUSE: Duration = Duration::from_millis(100);
/// Failures this close to each other are one episode, which is logged once.
const EPISODE_ENDS_AFTER: Duration = Duration::from_secs(10);
/// How long a stopping listener goes on accepting connections in the handshake or in its queue, while it
/// drops new SYNs. The kernel keeps a silent client back (TCP_DEFER_ACCEPT) until that answers the
/// SYN-ACK which is sent again after 1 s (RFC 6298 section 2.1); this is a round trip longer.
const LAST_ACCEPTS: Duration = Duration::from_millis(1250);

/// One listening socket, and its last failure.
pub(crate) struct Listening {
    local: Rc<Local>,
    listener: Rc<OwnedFd>,
    address: SocketAddr,
    accepts: Accepts,
    pause: Deadline,
    last_failure: Option<Instant>,
}

impl Listening {
    pub(crate) fn new(local: Rc<Local>, listener: Rc<OwnedFd>, address: SocketAddr) -> Listening {
        Listening {
            accepts: local.ring.accepts(listener.clone()),
            pause: local.ring.deadline(),
            local,
            listener,
            address,
            last_failure: None,
        }
    }

    /// Accepts until the drain, and hands each connection to `serve`.
    pub(crate) async fn run(mut self, protocol: Protocol, mut serve: impl FnMut(Socket, Protocol)) {
        let local = self.local.clone();
        let mut serve = |descriptor| serve(Socket::from_accepted(descriptor), protocol);
        while !local.is_draining() {
            local
                .until_drain(self.accept_while_there_is_room(&mut serve))
                .await;
            if local.is_full() {
                self.begin_episode("the limit of open files leaves no room for more connections");
                self.take_accepted(&mut serve).await;
            }
            while local.is_full() && !local.is_draining() {
                self.rest(PAUSE).await;
            }
        }
        self.take_the_last(&mut serve).await;
    }

    async fn accept_while_there_is_room(&mut self, serve: &mut impl FnMut(OwnedFd)) {
        while !self.local.is_full() {
            let one_by_one = self.local.budget.is_nearly_full(self.local.limits.backlog);
            if one_by_one != self.accepts.one_by_one() {
                self.take_accepted(serve).await;
                self.accepts.set_one_by_one(one_by_one);
                continue;
            }
            match self.accepts.next().await {
                Ok(descriptor) => serve(descriptor),
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// Stops accepting, and serves what the kernel has accepted by then.
    async fn take_accepted(&mut self, serve: &mut impl FnMut(OwnedFd)) {
        self.accepts.stop();
        while self.accepts.is_running() {
            if let Ok(descriptor) = self.accepts.next().await {
                serve(descriptor);
            }
        }
    }

    /// Empties the socket before it is closed, because closing resets what is queued on it: drops new SYNs
    /// and accepts the connections already under way. Each of those costs one more system call.
    async fn take_the_last(mut self, serve: &mut impl FnMut(OwnedFd)) {
        let address = self.address;
        if let Err(error) = Listener::drop_new_syns(&self.listener, address) {
            tracing::warn!(address = %self.address, %error, "cannot shut out new connections \
                before closing the listener; those in its queue may be reset");
        }
        let serve = &mut |accepted: OwnedFd| {
            // It fails only on a descriptor that is no socket.
            let _ = Listener::accept_every_ttl(&accepted, address);
            serve(accepted);
        };
        let until = self.local.ring.deadline();
        until.set(self.local.ring.now() + LAST_ACCEPTS);
        while let Some(accepted) = until.bound(self.accepts.next()).await {
            match accepted {
                Ok(descriptor) => serve(descriptor),
                Err(_) => self.rest(PAUSE).await,
            }
        }
        self.take_accepted(serve).await;
    }

    /// Handles a failed accept. A failure of a single connection is counted; one of the machine makes the
    /// loop pause.
    async fn failed(&mut self, error: &io::Error) {
        self.local.count(Counter::AcceptErrors);
        let remedy = match error.raw_os_error() {
            // The client was gone before it was accepted (accept(2)).
            Some(libc::ECONNABORTED | libc::EPROTO | libc::EINTR) => return,
            Some(libc::EMFILE) => {
                "this process is out of descriptors: raise LimitNOFILE= or ulimit -n"
            }
            Some(libc::ENFILE) => "the system is out of descriptors: raise fs.file-max",
            Some(libc::ENOBUFS | libc::ENOMEM) => "the kernel is out of memory for sockets",
            _ => "accepting failed",
        };
        self.begin_episode(&format!("{remedy} ({error})"));
        self.rest(PAUSE).await;
    }

    /// Counts and logs the first failure of an episode.
    fn begin_episode(&mut self, cause: &str) {
        let now = self.local.ring.now();
        let goes_on = self
            .last_failure
            .is_some_and(|last| now.saturating_duration_since(last) < EPISODE_ENDS_AFTER);
        self.last_failure = Some(now);
        if !goes_on {
            self.local.count(Counter::AcceptPauses);
            tracing::warn!(core = self.local.core, address = %self.address, "accepting pauses: {cause}");
        }
    }

    async fn rest(&self, pause: Duration) {
        self.pause.set(self.local.ring.now() + pause);
        self.pause.passed().await;
    }
}
