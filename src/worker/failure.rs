//! What happens after a panic on a worker. The process ends, so that its supervisor starts it anew, but
//! first the clients are served that can be.
//!
//! A task that panics ends alone. Its worker and all others drain, and clients in the queue of a listener
//! are served. When the worker itself cannot go on, its listeners are shut at once, so that the kernel
//! spreads new connections over the other workers.

use std::any::Any;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::Listener;

/// Tells the control thread what the panic said.
pub(super) type OnFailure = Box<dyn FnOnce(String) + Send>;

/// Reports the failure of a worker; it outlives the worker's executor.
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

    /// Remembers a listener, to be shut when the worker cannot go on.
    pub(super) fn listens(&self, listener: &Rc<OwnedFd>) {
        self.listeners.borrow_mut().push(Rc::downgrade(listener));
    }

    /// Reports a panic; only the first one of a worker.
    pub(super) fn report(&self, panic: &(dyn Any + Send)) {
        if let Some(report) = self.report.take() {
            report(said(panic));
        }
    }

    /// The worker cannot go on. Its tasks are never dropped, so their descriptors stay open until the
    /// process ends; the listeners are shut.
    pub(super) fn core_is_gone(&self, panic: &(dyn Any + Send)) {
        for listener in self.listeners.take() {
            if let Some(listener) = listener.upgrade() {
                Listener::shut_down(&listener);
            }
        }
        self.is_gone.store(true, Ordering::Release);
        self.report(panic);
    }
}

/// The message of a panic.
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
