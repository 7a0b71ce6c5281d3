//! Signals as events. A thread of its own turns them into messages, so that nothing but a write to
//! a pipe ever runs in a signal handler, however many signals come at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What the control thread is woken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// SIGUSR1.
    Dump,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
    /// A core ended that should not have.
    CoreFailed { core: usize, cause: String },
}

/// Waiting events at most. Signals beyond it are merged with those that wait, as the kernel does.
const EVENTS_MAX: usize = 64;

/// Signals since [`SignalEvents::catch`].
pub(crate) struct SignalEvents {
    /// While true, SIGTERM and SIGINT end the process as they do by default.
    ends_process: Arc<AtomicBool>,
    sender: Sender<Event>,
    /// `None` once somebody listens.
    events: Option<Receiver<Event>>,
}

impl SignalEvents {
    /// Catches SIGUSR1, SIGHUP, SIGTERM and SIGINT from now on. To be called first: before it,
    /// SIGUSR1 kills the process. SIGUSR1 and SIGHUP wait for the control thread; SIGTERM and
    /// SIGINT end the process until [`SignalEvents::hold_stop`].
    pub(crate) fn catch() -> io::Result<SignalEvents> {
        let ends_process = Arc::new(AtomicBool::new(true));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_default(signal, ends_process.clone())?;
        }
        let mut signals = Signals::new([SIGUSR1, SIGHUP, SIGTERM, SIGINT])?;
        let (sender, events) = channel(EVENTS_MAX);
        let to_control = sender.clone();
        std::thread::Builder::new()
            .name(String::from("signals"))
            .spawn(move || {
                for signal in signals.forever() {
                    let event = match signal {
                        SIGUSR1 => Event::Dump,
                        SIGHUP => Event::Reload,
                        _ => Event::Stop,
                    };
                    // A full queue means that the control thread is stuck: stopping must still
                    // find room, the others may be lost.
                    if event == Event::Stop {
                        let _ = to_control.blocking_send(event);
                    } else {
                        let _ = to_control.try_send(event);
                    }
                }
            })?;
        Ok(SignalEvents {
            ends_process,
            sender,
            events: Some(events),
        })
    }

    /// For whoever watches the cores.
    pub(crate) fn reporter(&self) -> CoreReporter {
        CoreReporter {
            sender: self.sender.clone(),
        }
    }

    /// From now on SIGTERM and SIGINT wait for the control thread too. To be called before clients
    /// are served: from then on there is something to drain.
    pub(crate) fn hold_stop(&self) {
        self.ends_process.store(false, Ordering::Release);
    }

    /// Can be taken once.
    pub(super) fn take_events(&mut self) -> Receiver<Event> {
        let events = self.events.take();
        events.expect("there is one control thread")
    }

    /// Events without signals, for tests within one process.
    #[cfg(test)]
    pub(super) fn without_signals() -> (Sender<Event>, SignalEvents) {
        let (sender, events) = channel(EVENTS_MAX);
        let ends_process = Arc::new(AtomicBool::new(true));
        let of_control = SignalEvents {
            ends_process,
            sender: sender.clone(),
            events: Some(events),
        };
        (sender, of_control)
    }
}

/// Tells the control thread that a core ended.
#[derive(Clone)]
pub(crate) struct CoreReporter {
    sender: Sender<Event>,
}

impl CoreReporter {
    /// A core ended without being told to. The process ends, because its share of new connections
    /// would be accepted by nobody.
    pub(crate) fn core_failed(&self, core: usize, cause: impl Into<String>) {
        let cause = cause.into();
        let _ = self.sender.blocking_send(Event::CoreFailed { core, cause });
    }
}
