//! A redis-server on a free port and a unix socket. A test can stop it, let it go on, kill it and start it
//! again on the same port; dropping it kills it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_port;

/// A running server; dropping it kills it.
pub struct RedisServer {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// With further arguments of redis-server.
    pub fn start_with(arguments: &[&str]) -> RedisServer {
        let directory = tempfile::tempdir().expect("a temporary directory");
        RedisServer::start_in(directory, free_port(), arguments)
    }

    /// In a directory that already holds what the arguments name, with its plain port at `port`.
    pub fn start_in(directory: tempfile::TempDir, port: u16, arguments: &[&str]) -> RedisServer {
        let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let child = spawn(port, directory.path(), &arguments);
        let server = RedisServer {
            child,
            port,
            arguments,
            directory,
        };
        server.wait_until_up();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("own child");
        self.child.wait().expect("own child");
    }

    /// Starts again, empty, on the same port, with the same arguments.
    pub fn restart(&mut self) {
        let arguments = self.arguments.clone();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.restart_with(&arguments);
    }

    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
        self.child = spawn(self.port, self.directory.path(), &self.arguments);
        self.wait_until_up();
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sends commands, words separated by blanks, in one write. Returns the first line of each reply, or the
    /// elements of an array joined by blanks.
    pub fn run(&self, commands: &[&str]) -> Vec<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("redis-server listens");
        talk(stream, commands)
    }

    /// As [`RedisServer::run`], for one command whose arguments may hold any bytes.
    pub fn run_words(&self, words: &[&[u8]]) -> String {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).expect("redis-server listens");
        stream
            .write_all(&encode(words))
            .expect("redis-server reads");
        reply(&mut BufReader::new(stream))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Fails if the test has killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, directory: &Path, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "no", "--unixsocket", "redis.sock", "--dir"])
        .arg(directory)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

fn talk(mut stream: TcpStream, commands: &[&str]) -> Vec<String> {
    let mut bytes = Vec::new();
    for command in commands {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        bytes.extend(encode(&words));
    }
    stream.write_all(&bytes).expect("redis-server reads");
    let mut reader = BufReader::new(stream);
    commands.iter().map(|_| reply(&mut reader)).collect()
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

fn reply(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("redis-server answers");
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1.min(line.len()));
    match (kind, rest.parse::<usize>()) {
        ("$", Ok(length)) => {
            let mut text = vec![0; length + 2];
            reader.read_exact(&mut text).expect("a whole reply");
            String::from_utf8_lossy(&text[..length]).into_owned()
        }
        ("*", Ok(count)) => {
            let elements: Vec<String> = (0..count).map(|_| reply(reader)).collect();
            elements.join(" ")
        }
        ("+" | ":", _) => rest.to_owned(),
        _ => line.to_owned(),
    }
}
