//! A worker: a thread pinned to one processor, a glommio executor on it, a ring inside the executor, and
//! the tasks that live there: the driver of the ring, the mailbox, one accept loop per listener, and one
//! task per connection. This is the only module that names glommio.
//!
//! glommio's own reactor is not used for waiting (see `kernel-notes.md`); its executor runs the
//! tasks. The driver yields to them, and takes the next turn of the ring when all have run.

mod accept;
mod failure;
mod mailbox;

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{fmt, io};

use accept::Listening;
use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use failure::{Failure, OnFailure};
use futures_util::FutureExt;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
pub(crate) use mailbox::{Command, CoreStatus, Dumped, Mailbox};

use crate::config::{HttpSettings, Limits, ProxySettings};
use crate::protocol::Protocol;
use crate::reply::ErrorResponses;
use crate::ring::{Features, Ring, RingError};
use crate::route::{Balance, Chooser, Table};
use crate::state::{ConnectionBudget, Local, LocalParts};
use crate::sys::{Congestion, Listener, Socket, WakeReader, wake_pair};
use crate::{client, http_conn, tls_conn, upstream};

/// glommio reserves this for storage I/O, of which there is none.
const GLOMMIO_IO_MEMORY_BYTES: usize = 4096;
/// Depth of glommio's own rings, which carry nothing here but are counted against
/// RLIMIT_MEMLOCK by kernels before 5.12.
const GLOMMIO_RING_DEPTH: usize = 8;
/// How often glommio looks at its own rings instead of running tasks. It has nothing there for us.
const GLOMMIO_LOOK: Duration = Duration::from_secs(60);
/// RLIMIT_MEMLOCK below which glommio refuses to make an executor, on any kernel. Those before 5.16
/// start every process with 64 KiB.
pub(crate) const LOCKED_MEMORY_PER_CORE_BYTES: u64 = 512 << 10;
/// Connections of a core for which the ring's tables have room from the start; 200 MB of addresses,
/// and of memory what is used. Beyond it the tables grow.
const CONNECTIONS_SET_ASIDE_MAX: usize = 1 << 20;

/// What all cores have in common.
#[derive(Debug, Clone)]
pub(crate) struct CoreConfig {
    pub limits: Limits,
    pub http: Arc<HttpSettings>,
    pub error_responses: Arc<ErrorResponses>,
    pub balance: Balance,
    pub proxy: ProxySettings,
    pub features: Features,
    pub budget: Arc<ConnectionBudget>,
    /// Whether the core can tell who is behind a connection.
    pub lookup: bool,
    /// Congestion control towards backends, and towards clients on this machine; `None`: the system's.
    pub unpaced: Option<Congestion>,
    /// Whether connects to backends can be told to look at every local port.
    pub looks_at_every_port: bool,
}

/// A bound listener of one core, and what it expects.
#[derive(Debug)]
pub(crate) struct Bound {
    pub protocol: Protocol,
    pub listener: Listener,
}

/// Why a core cannot run.
#[derive(Debug)]
pub(crate) enum StartError {
    Ring(RingError),
    /// The limit of lockable memory, in bytes, is too low for even one executor.
    LockedMemory {
        lockable: u64,
    },
    /// The executor could not be made on the processor.
    Executor {
        processor: usize,
        cause: String,
    },
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Ring(error) => error.fmt(f),
            StartError::LockedMemory { lockable } => write!(
                f,
                "only {lockable} bytes may be locked into memory, which kernels before 5.16 set by \
                 default, and a core's executor asks for {LOCKED_MEMORY_PER_CORE_BYTES}; raise the \
                 limit (LimitMEMLOCK= in systemd, ulimit -Hl) to {} KiB or more",
                LOCKED_MEMORY_PER_CORE_BYTES >> 10
            ),
            StartError::Executor { processor, cause } => write!(
                f,
                "no executor on processor {processor}: {cause}; see `pointsman check`"
            ),
            StartError::Io(error) => write!(f, "a core cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts core number `index` on `processor` and returns its mailbox once it listens. Its thread ends
/// after [`Command::Cut`], or with the process. `first_table` is in
/// force before the first connection is accepted.
pub(crate) fn start(
    index: usize,
    processor: usize,
    config: CoreConfig,
    listeners: Vec<Bound>,
    first_table: Table,
    on_failure: OnFailure,
) -> Result<Mailbox, StartError> {
    let is_gone = Arc::new(AtomicBool::new(false));
    let (waker, reader) = wake_pair().map_err(StartError::Io)?;
    let (sender, commands) = unbounded();
    let (started, starting) = bounded(1);
    let mailbox = Mailbox::new(sender, waker, is_gone.clone());
    let own_mailbox = mailbox.clone();
    std::thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || {
            let failure = Rc::new(Failure::new(on_failure, is_gone));
            let thread = WorkerThread {
                failure: failure.clone(),
                index,
                processor,
                commands,
                reader,
                mailbox: own_mailbox,
                started,
            };
            let running = AssertUnwindSafe(|| thread.run(config, listeners, first_table));
            if let Err(panic) = std::panic::catch_unwind(running) {
                failure.core_is_gone(&*panic);
            }
        })
        .map_err(StartError::Io)?;
    match starting.recv() {
        Ok(Ok(())) => Ok(mailbox),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Executor {
            processor,
            cause: "its thread ended".to_owned(),
        }),
    }
}

