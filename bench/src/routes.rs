//! Large routing tables from a real Redis: how long they take to load, their memory, the cost of a lookup,
//! and the time that a change takes. For pointsman only; the peers read no routes from Redis.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::hello::{CLASSIC_BYTES, client_hello};
use crate::load::{LoadSide, Service};
use crate::machine::Processors;
use crate::measure::{self, Sample, Window};
use crate::peer::{Running, free_address, pinned};
use crate::procfs::{self, Memory};
use crate::scenario::{Scenario, connecting};

/// Hosts in each table. The others are compared with the first.
pub const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Changes that are timed until a worker serves them.
const CHANGES: usize = 200;
/// Time between two changes: longer than a change takes, so that they do not queue.
const CHANGE_GAP: Duration = Duration::from_millis(5);
/// Time between two questions whether a change is served, so that asking does not take the
/// processor from what is asked about; the latencies are too long by at most this.
const ASKING_GAP: Duration = Duration::from_micros(100);
/// Commands sent to Redis before their answers are read; both fit the socket buffers.
const BATCH: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);

/// The figures of a table of one size.
#[derive(Debug)]
pub struct Table {
    pub sample: Sample,
    pub facts: Facts,
    pub notes: Vec<String>,
}

/// The figures that have goals.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Facts {
    pub hosts: usize,
    /// From the start of the process until it serves, seconds.
    pub ready: f64,
    /// Process memory beyond that of an empty table and beyond the names, bytes per host.
    pub bytes_per_host: f64,
    /// From a change in Redis until it is served, the 99th percentile, milliseconds.
    pub change_p99: f64,
}

/// Loads a table of `hosts` and measures it.
///
/// # Errors
/// When Redis or pointsman do not start, or a route does not come about.
pub fn measure(
    scenario: &Scenario,
    hosts: usize,
    program: &Path,
    name: &str,
    window: Window,
) -> io::Result<Table> {
    let mut load = LoadSide::new(scenario.connections())?;
    let backend = load.address(Service::Small);
    let mut redis = Redis::start(window.processors)?;
    let empty = {
        let (running, _) = start(program, &redis, window.processors)?;
        memory(&running)?
    };
    let name_bytes = redis.fill(hosts, backend)?;
    let (running, loaded) = start(program, &redis, window.processors)?;
    let full = memory(&running)?;

    let groups = connecting(scenario.connections(), |client| {
        host(client * hosts / scenario.connections())
    });
    for group in groups {
        load.add(group, running.listen());
    }
    let sample = measure::loaded(scenario, &mut load, running.root(), name, window)?;
    drop(load);

    let changes = time_changes(&mut redis, running.listen())?;
    let per_host = (full.proportional as f64 - empty.proportional as f64) / hosts as f64;
    let notes = vec![
        format!(
            "{hosts} hosts, round {}: {name} ready {:.2} s after its start, {:.0} bytes per host \
             of which {:.0} are the name (one core), {:.1} MiB resident",
            window.round,
            loaded.as_secs_f64(),
            per_host,
            name_bytes as f64 / hosts as f64,
            full.resident as f64 / 1_048_576.0,
        ),
        format!(
            "{hosts} hosts, round {}: a change was served after {:.2} ms (p50), {:.2} ms (p99), \
             {:.2} ms (largest of {CHANGES}), asked by new connections one after the other",
            window.round,
            changes.value_at_quantile(0.5) as f64 / 1e3,
            changes.value_at_quantile(0.99) as f64 / 1e3,
            changes.max() as f64 / 1e3,
        ),
    ];
    let facts = Facts {
        hosts,
        ready: loaded.as_secs_f64(),
        bytes_per_host: per_host - name_bytes as f64 / hosts as f64,
        change_p99: changes.value_at_quantile(0.99) as f64 / 1e3,
    };
    Ok(Table {
        sample,
        facts,
        notes,
    })
}

fn memory(running: &Running) -> io::Result<Memory> {
    let root = running.root().map(procfs::process_tree).transpose()?;
    Memory::of(&root.unwrap_or_default())
}

/// A host name of usual length.
fn host(index: usize) -> String {
    format!("host-{index:07}.shop.bench.test")
}

