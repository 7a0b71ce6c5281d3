//! Signals as events for the control thread. A thread of its own turns signals into events; the signal
//! handler itself only writes a byte to a pipe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What the control thread reacts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// SIGUSR1.
    Dump,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
    /// A core ended by itself.
    CoreFailed { core: usize, cause: String },
}

/// How many events may wait. A signal that finds no room is dropped: one of its kind waits already.
const EVENTS_MAX: usize = 64;

/// The signals of this process.
pub(crate) struct SignalEvents {
    /// While true, SIGTERM and SIGINT have their default effect: they end the process.
    ends_process: Arc<AtomicBool>,
    sender: Sender<Event>,
    /// `None` once the control thread has taken them.
    events: Option<Receiver<Event>>,
}

impl SignalEvents {
    /// Catches SIGUSR1, SIGHUP, SIGTERM and SIGINT from now on. Has to be the first call of the
    /// process, since an uncaught SIGUSR1 kills it. SIGUSR1 and SIGHUP wait for the control thread;
    /// SIGTERM and SIGINT end the process until [`SignalEvents::hold_stop`].
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
                    // A stop is never dropped: it waits for room.
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

    /// For the cores, whose failures are events, too.
    pub(crate) fn reporter(&self) -> CoreReporter {
        CoreReporter {
            sender: self.sender.clone(),
        }
    }

    /// From now on SIGTERM and SIGINT wait for the control thread as well. Has to be called before
    /// clients are served, whose connections a stop has to drain.
    pub(crate) fn hold_stop(&self) {
        self.ends_process.store(false, Ordering::Release);
    }

    /// The events, for the one control thread.
    pub(super) fn take_events(&mut self) -> Receiver<Event> {
        let events = self.events.take();
        events.expect("there is one control thread")
    }

    /// Events that a test sends, in place of signals.
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

/// Tells the control thread that a core has failed.
#[derive(Clone)]
pub(crate) struct CoreReporter {
    sender: Sender<Event>,
}

impl CoreReporter {
    /// A core has ended by itself. The process ends as well: the kernel goes on handing the failed
    /// core its share of new connections, which nobody would accept.
    pub(crate) fn core_failed(&self, core: usize, cause: impl Into<String>) {
        let cause = cause.into();
        let _ = self.sender.blocking_send(Event::CoreFailed { core, cause });
    }
}
