//! TLS servers (nginx, a process each) that a test makes fail, and a constant load of new TLS connections
//! that shows what clients notice. Used inside a network namespace, where packets can be dropped.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::port::free_address;
use super::process::Process;
use super::{backend, client, wait_until};

/// A client gives up after this.
const CLIENT_PATIENCE: Duration = Duration::from_secs(20);
/// Most clients at a time; more would only wait for a processor.
const CLIENTS_MAX: usize = 96;

/// An nginx that answers with its name.
pub struct Server {
    name: &'static str,
    address: SocketAddr,
    directory: tempfile::TempDir,
    process: Option<Process>,
}

impl Server {
    pub fn start(name: &'static str) -> Server {
        let address = free_address();
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().display();
        let (certificate, key) = backend::certificate_pem("a.test");
        let write = |file: &str, text: &str| {
            std::fs::write(directory.path().join(file), text).expect("a file");
        };
        write("cert.pem", &certificate);
        write("key.pem", &key);
        write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
                 events {{}}
                 http {{
                     access_log off; keepalive_timeout 0;
                     client_body_temp_path {place}; proxy_temp_path {place};
                     fastcgi_temp_path {place}; uwsgi_temp_path {place}; scgi_temp_path {place};
                     server {{
                         listen {address} ssl;
                         ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem;
                         return 200 {name};
                     }}
                 }}\n"
            ),
        );
        let mut server = Server {
            name,
            address,
            directory,
            process: None,
        };
        server.revive();
        server
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Starts it again after [`Server::kill`].
    pub fn revive(&mut self) {
        let mut command = Command::new("nginx");
        command
            .arg("-c")
            .arg(self.directory.path().join("nginx.conf"));
        command
            .arg("-e")
            .arg(self.directory.path().join("error.log"));
        self.process = Some(Process::start(command));
        wait_until("nginx listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(self.address).is_ok()
        });
    }

    /// Sends SIGKILL, which closes the port.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.process = None;
    }

    /// A signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        assert!(process.signal(name), "{} takes no {name}", self.name);
    }
}

/// What became of one client.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it was due, counted from the beginning of the load.
    pub at: Duration,
    /// From then until it had its answer or an error.
    pub took: Duration,
    /// The name of the server that answered, or the error.
    pub who: Result<String, String>,
}

/// Opens new TLS connections at a constant rate for `span`, each with one request, while `script` runs.
/// Clients do not wait for one another.
pub fn load(
    to: SocketAddr,
    per_second: u32,
    span: Duration,
    script: impl FnOnce(Instant),
) -> Vec<Record> {
    let count = (span.as_secs_f64() * f64::from(per_second)) as usize;
    let began = Instant::now() + Duration::from_millis(50);
    let next = AtomicUsize::new(0);
    let records = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS_MAX {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let at = Duration::from_secs_f64(number as f64 / f64::from(per_second));
                    let due = began + at;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let who = ask(to).map_err(|error| error.to_string());
                    let took = due.elapsed();
                    let record = Record { at, took, who };
                    records.lock().expect("no holder panics").push(record);
                }
            });
        }
        script(began);
    });
    let mut records = records.into_inner().expect("no holder panics");
    records.sort_by_key(|record| record.at);
    records
}

fn ask(to: SocketAddr) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let stream = client::connect(to);
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    let config = std::sync::Arc::new(client::tls_config());
    let mut stream = client::tls_over(config, stream, "a.test")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
    let response = client::Response::read(&mut stream)?;
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(response.text().to_owned())
}
