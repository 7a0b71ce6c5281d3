//! The proxy as a process of its own: the built binary on ports that the kernel chose. Tests look at it
//! through its standard error, its admin endpoint and `/proc`. Dropping it checks that nothing leaked, so no
//! test can forget to.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::process::Process;
use super::wait_until;

/// For the start of a debug build on a loaded machine, with its DNS look-ups.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How soon everything of a client must be gone after it has closed. Longer than the silence after which the
/// proxy ends a lingering close (2 s).
const LEAK_PATIENCE: Duration = Duration::from_secs(5);

/// How to start the proxy. Unless told otherwise: one core, one listener per protocol and the
/// admin endpoint on 127.0.0.1, ports chosen by the kernel, a drain of one second.
pub struct Options {
    cores: String,
    listeners: Vec<String>,
    admin: String,
    rest: Vec<String>,
    environment: Vec<(String, String)>,
    file_limit: Option<u32>,
    dropped_capabilities: Vec<String>,
    drain: String,
}

impl Options {
    pub fn new() -> Options {
        Options {
            cores: String::from("0"),
            listeners: Vec::new(),
            admin: String::from("127.0.0.1:0"),
            rest: Vec::new(),
            environment: Vec::new(),
            file_limit: None,
            dropped_capabilities: Vec::new(),
            drain: String::from("1s"),
        }
    }

    /// As `--cores`.
    pub fn cores(mut self, list: &str) -> Options {
        self.cores = list.to_owned();
        self
    }

    /// One more listener; `flag` is `--https` or `--http`. The first one replaces the usual two.
    pub fn listen(mut self, flag: &str, address: &str) -> Options {
        self.listeners.extend([flag.to_owned(), address.to_owned()]);
        self
    }

    /// As `--admin`.
    pub fn admin(mut self, address: &str) -> Options {
        self.admin = address.to_owned();
        self
    }

    /// `host` is as in `--route`: a name, `*.domain`, `default:https` or `default:http`.
    pub fn route(self, host: &str, members: &[&str]) -> Options {
        self.args(&["--route", &format!("{host}={}", members.join(","))])
    }

    pub fn args(mut self, args: &[&str]) -> Options {
        self.rest.extend(args.iter().map(|one| (*one).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Options {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As `--drain`.
    pub fn drain(mut self, drain: &str) -> Options {
        self.drain = drain.to_owned();
        self
    }

    /// Open descriptors that the process may have.
    pub fn file_limit(mut self, files: u32) -> Options {
        self.file_limit = Some(files);
        self
    }

    /// Runs without these capabilities, named as in `setpriv --bounding-set`.
    pub fn without_capabilities(mut self, names: &[&str]) -> Options {
        let names = names.iter().map(|name| (*name).to_owned());
        self.dropped_capabilities.extend(names);
        self
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_pointsman");
        let mut command = match self.file_limit {
            None if !self.dropped_capabilities.is_empty() => {
                let mut setpriv = Command::new("setpriv");
                let dropped = self.dropped_capabilities.iter();
                let list: Vec<String> = dropped.map(|name| format!("-{name}")).collect();
                setpriv.args(["--bounding-set", &list.join(","), binary]);
                setpriv
            }
            None => Command::new(binary),
            Some(files) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, binary]);
                shell
            }
        };
        command.args(["--cores", &self.cores, "--admin", &self.admin]);
        command.args(["--drain", &self.drain]);
        if self.listeners.is_empty() {
            command.args(["--https", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        }
        command.args(&self.listeners);
        command.args(&self.rest);
        // This variable is for a test and is no option of the proxy.
        command.env_remove("POINTSMAN_TENANTS_SECONDS");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the proxy and returns when it is ready.
    pub fn start(self) -> Proxy {
        let process = Process::start(self.command());
        let ready = process.wait_for_line(START_PATIENCE, |line| {
            line.split(' ').next() == Some("ready") || line.contains("\"message\":\"ready\"")
        });
        let Some(ready) = ready else {
            panic!("the proxy did not get ready; it said:\n{}", process.said());
        };
        let mut proxy = Proxy {
            process,
            https: addresses(&ready, "https"),
            http: addresses(&ready, "http"),
            listen: addresses(&ready, "listen"),
            admin: addresses(&ready, "admin")[0],
            baseline: Baseline::default(),
            leaks_checked: false,
        };
        proxy.baseline = proxy.take_baseline();
        proxy
    }

    /// Starts a proxy that must refuse to run. Returns its exit status and what it wrote.
    pub fn start_and_fail(self) -> (ExitStatus, String) {
        let mut process = Process::start(self.command());
        let Some(status) = process.wait_for_exit(START_PATIENCE) else {
            panic!(
                "the proxy runs where it should not; it said:\n{}",
                process.said()
            );
        };
        (status, process.said())
    }
}

/// The addresses that the ready line gives for `key`, in its order.
fn addresses(ready: &str, key: &str) -> Vec<SocketAddr> {
    let parse = |address: &str| address.parse().expect("an address in the ready line");
    if ready.starts_with('{') {
        let line: serde_json::Value = serde_json::from_str(ready).expect("a line of JSON");
        let listed = line[key].as_array().into_iter().flatten();
        return listed
            .map(|address| parse(address.as_str().expect("text")))
            .collect();
    }
    ready
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, address)| parse(address))
        .collect()
}

/// What the proxy holds while it has no client.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Baseline {
    /// Per core.
    ring_operations: Vec<u64>,
    /// Per core.
    deadlines: Vec<u64>,
    descriptors: usize,
}

/// A running proxy.
pub struct Proxy {
    process: Process,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    listen: Vec<SocketAddr>,
    admin: SocketAddr,
    baseline: Baseline,
    leaks_checked: bool,
}

impl Proxy {
    /// The address of the first TLS listener.
    pub fn https(&self) -> SocketAddr {
        self.https[0]
    }