/// Starts pointsman with that Redis, and returns how long it took to become ready.
fn start(program: &Path, redis: &Redis, processors: Processors) -> io::Result<(Running, Duration)> {
    let listen = free_address()?;
    let begin = Instant::now();
    let mut child = pinned(processors.proxy)
        .arg(program)
        .args([
            "--https",
            &listen.to_string(),
            "--cores",
            &processors.proxy.to_string(),
        ])
        .args(["--redis", &format!("redis://{}", redis.address)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
    loop {
        let before = said.len();
        if lines.read_line(&mut said)? == 0 {
            return Err(io::Error::other(format!(
                "pointsman was not ready; it said: {said}"
            )));
        }
        if said[before..].starts_with("ready ") {
            break;
        }
    }
    let ready = begin.elapsed();
    // Read on to the end, so that it never waits for a reader.
    std::thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
    let running = Running::adopt(child, listen)?;
    running.check_pinned(processors)?;
    Ok((running, ready))
}

/// Adds one host after the other and asks for it until it is served.
fn time_changes(redis: &mut Redis, proxy: SocketAddr) -> io::Result<Histogram<u64>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let backend = listener.local_addr()?;
    // A backend that answers with one byte, unlike an alert's first.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answered = stream.and_then(|mut stream| {
                stream.read_exact(&mut [0; CLASSIC_BYTES])?;
                stream.write_all(&[SERVED])
            });
            // The other side opens a new connection if one has failed.
            drop(answered);
        }
    });
    let mut latencies =
        Histogram::new_with_bounds(1, PATIENCE.as_micros() as u64, 3).map_err(io::Error::other)?;
    for change in 0..CHANGES {
        let name = format!("change-{change:04}.bench.test");
        let hello = client_hello(&name, CLASSIC_BYTES);
        let begin = Instant::now();
        redis.add(&[(name, backend)])?;
        while !is_served(proxy, &hello)? {
            std::thread::sleep(ASKING_GAP);
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "a change was not served within {PATIENCE:?}"
                )));
            }
        }
        latencies.saturating_record(begin.elapsed().as_micros() as u64);
        std::thread::sleep(CHANGE_GAP);
    }
    Ok(latencies)
}

const SERVED: u8 = 0x2a;

fn is_served(proxy: SocketAddr, hello: &[u8]) -> io::Result<bool> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    stream.write_all(hello)?;
    let mut first = [0];
    match stream.read(&mut first) {
        Ok(1) => Ok(first[0] == SERVED),
        // Closed or reset: the name was refused, and the caller asks again.
        _ => Ok(false),
    }
}

/// A redis-server for this run, on the load's processor; dropping it ends it.
struct Redis {
    child: Child,
    address: SocketAddr,
    stream: TcpStream,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start(processors: Processors) -> io::Result<Redis> {
        let directory = tempfile::tempdir()?;
        let address = free_address()?;
        let mut child = pinned(processors.load)
            .arg("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Redis {
                        child,
                        address,
                        stream,
                        _directory: directory,
                    });
                }
                Err(error) if Instant::now() > end => {
                    child.kill()?;
                    child.wait()?;
                    return Err(io::Error::other(format!(
                        "redis-server did not start: {error}"
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Adds `hosts` routes to `backend`; gives the length of all names together.
    fn fill(&mut self, hosts: usize, backend: SocketAddr) -> io::Result<usize> {
        let mut name_bytes = 0;
        for first in (0..hosts).step_by(BATCH) {
            let batch: Vec<(String, SocketAddr)> = (first..hosts.min(first + BATCH))
                .map(|index| (host(index), backend))
                .collect();
            name_bytes += batch.iter().map(|(name, _)| name.len()).sum::<usize>();
            self.add(&batch)?;
        }
        Ok(name_bytes)
    }

    /// Adds new routes, in one round trip.
    fn add(&mut self, routes: &[(String, SocketAddr)]) -> io::Result<()> {
        let mut commands = Vec::new();
        for (name, backend) in routes {
            commands.extend(sadd(name, &backend.to_string()));
        }
        self.stream.write_all(&commands)?;
        // Each answer to a member that is new is ":1\r\n".
        let mut answers = vec![0; 4 * routes.len()];
        self.stream.read_exact(&mut answers)?;
        if answers.chunks(4).all(|answer| answer == b":1\r\n") {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "Redis answered {}",
                String::from_utf8_lossy(&answers)
            )))
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It holds nothing worth keeping, and may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `SADD hostnames:<name>:backends <member>` in Redis's protocol.
fn sadd(name: &str, member: &str) -> Vec<u8> {
    let key = format!("hostnames:{name}:backends");
    let mut command = b"*3\r\n".to_vec();
    for part in ["SADD", &key, member] {
        command.extend(format!("${}\r\n{part}\r\n", part.len()).into_bytes());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_redis_words() {
        assert_eq!(
            sadd("a.test", "b:1"),
            b"*3\r\n$4\r\nSADD\r\n$25\r\nhostnames:a.test:backends\r\n$3\r\nb:1\r\n"
        );
    }
}
