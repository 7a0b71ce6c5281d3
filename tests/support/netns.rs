//! Network namespaces joined by veth pairs; dropping a value removes its namespace. Needs root and iproute2.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One network namespace with a loopback interface that is up.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// # Panics
    /// Without root or iproute2.
    pub fn new(role: &str) -> Namespace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ptm-{}-{number}-{role}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.expect("the tests need ip: install iproute2 (scripts/test does)");
        assert!(
            made.status.success(),
            "no network namespace, run as root: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let namespace = Namespace { name };
        // Without duplicate address detection link-local addresses are there at once and not after
        // a second, in which no neighbour can be asked for (RFC 4862 section 5.4).
        namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0 && ip link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a line of shell inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, line: &str) -> String {
        let (succeeded, said) = self.try_run(line);
        assert!(succeeded, "{line} in {}: {said}", self.name);
        said
    }

    /// Runs a line of shell inside. Returns whether it succeeded, and all that it printed.
    pub fn try_run(&self, line: &str) -> (bool, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "sh", "-c", line])
            .output()
            .expect("ip is there");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    /// Does `work` on a thread in this namespace. The sockets that it makes and the processes that it starts
    /// belong to the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let place = File::open(format!("/run/netns/{}", self.name)).expect("it is there");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: setns(2) takes no pointers; it concerns this thread alone.
                let entered = unsafe { libc::setns(place.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
                work()
            });
            let result = thread.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Joins two namespaces by network `number`. The first gets host 1 in it and the second host 2, in both
    /// families.
    pub fn join(first: &Namespace, second: &Namespace, number: u8) {
        let (one, other) = (&first.name, &second.name);
        let link = format!(
            "ip link add v{number} netns {one} type veth peer name v{number} netns {other}"
        );
        first.run(&link);
        for (namespace, host) in [(first, 1), (second, 2)] {
            let (v4, v6) = (Self::v4(number, host), Self::v6(number, host));
            namespace.run(&format!(
                "ip address add {v4}/24 dev v{number} && \
                 ip address add {v6}/64 dev v{number} nodad && ip link set v{number} up"
            ));
        }
    }

    pub fn v4(network: u8, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, network, host).into()
    }

    pub fn v6(network: u8, host: u8) -> IpAddr {
        let (network, host) = (network.into(), host.into());
        Ipv6Addr::new(0xfd77, network, 0, 0, 0, 0, 0, host).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A client, a proxy and a backend in namespaces of their own. Client and backend have one route each: by
/// way of the proxy.
pub struct Line {
    pub client: Namespace,
    pub proxy: Namespace,
    pub backend: Namespace,
}

impl Line {
    pub fn new() -> Line {
        let line = Line {
            client: Namespace::new("client"),
            proxy: Namespace::new("proxy"),
            backend: Namespace::new("backend"),
        };
        Namespace::join(&line.proxy, &line.client, 1);
        Namespace::join(&line.proxy, &line.backend, 2);
        line.client.run(&default_route(1));
        line.backend.run(&default_route(2));
        line
    }
}

fn default_route(network: u8) -> String {
    let (v4, v6) = (Namespace::v4(network, 1), Namespace::v6(network, 1));
    format!("ip route add default via {v4} && ip -6 route add default via {v6}")
}