/// What the thread of a worker starts with.
struct WorkerThread {
    failure: Rc<Failure>,
    index: usize,
    processor: usize,
    commands: Receiver<Command>,
    reader: WakeReader,
    /// For tasks that other threads may wake.
    mailbox: Mailbox,
    started: Sender<Result<(), StartError>>,
}

impl WorkerThread {
    fn run(self, config: CoreConfig, listeners: Vec<Bound>, table: Table) {
        // glommio would pin the thread itself, but reads the machine's topology for that and panics where
        // the package's number is unknown (-1), as in User Mode Linux and on some ARM machines.
        if !core_affinity::set_for_current(CoreId { id: self.processor }) {
            let _ = self.started.send(Err(StartError::Executor {
                processor: self.processor,
                cause: io::Error::last_os_error().to_string(),
            }));
            return;
        }
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name("core")
            .io_memory(GLOMMIO_IO_MEMORY_BYTES)
            .ring_depth(GLOMMIO_RING_DEPTH)
            .preempt_timer(GLOMMIO_LOOK)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make();
        let executor = match executor {
            Ok(executor) => executor,
            Err(error) => {
                let _ = self.started.send(Err(StartError::Executor {
                    processor: self.processor,
                    cause: error.to_string(),
                }));
                return;
            }
        };
        executor.run(async move {
            let local = match self.prepare(config, table) {
                Ok(local) => local,
                Err(error) => {
                    let _ = self.started.send(Err(error));
                    return;
                }
            };
            if let Err(error) = listen_all(&local, &self.failure, listeners) {
                let _ = self.started.send(Err(StartError::Io(error)));
                return;
            }
            let _ = self.started.send(Ok(()));
            let spawner = Spawner::new(&local, &self.failure);
            spawner.spawn(http_conn::sweep_idle(local.clone()));
            spawner.spawn(upstream::end_removed(local.clone()));
            let ended = Rc::new(Cell::new(false));
            run_commands(Rc::new(CommandLoop {
                spawner,
                commands: self.commands,
                descriptor: self.reader.into_descriptor(),
                ended: ended.clone(),
            }));
            drive(&local.ring, &ended).await;
        });
    }

    fn prepare(&self, config: CoreConfig, table: Table) -> Result<Rc<Local>, StartError> {
        let connections = config
            .budget
            .connections_max()
            .min(CONNECTIONS_SET_ASIDE_MAX);
        let ring = Ring::new(config.features, config.limits.ring_entries, connections)
            .map_err(StartError::Ring)?;
        let chooser = Chooser::new(config.balance, fastrand::u64(..));
        let mailbox = self.mailbox.clone();
        Ok(Rc::new(Local::new(LocalParts {
            core: self.index,
            ring,
            table,
            limits: config.limits,
            proxy: config.proxy,
            http: config.http,
            error_responses: config.error_responses,
            chooser,
            budget: config.budget,
            lookup: config.lookup,
            unpaced: config.unpaced,
            looks_at_every_port: config.looks_at_every_port,
            task_waker: Box::new(move |task| mailbox.task_waker(task)),
        })))
    }
}

/// Spawns tasks whose panic does not end the worker: it is reported, and the worker drains.
#[derive(Clone)]
struct Spawner(Rc<SpawnerState>);

struct SpawnerState {
    local: Rc<Local>,
    failure: Rc<Failure>,
}

