//! The backends of the demo: HTTP/1 servers whose response names the server, two of them behind TLS with
//! certificates that are made at the start. Each connection has a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// After so long without a byte of the client its thread ends.
const SILENCE_DEADLINE: Duration = Duration::from_secs(30);

/// Usual clients send a tenth of this.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The certificate authority of a demo. Its key never leaves the process.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Result<Authority, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "pointsman demo");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Authority { issuer })
    }

    pub(super) fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The TLS configuration of a server for this host.
    fn server(&self, host: &str) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, host);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Starts an HTTP backend and returns its address.
pub(super) fn start_http(host: &'static str) -> io::Result<SocketAddr> {
    start(host, move |client| answer(client, "HTTP", host))
}

/// Starts a TLS backend and returns its address.
pub(super) fn start_tls(host: &'static str, authority: &Authority) -> io::Result<SocketAddr> {
    let config = Arc::new(authority.server(host).map_err(io::Error::other)?);
    start(host, move |client| {
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, client);
        answer(&mut stream, "TLS", host)?;
        stream.conn.send_close_notify();
        stream.flush()
    })
}

fn start(
    host: &str,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::Builder::new()
        .name(format!("demo {host}"))
        .spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else {
                    // Without a pause, a lack of descriptors would make this loop spin.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                let serve = serve.clone();
                std::thread::spawn(move || {
                    // The client sees an error; nobody else needs to.
                    let _ = client
                        .set_read_timeout(Some(SILENCE_DEADLINE))
                        .and_then(|()| client.set_write_timeout(Some(SILENCE_DEADLINE)))
                        .and_then(|()| serve(client));
                });
            }
        })?;
    Ok(address)
}

/// Reads a request head, and responds with the name of this backend.
fn answer(mut stream: impl Read + Write, kind: &str, host: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 || head.len() + count > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&piece[..count]);
    }
    let body = format!("This is the {kind} backend of {host}.\n");
    let response = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes())?;
    stream.flush()
}
