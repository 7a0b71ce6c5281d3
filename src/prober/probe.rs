//! One probe of one address: connects, sends what the check sends, and reads only until it is clear whether
//! the answer is good.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::health::{
    Answer, CheckFailure, HealthCheckKind, HealthCheckState, StatusRange, read_http_status,
    read_server_hello,
};
use crate::protocol::Protocol;
use crate::proxy_protocol::{self, OutgoingTlvs};
use crate::route::{Address, Backend, ProxyVersion};

/// The status of HTTP is in the first 12 bytes and the type of a ServerHello in the first 6. The rest is
/// room for TLS warnings before it.
const ANSWER_BYTES_MAX: usize = 64;

/// What is sent to every address of one backend, and what is a good answer.
pub(super) struct Probe {
    kind: HealthCheckKind,
    name: Option<Box<str>>,
    path: Box<str>,
    status: StatusRange,
    proxy: Option<ProxyVersion>,
    timeout: Duration,
}

impl Probe {
    pub(super) fn new(backend: &Backend, state: &HealthCheckState) -> Probe {
        let check = state.check();
        Probe {
            kind: check.kind,
            name: check.name.clone().or(state.probed_as().name),
            path: check.path.clone(),
            status: check.status,
            proxy: backend.delivery().proxy,
            timeout: check.timeout,
        }
    }

    /// Probes one address.
    pub(super) async fn run(&self, address: &Address) -> Result<(), CheckFailure> {
        let exchange = async {
            match address {
                Address::Inet(inet) => {
                    let stream = TcpStream::connect(inet).await?;
                    self.exchange(stream, &inet.to_string()).await
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    self.exchange(stream, "localhost").await
                }
            }
        };
        let timed_out = |_| Err(CheckFailure::Timeout(self.timeout));
        timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(timed_out)
    }

    fn read(&self, bytes: &[u8]) -> Answer {
        match self.kind {
            HealthCheckKind::Tcp => Some(Ok(())),
            HealthCheckKind::Tls => read_server_hello(bytes),
            HealthCheckKind::Http => read_http_status(bytes, self.status),
        }
    }

    async fn exchange(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        address: &str,
    ) -> Result<(), CheckFailure> {
        let mut request = Vec::new();
        if let Some(version) = self.proxy {
            // The connection is the proxy's own, so there is no client to name.
            proxy_protocol::write(&mut request, version, None, &OutgoingTlvs::default());
        }
        match self.kind {
            HealthCheckKind::Tcp => {}
            HealthCheckKind::Tls => write_hello(&mut request, self.name.as_deref())?,
            HealthCheckKind::Http => {
                let host = self.name.as_deref().unwrap_or(address);
                let head = format!(
                    "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pointsman-health/{}\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n",
                    self.path,
                    env!("CARGO_PKG_VERSION")
                );
                request.extend(head.into_bytes());
            }
        }
        if !request.is_empty() {
            stream.write_all(&request).await?;
        }
        if self.kind == HealthCheckKind::Tcp {
            return Ok(());
        }
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let mut length = 0;
        loop {
            match stream.read(&mut bytes[length..]).await? {
                0 => return Err(CheckFailure::Closed),
                count => length += count,
            }
            if let Some(answer) = self.read(&bytes[..length]) {
                return answer;
            }
        }
    }
}

/// The protocol whose default port is probed when the member has none. A check by `tcp` uses the
/// protocol of the route's clients.
pub(super) fn protocol(state: &HealthCheckState) -> Protocol {
    match state.check().kind {
        HealthCheckKind::Tls => Protocol::Tls,
        HealthCheckKind::Http => Protocol::Http,
        HealthCheckKind::Tcp => state.probed_as().protocol.unwrap_or(Protocol::Tls),
    }
}

/// Appends a ClientHello, with a name if there is one. The handshake ends with the first answer, so no
/// certificate is ever checked.
fn write_hello(out: &mut Vec<u8>, name: Option<&str>) -> Result<(), CheckFailure> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(config)
    });
    let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    // rustls writes no server_name for an address (RFC 6066 section 3).
    let name = name.unwrap_or(ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])));
    let system = |error: rustls::Error| CheckFailure::System(error.to_string());
    let mut connection = ClientConnection::new(Arc::clone(&CONFIG), name).map_err(system)?;
    while connection.wants_write() {
        connection.write_tls(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_has_the_name_or_none() {
        let hello = |name| {
            let mut out = Vec::new();
            write_hello(&mut out, name).unwrap();
            assert_eq!((out[0], out[5]), (22, 1));
            out
        };
        let has = |bytes: &[u8], name: &[u8]| bytes.windows(name.len()).any(|part| part == name);
        assert!(has(
            &hello(Some("www.example.com")),
            b"\0\x0fwww.example.com"
        ));
        assert!(!has(&hello(None), b"0.0.0.0"));
        assert!(!has(&hello(Some("10.0.0.7")), b"10.0.0.7"));
    }
}