impl Spawner {
    fn new(local: &Rc<Local>, failure: &Rc<Failure>) -> Spawner {
        Spawner(Rc::new(SpawnerState {
            local: local.clone(),
            failure: failure.clone(),
        }))
    }

    /// Spawns a task. It runs at once up to its first wait, and from then on when the ring wakes it.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn_then(task, || {});
    }

    /// Spawns a task and calls `then` if it panics.
    fn spawn_then(&self, task: impl Future<Output = ()> + 'static, then: impl FnOnce() + 'static) {
        let Spawner(state) = self.clone();
        let task = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                state.failure.report(&*panic);
                state.local.start_draining();
                then();
            }
        });
        glommio::spawn_local(task).detach();
    }
}

fn listen_all(local: &Rc<Local>, failure: &Rc<Failure>, listeners: Vec<Bound>) -> io::Result<()> {
    let spawner = Spawner::new(local, failure);
    for bound in listeners {
        let address = bound.listener.address();
        let listener = bound
            .listener
            .listen(local.limits.backlog, local.limits.tcp_keep_alive)?;
        if let Some(unpaced) = local.unpaced.filter(|_| address.ip().is_loopback()) {
            unpaced.set_on(&listener)?;
        }
        failure.listens(&listener);
        let listening = Listening::new(local.clone(), listener, address);
        let serving = spawner.clone();
        let serve = move |client: Socket, protocol| {
            // Counted before its task first runs, so that the budget knows of it at once.
            let local = serving.0.local.clone();
            local.connection_begins(protocol);
            match protocol {
                Protocol::Http => serving.spawn(http_conn::serve(local, client)),
                Protocol::Tls | Protocol::Tcp => {
                    serving.spawn(tls_conn::serve(local, client, protocol))
                }
            }
        };
        local.listening.set(local.listening.get() + 1);
        let local = local.clone();
        spawner.spawn(async move {
            listening.run(bound.protocol, serve).await;
            local.listening.set(local.listening.get() - 1);
        });
    }
    Ok(())
}

/// Takes turns of the ring until the worker has ended. Between two turns all runnable tasks run, and one
/// stream of the bulk run queue.
async fn drive(ring: &Ring, ended: &Cell<bool>) {
    while !ended.get() {
        while ring.take_stay_awake() {
            glommio::executor().yield_now().await;
        }
        if let Err(error) = ring.turn() {
            panic!("io_uring_enter failed: {error}; the core cannot go on without its ring");
        }
        glommio::executor().yield_now().await;
        if ring.serve_queue() {
            glommio::executor().yield_now().await;
        }
    }
}

/// The worker's end of its mailbox.
struct CommandLoop {
    spawner: Spawner,
    commands: Receiver<Command>,
    descriptor: Rc<OwnedFd>,
    ended: Rc<Cell<bool>>,
}

/// Runs the commands of other threads, also after one that made it panic.
fn run_commands(mailbox: Rc<CommandLoop>) {
    let again = mailbox.clone();
    let spawner = mailbox.spawner.clone();
    spawner.spawn_then(read_mailbox(mailbox), || run_commands(again));
}

async fn read_mailbox(end: Rc<CommandLoop>) {
    let local = &end.spawner.0.local;
    loop {
        WakeReader::clear(&end.descriptor);
        for command in end.commands.try_iter() {
            match command {
                Command::Table(update) => {
                    local.table.borrow_mut().apply(&update);
                    upstream::follow_update(local, &update);
                }
                Command::Dump { fresh, reply } => {
                    let _ = reply.send(mailbox::dump(local, fresh));
                }
                Command::Status { reply } => {
                    let _ = reply.send(mailbox::status(local));
                }
                Command::Lookup { source, reply } => {
                    let _ = reply.send(mailbox::lookup(local, source));
                }
                Command::Wake(task) => local.wake_task(task),
                Command::Drain => local.start_draining(),
                Command::Cut { reply } => {
                    let (local, ended) = (local.clone(), end.ended.clone());
                    end.spawner.spawn(async move {
                        client::cut_all(&local).await;
                        let _ = reply.send(mailbox::dump(&local, Box::default()));
                        ended.set(true);
                    });
                }
                Command::Panic => panic!("asked to panic by a test"),
            }
        }
        let _ = local.ring.descriptor_readable(&end.descriptor).await;
    }
}
