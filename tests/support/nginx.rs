//! An nginx that answers over TLS with the address of its client, and writes the address into its access
//! log.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait_until;

/// A running nginx; dropping it ends it.
pub struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// Listens for TLS at `addresses`, in the network namespace of the calling thread.
    ///
    /// # Panics
    /// When it cannot be started or does not listen soon.
    pub fn start(addresses: &[SocketAddr]) -> Nginx {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Its workers run as nobody and write below it.
        let path = directory.path().display().to_string();
        let key = rcgen::generate_simple_self_signed([String::from("a.test")]);
        let key = key.expect("a certificate");
        fs::write(directory.path().join("cert.pem"), key.cert.pem()).expect("a file");
        fs::write(
            directory.path().join("key.pem"),
            key.signing_key.serialize_pem(),
        )
        .expect("a file");
        let listens: String = addresses
            .iter()
            .map(|address| format!("listen {address} ssl; "))
            .collect();
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log {path}/access.log combined;\n\
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;\n\
             scgi_temp_path {path}/scgi;\n\
             server {{ {listens} ssl_certificate {path}/cert.pem;\n\
             ssl_certificate_key {path}/key.pem;\n\
             return 200 \"client=$remote_addr\\n\"; }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).expect("a file");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-p", &path, "-e"])
            .arg(directory.path().join("error.log"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need nginx: install it (scripts/test does)");
        let nginx = Nginx { child, directory };
        wait_until("nginx listens", Duration::from_secs(10), || {
            let connects = std::net::TcpStream::connect(addresses[0]).is_ok();
            assert!(connects || nginx.pid_exists(), "{}", nginx.errors());
            connects
        });
        nginx
    }

    fn pid_exists(&self) -> bool {
        PathBuf::from(format!("/proc/{}/cmdline", self.child.id())).exists()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }

    /// The client addresses of all requests so far, out of the access log.
    pub fn logged_clients(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("access.log"));
        let log = log.unwrap_or_default();
        let clients = log.lines().filter_map(|line| line.split(' ').next());
        clients.map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