    /// The address of the first HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.http[0]
    }

    pub fn https_all(&self) -> &[SocketAddr] {
        &self.https
    }

    pub fn http_all(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The addresses on which `pointsman unwrap` listens.
    pub fn listen_all(&self) -> &[SocketAddr] {
        &self.listen
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.process.said()
    }

    /// The first line on standard error with `part` in it.
    ///
    /// # Panics
    /// When there is none within `patience`.
    pub fn wait_for_line(&self, part: &str, patience: Duration) -> String {
        let line = self
            .process
            .wait_for_line(patience, |line| line.contains(part));
        match line {
            Some(line) => line,
            None => panic!("the proxy never said {part:?}, but:\n{}", self.stderr()),
        }
    }

    /// The body of a page of the admin endpoint.
    pub fn admin_page(&self, path: &str) -> String {
        match self.try_admin_page(path) {
            Ok(body) => body,
            Err(error) => panic!(
                "no {path} from the admin endpoint: {error}; the proxy said:\n{}",
                self.stderr()
            ),
        }
    }

    fn try_admin_page(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(START_PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        Ok(body.unwrap_or_default().to_owned())
    }

    /// The `/status` page.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin_page("/status")).expect("the status is JSON")
    }

    /// One number of `/status` for each core.
    pub fn per_core(&self, field: &str) -> Vec<u64> {
        let status = self.status();
        let cores = status["cores"].as_array().expect("the status lists cores");
        cores
            .iter()
            .map(|core| core[field].as_u64().expect("a number of the core"))
            .collect()
    }

    /// The `/metrics` page.
    pub fn metrics(&self) -> String {
        self.admin_page("/metrics")
    }

    /// The value of one series, as it is spelled in `/metrics` with its labels.
    pub fn series(&self, name: &str) -> Option<f64> {
        let metrics = self.metrics();
        let mut lines = metrics.lines();
        lines.find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(' ')?;
            value.trim().parse().ok()
        })
    }

    /// How many connections had this outcome; `protocol` is `tls` or `http`.
    pub fn outcome(&self, protocol: &str, outcome: &str) -> u64 {
        let series =
            format!("pointsman_connections_total{{protocol=\"{protocol}\",outcome=\"{outcome}\"}}");
        match self.series(&series) {
            Some(count) => count as u64,
            None => panic!("there is no outcome {outcome:?} for {protocol}"),
        }
    }

    /// Waits until exactly `count` connections had this outcome. A client sees the end of its connection
    /// before the proxy counts it.
    pub fn wait_for_outcome(&self, protocol: &str, outcome: &str, count: u64) {
        let deadline = Instant::now() + LEAK_PATIENCE;
        loop {
            let counted = self.outcome(protocol, outcome);
            if counted == count {
                return;
            }
            let metrics = self.metrics();
            let counts = metrics
                .lines()
                .filter(|line| line.starts_with("pointsman_connections_total"))
                .filter(|line| !line.ends_with(" 0"));
            assert!(
                Instant::now() < deadline && counted < count,
                "{count} times {outcome} expected for {protocol}, but:\n{}",
                counts.collect::<Vec<_>>().join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Connections that are open now, on all cores.
    pub fn live(&self) -> u64 {
        self.per_core("live").iter().sum()
    }

    /// Descriptors that the process has open.
    pub fn descriptors(&self) -> usize {
        let listing = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        listing.expect("the proxy runs").count()
    }

    /// Resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the proxy runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<usize>().ok())
            .expect("VmRSS is in KiB")
            * 1024
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)); the second field holds
        // the name and may hold blanks.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields
            .map(|field| field.parse::<u64>().expect("a count of ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Checks that the proxy uses next to no processor time for a second.
    ///
    /// # Panics
    /// When it uses 200 ms or more.
    #[track_caller]
    pub fn assert_rests(&self) {
        let before = self.processor_time();
        // Processor time can only be measured over a span.
        std::thread::sleep(Duration::from_secs(1));
        let spent = self.processor_time() - before;
        assert!(spent < Duration::from_millis(200), "{spent:?} of 1 s");
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        assert!(self.process.signal(name), "SIG{name} was not sent");
    }

    /// The exit status; `None` if the proxy does not end within `patience`.
    pub fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = self.process.wait_for_exit(patience);
        if status.is_some() {
            self.leaks_checked = true;
        }
        status
    }

    fn take_baseline(&self) -> Baseline {
        let mut last = self.look();
        wait_until("an idle proxy is idle", START_PATIENCE, || {
            std::thread::sleep(Duration::from_millis(30));
            let look = self.look();
            let same = look == last;
            last = look;
            same
        });
        last
    }

    fn look(&self) -> Baseline {
        let ring_operations = self.per_core("ring_operations");
        let deadlines = self.per_core("deadlines");
        // The proxy closes its side of the last admin connection only after it has seen ours closed. If
        // counted at once, that descriptor is there 19 times out of 20.
        std::thread::sleep(Duration::from_millis(10));
        Baseline {
            ring_operations,
            deadlines,
            descriptors: self.descriptors(),
        }
    }

    /// Allows `more` descriptors than right after the start, such as that of the connection to a Redis that
    /// could not be reached then.
    pub fn expect_descriptors(&mut self, more: usize) {
        self.baseline.descriptors += more;
    }

    /// Checks that the proxy has no more connections, ring operations, deadlines, pipes and descriptors than
    /// right after the start. The test has closed its clients before.
    ///
    /// # Panics
    /// With what is left after [`LEAK_PATIENCE`].
    pub fn assert_no_leaks(&mut self) {
        self.leaks_checked = true;
        let deadline = Instant::now() + LEAK_PATIENCE;
        loop {
            let leak = self.leak();
            let Some(leak) = leak else { return };
            assert!(
                Instant::now() < deadline,
                "leaked: {leak}; the proxy said:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leak(&self) -> Option<String> {
        let live = self.live();
        if live > 0 {
            return Some(format!("{live} connections"));
        }
        let pipes_out: u64 = self.per_core("pipes_out").iter().sum();
        if pipes_out > 0 {
            return Some(format!("{pipes_out} pipes"));
        }
        let pipes_idle: u64 = self.per_core("pipes_idle").iter().sum();
        let backends_idle = self.per_core("backends_idle");
        let look = self.look();
        // Each connection in an idle pool has one descriptor and one ring operation.
        let held = look.ring_operations.iter().zip(&backends_idle);
        let operations: Vec<u64> = held.map(|(all, idle)| all - idle).collect();
        let kept = backends_idle.iter().sum::<u64>() as usize;
        if operations != self.baseline.ring_operations
            || look.deadlines != self.baseline.deadlines
            || look.descriptors > self.baseline.descriptors + 2 * pipes_idle as usize + kept
        {
            let before = &self.baseline;
            return Some(format!(
                "{before:?} became {look:?} with {pipes_idle} idle pipes and {kept} idle backends"
            ));
        }
        None
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the proxy said:\n{}", self.stderr());
        } else if !self.leaks_checked {
            // If this panics, the process is still ended, since fields are dropped.
            self.assert_no_leaks();
        }
    }
}
