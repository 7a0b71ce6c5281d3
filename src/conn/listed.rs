//! The place of a connection in the core's look-up table, for as long as it lives. Without
//! `--lookup` there is no table, and nothing here asks the kernel or allocates.

use crate::client::Client;
use crate::dial::Dialled;
use crate::local::Local;
use crate::lookup::{Connection, Ends, Kept, Serial};
use crate::metrics::Counter;
use crate::sniff::Head;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// What the head said, kept until the connection to the backend stands.
pub(super) struct Asked {
    name: Option<Box<str>>,
    alpn: Box<str>,
}

impl Asked {
    pub fn of(local: &Local, head: &Head) -> Option<Box<Asked>> {
        local.lookup.as_ref()?;
        Some(Box::new(Asked {
            name: head.name.as_ref().map(|name| name.as_str().into()),
            alpn: head.alpn.clone(),
        }))
    }

    /// Enters the connection. `None` for a client or a backend without an internet address, and
    /// when the table is full of open connections, which is counted.
    pub fn list(
        self,
        local: &Rc<Local>,
        client: &Client,
        dialled: &Dialled,
        accepted: Instant,
    ) -> Option<Box<Listed>> {
        let mut table = local.lookup.as_ref()?.borrow_mut();
        let ends = Ends {
            source: dialled.socket.own()?,
            backend: dialled.socket.peer()?,
        };
        let connection = Connection {
            client: client.address()?,
            name: self.name,
            alpn: self.alpn,
            accepted: SystemTime::now() - accepted.elapsed(),
            member: dialled.backend.text().into(),
        };
        let serial = match table.begin(ends, connection, local.ring.now()) {
            Kept::Yes(serial) => serial,
            Kept::InPlaceOfAnother(serial) => {
                local.count(Counter::LookupsForgotten);
                serial
            }
            Kept::No => {
                local.count(Counter::LookupsForgotten);
                return None;
            }
        };
        Some(Box::new(Listed {
            local: local.clone(),
            ends,
            serial,
        }))
    }
}

/// Marks its connection as ended when it is dropped.
pub(super) struct Listed {
    local: Rc<Local>,
    ends: Ends,
    serial: Serial,
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(table) = &self.local.lookup {
            let now = self.local.ring.now();
            table.borrow_mut().end(&self.ends, self.serial, now);
        }
    }
}
