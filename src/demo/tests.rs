//! The backends of the demo, without the proxy.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::config::{Config, Machine, read};

fn started(arguments: &[&str]) -> (Demo, Config) {
    let arguments = ["pointsman", "demo"]
        .iter()
        .chain(arguments)
        .map(OsString::from);
    let (_, mut typed) = read(arguments, []).unwrap();
    let demo = Demo::start(&mut typed).unwrap();
    let machine = Machine {
        allowed_cores: vec![0],
    };
    let config = typed.validate(&machine).unwrap();
    (demo, config)
}

fn exchange(mut stream: impl Read + Write, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn every_route_leads_to_the_backend_of_that_name() {
    let (demo, config) = started(&[]);
    assert_eq!(config.listeners.len(), 2);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(demo.certificate()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    assert_eq!(config.sync.static_routes.len(), HOSTS.len());
    for ((protocol, host), route) in HOSTS.into_iter().zip(config.sync.static_routes) {
        assert_eq!(host, route.key.to_string());
        let socket = TcpStream::connect(route.entry).unwrap();
        let response = match protocol {
            Protocol::Http | Protocol::Tcp => exchange(socket, host),
            Protocol::Tls => {
                let name = host.try_into().unwrap();
                let tls = rustls::ClientConnection::new(client.clone(), name).unwrap();
                exchange(rustls::StreamOwned::new(tls, socket), host)
            }
        };
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(
            response.ends_with(&format!("backend of {host}.\n")),
            "{response}"
        );
    }
}

#[test]
fn the_operator_s_addresses_go_before_the_demo_s() {
    let (_demo, config) = started(&["--http", "127.0.0.1:0"]);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].protocol, Protocol::Http);
}

#[test]
fn a_taken_port_is_given_up_for_any() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_eq!(free_or_any(port).port(), 0);
}

#[test]
fn the_certificate_is_private_and_goes_with_the_demo() {
    let (demo, _) = started(&[]);
    let directory = demo.directory.clone();
    assert_eq!(
        fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
        0o700
    );
    drop(demo);
    assert!(!directory.exists());
}

#[test]
fn the_instructions_hold_for_the_bound_addresses() {
    let (demo, _) = started(&[]);
    let text = demo.instructions(&[
        (Protocol::Http, "0.0.0.0:1234".parse().unwrap()),
        (Protocol::Tls, "[::1]:5678".parse().unwrap()),
    ]);
    for line in [
        "  curl --resolve one.http.localhost:1234:127.0.0.1 http://one.http.localhost:1234/"
            .to_owned(),
        format!(
            "  curl --cacert {} --resolve two.tls.localhost:5678:[::1] https://two.tls.localhost:5678/",
            demo.certificate().display()
        ),
    ] {
        assert!(text.lines().any(|got| got == line), "no {line} in\n{text}");
    }
}
