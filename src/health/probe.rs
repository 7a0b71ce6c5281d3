//! One question to one address: connects, says what there is to say, and reads no more than it takes
//! to know whether the answer is good.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::answer::{self, Answer, Cause};
use crate::protocol::Protocol;
use crate::route::{Address, CheckKind, CheckState, ProxyVersion};

/// A status line begins with 12 bytes, a ServerHello shows after 6; the rest is room for warnings
/// before it. Who fills all of it without an answer has none.
const ANSWER_BYTES_MAX: usize = 64;

/// The header of version 2 that says LOCAL, a connection of the sender itself: signature, version and
/// command, no family, no addresses (the protocol's section 2.2).
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What is asked of every address of one backend.
pub(super) struct Question {
    kind: CheckKind,
    name: Option<Box<str>>,
    path: Box<str>,
    status: (u16, u16),
    proxy: Option<ProxyVersion>,
    timeout: Duration,
}

impl Question {
    pub(super) fn of(state: &CheckState) -> Question {
        let check = &state.check;
        Question {
            kind: check.kind,
            name: check.name.clone().or(state.asked_as().name),
            path: check.path.clone(),
            status: check.status,
            proxy: state.backend.delivery().proxy,
            timeout: check.timeout,
        }
    }

    /// Asks once.
    pub(super) async fn ask(&self, address: &Address) -> Result<(), Cause> {
        let talk = async {
            match address {
                Address::Inet(inet) => {
                    let stream = TcpStream::connect(inet).await?;
                    self.talk(stream, &inet.to_string()).await
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    self.talk(stream, "localhost").await
                }
            }
        };
        let silent = |_| Err(Cause::Silent(self.timeout));
        timeout(self.timeout, talk).await.unwrap_or_else(silent)
    }

    fn read(&self, bytes: &[u8]) -> Answer {
        match self.kind {
            CheckKind::Tcp => Some(Ok(())),
            CheckKind::Tls => answer::to_hello(bytes),
            CheckKind::Http => answer::to_get(bytes, self.status),
        }
    }

    async fn talk(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        address: &str,
    ) -> Result<(), Cause> {
        let mut said = match self.proxy {
            None => Vec::new(),
            Some(ProxyVersion::V1) => b"PROXY UNKNOWN\r\n".to_vec(),
            Some(ProxyVersion::V2) => LOCAL.to_vec(),
        };
        match self.kind {
            CheckKind::Tcp => {}
            CheckKind::Tls => write_hello(&mut said, self.name.as_deref())?,
            CheckKind::Http => {
                let host = self.name.as_deref().unwrap_or(address);
                let head = format!(
                    "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pointsman-health/{}\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n",
                    self.path,
                    env!("CARGO_PKG_VERSION")
                );
                said.extend(head.into_bytes());
            }
        }
        if !said.is_empty() {
            stream.write_all(&said).await?;
        }
        if self.kind == CheckKind::Tcp {
            return Ok(());
        }
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let mut length = 0;
        loop {
            match stream.read(&mut bytes[length..]).await? {
                0 => return Err(Cause::Closed),
                count => length += count,
            }
            if let Some(answer) = self.read(&bytes[..length]) {
                return answer;
            }
        }
    }
}

/// Where a member has no port: that of the check's protocol, for a bare connection that of the clients
/// it gets.
pub(super) fn protocol(state: &CheckState) -> Protocol {
    match state.check.kind {
        CheckKind::Tls => Protocol::Tls,
        CheckKind::Http => Protocol::Http,
        CheckKind::Tcp => state.asked_as().protocol.unwrap_or(Protocol::Tls),
    }
}

/// Appends a ClientHello with the name, or without one. No certificate is ever looked at: the
/// handshake is not carried on.
fn write_hello(out: &mut Vec<u8>, name: Option<&str>) -> Result<(), Cause> {
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
    // An address is no server_name (RFC 6066 section 3), so its hello has none.
    let name = name.unwrap_or(ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])));
    let system = |error: rustls::Error| Cause::System(error.to_string());
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
