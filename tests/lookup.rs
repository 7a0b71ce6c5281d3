//! The question who is behind a connection that a backend sees, asked by curl, answered by the
//! admin endpoint while the connection lives and afterwards.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::backend::Backend;
use support::client::Hello;
use support::proxy::{Options, Proxy};
use support::{backend, wait_until};

/// A backend that says first whom it sees.
fn mirror() -> Backend {
    backend::raw(|mut stream| {
        let peer = stream.peer_addr().expect("it is connected");
        let _ = writeln!(stream, "{peer}");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

/// A client whose connection stands, and the address that the backend sees.
fn connected(proxy: &Proxy, name: &str) -> (TcpStream, SocketAddr) {
    let mut client = TcpStream::connect(proxy.https()).unwrap();
    let hello = Hello::named(name).extension(16, b"\0\x03\x02h2".to_vec());
    client.write_all(&hello.record()).unwrap();
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).unwrap();
    (client, line.trim().parse().unwrap())
}

/// Status and body.
fn ask(proxy: &Proxy, query: &str) -> (u16, Value) {
    let url = format!("http://{}/client?{query}", proxy.admin());
    let said = Command::new("curl")
        .args([
            "-sS",
            "-g",
            "--max-time",
            "10",
            "-w",
            "\n%{http_code}",
            &url,
        ])
        .output()
        .expect("the tests need curl");
    let said = String::from_utf8(said.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn the_client_is_known_while_it_is_connected_and_afterwards() {
    let backend = mirror();
    let proxy = Options::new()
        .cores("0-1")
        .args(&["--lookup", "yes"])
        .route("a.test", &[&backend.member()])
        .start();
    let before = SystemTime::now();
    let (client, seen) = connected(&proxy, "a.test");
    let (other, seen_of_other) = connected(&proxy, "a.test");
    let (status, answer) = ask(&proxy, &format!("backend={seen}"));
    assert_eq!(status, 200, "{answer}");
    let expected = client.local_addr().unwrap().to_string();
    assert_eq!(answer["client"], expected);
    assert_eq!(answer["name"], "a.test");
    assert_eq!(answer["alpn"], "h2");
    assert_eq!(answer["backend"], backend.member());
    assert_eq!(answer["to"], backend.member());
    assert_eq!(answer["open"], true);
    let accepted = humantime::parse_rfc3339(answer["accepted"].as_str().unwrap()).unwrap();
    // To the millisecond, which is rounded down.
    let since = accepted.duration_since(before - Duration::from_millis(2));
    assert!(since.unwrap() < Duration::from_secs(30), "{answer}");

    client.shutdown(Shutdown::Write).unwrap();
    (&client).read_to_end(&mut Vec::new()).unwrap();
    wait_until("it has ended", Duration::from_secs(5), || {
        ask(&proxy, &format!("backend={seen}")).1["open"] == false
    });
    let (status, answer) = ask(&proxy, &format!("backend={seen}&to={}", backend.member()));
    assert_eq!((status, &answer["client"]), (200, &Value::from(expected)));
    assert_eq!(ask(&proxy, &format!("backend={seen}&to=10.0.0.1:1")).0, 404);

    let (status, answer) = ask(&proxy, &format!("backend={seen_of_other}"));
    assert_eq!((status, &answer["open"]), (200, &Value::from(true)));
    assert_eq!(answer["client"], other.local_addr().unwrap().to_string());
    let (status, answer) = ask(&proxy, "backend=127.0.0.1:1");
    assert!(status == 404 && answer["error"].is_string(), "{answer}");
    let (status, answer) = ask(&proxy, "backend=nonsense");
    assert!(status == 400 && answer["error"].is_string(), "{answer}");
}

#[test]
fn unless_it_is_asked_for_nothing_is_kept() {
    let backend = mirror();
    let proxy = Options::new().route("a.test", &[&backend.member()]).start();
    let (_client, seen) = connected(&proxy, "a.test");
    let (status, answer) = ask(&proxy, &format!("backend={seen}"));
    let error = answer["error"].as_str().unwrap();
    assert!(status == 404 && error.contains("--lookup yes"), "{error}");
}
