//! Peers that vanish are found by the kernel's probes, on both sides and at every stage.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use support::client::{self, Hello};
use support::http::{Wire, scripted};
use support::proxy::Options;
use support::{backend, wait_until};

/// The timers of the sockets of this process's children towards `port`, as ss(8) shows them.
fn timers(port: u16) -> String {
    let filter = format!("dport = :{port}");
    let output = Command::new("ss").args(["-tnoH", &filter]).output();
    let output = output.expect("the tests need ss: install iproute2 (scripts/test does)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Connections to a backend, each at another stage of its life, are probed after 7 s of silence; so are
/// those of the clients.
#[test]
fn backends_and_clients_are_probed_at_every_stage() {
    let tls = backend::echo("tls");
    let mute = backend::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let http = scripted(|request, _| {
        let answer: &[u8] = match request.head.split(' ').nth(1) {
            Some("/never") => {
                // The timers have been looked at by then.
                std::thread::sleep(Duration::from_secs(3));
                return None;
            }
            Some("/body") => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            Some("/tunnel") => {
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        Some(answer.to_vec())
    });
    let proxy = Options::new()
        .route("tls.test", &[&tls.member()])
        .route("mute.test", &[&mute.member()])
        .route("http.test", &[&http.member()])
        .args(&["--tcp-keep-alive", "7s"])
        .start();
    let open = |name: &str| {
        let mut stream = client::connect(proxy.https());
        let hello = Hello::named(name).record();
        stream.write_all(&hello).expect("the proxy listens");
        stream
    };
    let ask = |path: &str| {
        let mut wire = Wire::connect(proxy.http());
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: http.test\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
        ));
        wire.stream
    };
    let _held: Vec<TcpStream> = vec![
        open("tls.test"),
        open("mute.test"),
        ask("/never"),
        ask("/body"),
        ask("/tunnel"),
        ask("/pooled"),
    ];
    for (backend, connections) in [(&tls, 1), (&mute, 1), (&http, 4)] {
        wait_until("all are probed", client::PATIENCE, || {
            let timers = timers(backend.address().port());
            let probed = timers.lines().filter(|line| {
                let timer = line.split("timer:(keepalive,").nth(1);
                timer.is_some_and(|timer| timer.starts_with('6') || timer.starts_with('5'))
            });
            probed.count() == connections
        });
    }
    let of_clients = |port: u16| {
        let filter = format!("sport = :{port}");
        let output = Command::new("ss").args(["-tnoH", &filter]).output();
        String::from_utf8_lossy(&output.expect("it ran").stdout)
            .matches("keepalive")
            .count()
    };
    assert_eq!(of_clients(proxy.https().port()), 2);
    assert_eq!(of_clients(proxy.http().port()), 4);
}

#[test]
fn probes_can_be_switched_off() {
    let backend = backend::echo("tls");
    let proxy = Options::new()
        .route("a.test", &[&backend.member()])
        .args(&["--tcp-keep-alive", "0s"])
        .start();
    let mut stream = client::connect(proxy.https());
    let hello = Hello::named("a.test").record();
    stream.write_all(&hello).expect("the proxy listens");
    stream.read_exact(&mut [0; 4]).expect("an answer");
    // Timers of what was sent are gone by then; that of a probe would stay.
    std::thread::sleep(Duration::from_millis(500));
    let timers = timers(backend.address().port());
    assert!(
        timers.contains("127.0.0.1") && !timers.contains("keepalive"),
        "{timers}"
    );
}
