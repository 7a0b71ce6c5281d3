//! Servers of other projects that read PROXY headers, and one that writes them, each from its Debian package
//! and with a configuration that the test writes.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::backend;
use super::port::free_address;
use super::process::Process;

/// The servers start within a second, unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of another project; dropping it ends it.
pub struct Receiver {
    process: Process,
    address: SocketAddr,
    /// `None`: it logs to its standard error.
    log: Option<PathBuf>,
    directory: tempfile::TempDir,
}

impl Receiver {
    /// Starts a server. `configure` gets a free port and a directory, writes the configuration there, and
    /// returns the command and the path of the log.
    fn start(configure: impl Fn(u16, &Path) -> (Command, Option<PathBuf>)) -> Receiver {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let address = free_address();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let (command, log) = configure(address.port(), directory.path());
            let process = start_process(command);
            let receiver = Receiver {
                process,
                address,
                log,
                directory,
            };
            if receiver.is_up() {
                return receiver;
            }
            eprintln!("started again after: {}", receiver.said());
        }
        panic!("the server does not start");
    }

    fn is_up(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            if self.process.has_ended() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own log of requests so far.
    pub fn access_log(&self) -> String {
        match &self.log {
            Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
            None => self.process.said(),
        }
    }

    fn said(&self) -> String {
        let mut said = self.process.said();
        for name in ["error.log", "access.log"] {
            let text = std::fs::read_to_string(self.directory.path().join(name));
            let _ = write!(said, "\n{name}: {}", text.unwrap_or_default());
        }
        said
    }

    /// The first line of its log with `part` in it.
    ///
    /// # Panics
    /// When there is none within [`PATIENCE`].
    pub fn wait_for_log(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.access_log();
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "{part:?} is not in the log:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start_process(command: Command) -> Process {
    let program = command.get_program().to_owned();
    let found = Command::new("which").arg(&program).output();
    let is_there = found.is_ok_and(|output| output.status.success());
    assert!(
        is_there,
        "{program:?} is not installed; scripts/test installs it (apt-get install haproxy nginx apache2-bin)"
    );
    Process::start(command)
}

/// A certificate for `a.test` and its key, in one file and in two.
fn write_certificate(directory: &Path) {
    let (certificate, key) = backend::certificate_pem("a.test");
    for (name, text) in [
        ("both.pem", format!("{certificate}{key}")),
        ("cert.pem", certificate),
        ("key.pem", key),
    ] {
        std::fs::write(directory.join(name), text).expect("a file in the directory");
    }
}

fn configured(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("server.conf");
    std::fs::write(&path, text).expect("a file in the directory");
    path
}

/// HAProxy with `accept-proxy`, TLS and HTTP; logs `client=ADDRESS:PORT to=ADDRESS:PORT
/// authority=NAME id=ID`.
pub fn haproxy() -> Receiver {
    Receiver::start(|port, directory| {
        write_certificate(directory);
        let text = format!(
            "global
                 log stderr format raw local0
             defaults
                 mode http
                 log global
                 timeout connect 20s
                 timeout client 20s
                 timeout server 20s
             frontend tls
                 bind 127.0.0.1:{port} accept-proxy ssl crt {}/both.pem
                 log-format \"client=%ci:%cp to=%fi:%fp authority=%[fc_pp_authority] \
                     id=%[fc_pp_unique_id] end\"
                 http-request return status 200 content-type text/plain string haproxy\n",
            directory.display()
        );
        (haproxy_command(directory, &text), None)
    })
}

fn haproxy_command(directory: &Path, text: &str) -> Command {
    let mut command = Command::new("haproxy");
    command
        .arg("-db")
        .arg("-f")
        .arg(configured(directory, text));
    command
}

/// HAProxy in front of `to`, which it connects to from 127.0.0.3 with `options` such as
/// `send-proxy-v2`.
pub fn haproxy_sender(to: SocketAddr, options: &str) -> Receiver {
    Receiver::start(|port, directory| {
        let text = format!(
            "global
                 log stderr format raw local0
             defaults
                 mode tcp
                 log global
                 timeout connect 20s
                 timeout client 20s
                 timeout server 20s
             listen passing
                 bind 127.0.0.1:{port}
                 unique-id-format sender-%pid-%rt
                 server next {to} source 127.0.0.3 {options}\n"
        );
        (haproxy_command(directory, &text), None)
    })
}

/// nginx with `proxy_protocol`, TLS and HTTP; logs `client=ADDRESS:PORT to=ADDRESS:PORT`.
pub fn nginx() -> Receiver {
    Receiver::start(|port, directory| {
        write_certificate(directory);
        let place = directory.display();
        let text = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
             events {{}}
             http {{
                 log_format seen 'client=$proxy_protocol_addr:$proxy_protocol_port '
                     'to=$proxy_protocol_server_addr:$proxy_protocol_server_port';
                 access_log {place}/access.log seen;
                 client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};
                 uwsgi_temp_path {place}; scgi_temp_path {place};
                 server {{
                     listen 127.0.0.1:{port} ssl proxy_protocol;
                     ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem;
                     return 200 nginx;
                 }}
             }}\n"
        );
        let mut command = Command::new("nginx");
        command.arg("-c").arg(configured(directory, &text));
        command.arg("-e").arg(directory.join("error.log"));
        (command, Some(directory.join("access.log")))
    })
}

/// Apache with mod_remoteip, TLS and HTTP; logs `client=ADDRESS:PORT`.
pub fn apache() -> Receiver {
    Receiver::start(|port, directory| {
        write_certificate(directory);
        let place = directory.display();
        let modules = [
            "mpm_event",
            "authz_core",
            "ssl",
            "socache_shmcb",
            "remoteip",
        ];
        let mut text = String::new();
        for module in modules {
            let file = format!("/usr/lib/apache2/modules/mod_{module}.so");
            let _ = writeln!(text, "LoadModule {module}_module {file}");
        }
        let _ = write!(
            text,
            "ServerRoot {place}\nPidFile {place}/pid\nDefaultRuntimeDir {place}\nServerName a.test
             Listen 127.0.0.1:{port}\nErrorLog {place}/error.log\nUser www-data\nGroup www-data
             DocumentRoot {place}\nRemoteIPProxyProtocol On
             LogFormat \"client=%a:%{{remote}}p\" seen\nCustomLog {place}/access.log seen
             SSLEngine on\nSSLCertificateFile {place}/cert.pem\nSSLCertificateKeyFile {place}/key.pem\n"
        );
        let mut command = Command::new("apache2");
        command.arg("-D").arg("FOREGROUND");
        command.arg("-f").arg(configured(directory, &text));
        (command, Some(directory.join("access.log")))
    })
}
