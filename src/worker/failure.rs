//! What becomes of a core in which something has panicked. The process ends for its supervisor, but no
//! client is to pay for that which a healthy core could have served.
//!
//! A task that panics ends alone. The core goes on without it and drains, and with it all others: who is
//! in the queue of a listener is served. When the core itself cannot go on, its listeners are shut at
//! once, so that the kernel spreads new connections over the other cores, and nobody waits for it.

use std::any::Any;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::Listener;

/// Tells the control thread why.
pub(super) type OnFailure = Box<dyn FnOnce(String) + Send>;

/// What is left to do when the core has failed; it outlives its executor.
pub(super) struct Failure {
    report: RefCell<Option<OnFailure>>,
    listeners: RefCell<Vec<Weak<OwnedFd>>>,
    is_gone: Arc<AtomicBool>,
}

impl Failure {
    pub(super) fn new(report: OnFailure, is_gone: Arc<AtomicBool>) -> Failure {
        Failure {
            report: RefCell::new(Some(report)),
            listeners: RefCell::default(),
            is_gone,
        }
    }

    /// The core listens here, until it closes that.
    pub(super) fn listens(&self, listener: &Rc<OwnedFd>) {
        self.listeners.borrow_mut().push(Rc::downgrade(listener));
    }

    /// Something has panicked. Only the first is reported.
    pub(super) fn report(&self, panic: &(dyn Any + Send)) {
        if let Some(report) = self.report.take() {
            report(said(panic));
        }
    }

    /// The core does nothing any more. What it had is not closed: its tasks are never dropped.
    pub(super) fn core_is_gone(&self, panic: &(dyn Any + Send)) {
        for listener in self.listeners.take() {
            if let Some(listener) = listener.upgrade() {
                Listener::shut(&listener);
            }
        }
        self.is_gone.store(true, Ordering::Release);
        self.report(panic);
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_core_that_is_gone_takes_no_connection_and_is_known_to_be_gone() {
        let mut group = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = group[0].address();
        let listen = |listener: Listener| listener.listen(16, Duration::ZERO).unwrap();
        let (healthy, dead) = (listen(group.remove(0)), listen(group.remove(0)));
        let (sender, reports) = mpsc::channel();
        let is_gone = Arc::new(AtomicBool::new(false));
        let report = Box::new(move |said| sender.send(said).unwrap());
        let failure = Failure::new(report, is_gone.clone());
        failure.listens(&dead);
        failure.core_is_gone(&"out of luck");
        failure.report(&"again");
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), ["out of luck"]);
        assert!(is_gone.load(Ordering::Acquire));
        // All of them go to the other one, though the file is still open here.
        let socket = socket2::SockRef::from(&*healthy);
        for _ in 0..20 {
            let _client = TcpStream::connect(address).unwrap();
            socket.accept().unwrap();
        }
        drop(healthy);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(dead);
    }
}
