//! The access log entry of a connection: one line at level `debug`. It is gathered only while that level
//! is on.

use std::rc::Rc;
use std::time::Duration;

use super::identity::Client;
use crate::host::Host;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::sniff::Head;
use crate::state::Local;

/// What the line will say. Empty, and without memory of its own, while the level is off.
#[derive(Default)]
pub(crate) struct AccessLogEntry {
    /// Boxed, because most connections have none.
    details: Option<Box<Details>>,
}

#[derive(Default)]
struct Details {
    head: Option<Rc<Head>>,
    /// The unique id that the PROXY header gave the backend; empty without one.
    id: Box<str>,
    backend: Box<str>,
    attempts: u32,
    requests: u32,
    to_backend_bytes: u64,
    to_client_bytes: u64,
    /// The rule that the backend's response breaks, if it breaks one.
    rule: Option<&'static str>,
}

impl AccessLogEntry {
    /// Whether the log is at level `debug`.
    pub(crate) fn is_wanted() -> bool {
        tracing::enabled!(target: "pointsman::connection", tracing::Level::DEBUG)
    }

    /// Where to note something; `None` while the level is off.
    fn details(&mut self) -> Option<&mut Details> {
        AccessLogEntry::is_wanted().then(|| &mut **self.details.get_or_insert_default())
    }

    pub(crate) fn set_head(&mut self, head: Option<&Rc<Head>>) {
        if let Some(details) = self.details() {
            details.head = head.cloned();
        }
    }

    pub(crate) fn set_id(&mut self, id: Box<str>) {
        if let Some(details) = self.details() {
            details.id = id;
        }
    }

    /// A request begins: its host, known or not, and no backend yet.
    pub(crate) fn set_request(&mut self, name: Option<&Host>) {
        let Some(details) = self.details() else {
            return;
        };
        details.requests += 1;
        details.backend = Box::default();
        details.attempts = 0;
        details.head = Some(Rc::new(Head {
            name: name.cloned(),
            ..Head::default()
        }));
    }

    /// The backend that was tried last, and the number of attempts; 0 for a reused connection.
    pub(crate) fn set_backend(&mut self, text: &str, attempts: u32) {
        if let Some(details) = self.details() {
            details.backend = text.into();
            details.attempts = attempts;
        }
    }

    /// The rule that the last response breaks, if it breaks one.
    pub(crate) fn set_rule(&mut self, rule: Option<&'static str>) {
        if let Some(details) = self.details() {
            details.rule = rule;
        }
    }

    /// Adds bytes that were moved since the last call.
    pub(crate) fn add_bytes(&mut self, to_backend: u64, to_client: u64) {
        if let Some(details) = self.details() {
            details.to_backend_bytes += to_backend;
            details.to_client_bytes += to_client;
        }
    }

    pub(super) fn log(
        &self,
        local: &Local,
        client: &Client,
        protocol: Protocol,
        outcome: Outcome,
        lifetime: Duration,
    ) {
        if !AccessLogEntry::is_wanted() {
            return;
        }
        let nothing = Details::default();
        let details = self.details.as_deref().unwrap_or(&nothing);
        let head = details.head.as_deref();
        let name = head.and_then(|head| head.name.as_ref());
        let backend = Some(&*details.backend).filter(|backend| !backend.is_empty());
        let (address, via) = (client.address(), client.via());
        // Named after the semantic conventions of OpenTelemetry, where there is one.
        tracing::debug!(
            target: "pointsman::connection",
            core = local.core,
            protocol = protocol.name(),
            client.address = address.map(|address| display(address.ip())),
            client.port = address.map(|address| address.port()),
            network.peer.address = via.map(|via| display(via.ip())),
            network.peer.port = via.map(|via| via.port()),
            id = Some(&*details.id).filter(|id| !id.is_empty()),
            server.address = name.map_or("-", |name| name.as_str()),
            alpn = head.map_or("", |head| &head.alpn),
            ech = head.is_some_and(|head| head.ech),
            backend = backend.unwrap_or("-"),
            attempts = details.attempts,
            rule = details.rule,
            requests = details.requests,
            to_backend_bytes = details.to_backend_bytes,
            to_client_bytes = details.to_client_bytes,
            lifetime_us = lifetime.as_micros() as u64,
            "{}", outcome.name()
        );
    }
}
