//! The proxies compared: how each is configured, started on its processor, and ended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::{LoadSide, Service};
use crate::machine::{self, Processors};
use crate::procfs;
use crate::scenario::{PROXY, SEED, Scenario};

/// How long a proxy may take until it accepts.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// From SIGTERM to SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Where distributions put the stream module of nginx.
const NGINX_MODULES: [&str; 3] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
];

/// A program between the clients and the origin, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A build of pointsman and its name in the report.
    Pointsman {
        name: String,
        program: PathBuf,
    },
    Haproxy,
    HaproxySplice,
    /// The same with pipes as large as pointsman's.
    HaproxyPipes,
    Nginx,
    Sniproxy,
    /// Clients connect to the origin.
    None,
}

/// The protocol that a proxy listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    Tls,
    Http,
}

impl Peer {
    pub fn name(&self) -> &str {
        match self {
            Peer::Pointsman { name, .. } => name,
            Peer::Haproxy => "haproxy",
            Peer::HaproxySplice => "haproxy-splice",
            Peer::HaproxyPipes => "haproxy-pipes",
            Peer::Nginx => "nginx",
            Peer::Sniproxy => "sniproxy",
            Peer::None => "none",
        }
    }

    /// All but pointsman.
    const OTHERS: [Peer; 6] = [
        Peer::Haproxy,
        Peer::HaproxySplice,
        Peer::HaproxyPipes,
        Peer::Nginx,
        Peer::Sniproxy,
        Peer::None,
    ];

    /// The peer of that name, pointsman aside.
    pub fn parse(name: &str) -> Option<Peer> {
        Peer::OTHERS.into_iter().find(|peer| peer.name() == name)
    }

    pub fn is_pointsman(&self) -> bool {
        matches!(self, Peer::Pointsman { .. })
    }

    /// The installed version, or why the peer cannot take part.
    pub fn version(&self) -> Result<String, String> {
        let (program, argument) = match self {
            Peer::Pointsman { program, .. } => {
                (program.to_string_lossy().into_owned(), "--version")
            }
            Peer::Haproxy | Peer::HaproxySplice | Peer::HaproxyPipes => {
                ("haproxy".to_owned(), "-v")
            }
            Peer::Nginx => ("nginx".to_owned(), "-v"),
            Peer::Sniproxy => ("sniproxy".to_owned(), "-V"),
            Peer::None => return Ok("clients connect to the origin".to_owned()),
        };
        if *self == Peer::Nginx && nginx_modules().is_none() {
            return Err("nginx has no stream module (package libnginx-mod-stream)".to_owned());
        }
        machine::version(&program, argument).ok_or_else(|| format!("{program} is not installed"))
    }

    /// HAProxy splices in mode tcp only, and the size of its pipes matters for bulk only. sniproxy has no
    /// routes with several backends. sniproxy, and nginx before 1.31, send no PROXY headers of version 2.
    pub fn takes_part(&self, scenario: &Scenario) -> bool {
        match self {
            Peer::HaproxySplice | Peer::Nginx | Peer::Sniproxy | Peer::None
                if scenario.name == PROXY =>
            {
                false
            }
            Peer::HaproxySplice => scenario.listening == Listening::Tls,
            Peer::HaproxyPipes => scenario.listening == Listening::Tls && scenario.is_bulk(),
            Peer::Sniproxy => scenario.name != SEED,
            _ => true,
        }
    }

    /// The template of its configuration file; pointsman has none.
    fn template(&self, listening: Listening) -> Option<&'static str> {
        Some(match (self, listening) {
            (Peer::Haproxy, Listening::Tls) => include_str!("../peers/haproxy-tcp.cfg"),
            (Peer::HaproxySplice | Peer::HaproxyPipes, _) => {
                include_str!("../peers/haproxy-tcp-splice.cfg")
            }
            (Peer::Haproxy, Listening::Http) => include_str!("../peers/haproxy-http.cfg"),
            (Peer::Nginx, Listening::Tls) => include_str!("../peers/nginx-stream.conf"),
            (Peer::Nginx, Listening::Http) => include_str!("../peers/nginx-http.conf"),
            (Peer::Sniproxy, _) => include_str!("../peers/sniproxy.conf"),
            (Peer::Pointsman { .. } | Peer::None, _) => return None,
        })
    }

    fn command(&self, listening: Listening, setting: &Setting) -> io::Result<Command> {
        let mut command = pinned(setting.processors.proxy);
        let configuration = setting.directory.join("peer.conf");
        if let Peer::Pointsman { program, .. } = self {
            command
                .arg(program)
                .args(pointsman_arguments(listening, setting));
            return Ok(command);
        }
        let template = self
            .template(listening)
            .ok_or_else(|| io::Error::other("no proxy is no program"))?;
        let values = setting.values(self, listening);
        let text = render(template, &values).map_err(io::Error::other)?;
        fs::write(&configuration, text)?;
        match self {
            Peer::Nginx => command
                .args(["nginx", "-e", "stderr", "-p"])
                .arg(setting.directory)
                .arg("-c"),
            Peer::Sniproxy => command.args(["sniproxy", "-f", "-c"]),
            _ => command.args(["haproxy", "-db", "-f"]),
        };
        command.arg(configuration);
        Ok(command)
    }

    /// Starts it in front of the origin of `load`, and waits until it accepts and is pinned.
    pub fn start(
        &self,
        listening: Listening,
        processors: Processors,
        load: &LoadSide,
    ) -> io::Result<Running> {
        let directory = tempfile::tempdir()?;
        let listen = free_address()?;
        if *self == Peer::None {
            return Ok(Running {
                child: None,
                listen,
                _directory: directory,
            });
        }
        let setting = Setting {
            listen,
            processors,
            directory: directory.path(),
            services: Service::ALL.map(|service| (service, load.address(service))),
        };
        let log = directory.path().join("output");
        let output = fs::File::create(&log)?;
        let child = self
            .command(listening, &setting)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut running = Running {
            child: Some(child),
            listen,
            _directory: directory,
        };
        running.wait_until_up(&log).map_err(|error| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            io::Error::other(format!(
                "{} did not start: {error}; it said: {said}",
                self.name()
            ))
        })?;
        running.check_pinned(processors)?;
        Ok(running)
    }
}

/// What a configuration template is filled with.
struct Setting<'a> {
    listen: SocketAddr,
    processors: Processors,
    directory: &'a Path,
    services: [(Service, SocketAddr); Service::ALL.len()],
}

impl Setting<'_> {
    fn values(&self, peer: &Peer, listening: Listening) -> Vec<(&'static str, String)> {
        let mut values = vec![
            ("listen", self.listen.to_string()),
            ("processor", self.processors.proxy.to_string()),
            (
                "processor_mask",
                format!("1{}", "0".repeat(self.processors.proxy)),
            ),
            // HAProxy leaves pipes as the kernel makes them, 64 KiB, unless it is told.
            (
                "pipe_size",
                match peer {
                    Peer::HaproxyPipes => "tune.pipesize 2097152",
                    _ => "",
                }
                .to_owned(),
            ),
            ("directory", self.directory.display().to_string()),
            ("modules", nginx_modules().unwrap_or_default().to_owned()),
            (
                "protocol",
                if listening == Listening::Tls {
                    "tls"
                } else {
                    "http"
                }
                .to_owned(),
            ),
        ];
        values.extend(
            self.services
                .iter()
                .map(|(one, at)| (one.name(), at.to_string())),
        );
        values
    }
}

fn pointsman_arguments(listening: Listening, setting: &Setting) -> Vec<String> {
    let protocol = if listening == Listening::Tls {
        "--https"
    } else {
        "--http"
    };
    let mut arguments = vec![
        protocol.to_owned(),
        setting.listen.to_string(),
        "--cores".to_owned(),
        setting.processors.proxy.to_string(),
    ];
    let mut hosts: Vec<(&str, Vec<String>)> = Vec::new();
    for (service, at) in &setting.services {
        let member = match service {
            Service::Proxied => format!("{at} proxy=v2"),
            _ => at.to_string(),
        };
        match hosts.iter_mut().find(|(host, _)| *host == service.host()) {
            Some((_, members)) => members.push(member),
            None => hosts.push((service.host(), vec![member])),
        }
    }
    for (host, members) in hosts {
        arguments.extend([
            "--route".to_owned(),
            format!("{host}={}", members.join(",")),
        ]);
    }
    arguments
}

/// Puts values in the places marked `{{name}}`; every mark must have a value.
pub fn render(template: &str, values: &[(&str, String)]) -> Result<String, String> {
    let mut rendered = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, from_name)) = rest.split_once("{{") {
        let (name, after) = from_name
            .split_once("}}")
            .ok_or_else(|| format!("an open mark: {{{{{from_name}"))?;
        let value = values.iter().find(|(one, _)| *one == name);
        let (_, value) = value.ok_or_else(|| format!("nothing is known for {{{{{name}}}}}"))?;
        rendered.push_str(before);
        rendered.push_str(value);
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

fn nginx_modules() -> Option<&'static str> {
    NGINX_MODULES
        .into_iter()
        .find(|directory| Path::new(directory).join("ngx_stream_module.so").exists())
}

/// The beginning of a command that runs on one processor only, and ends when this process does,
/// however that ends.
pub fn pinned(processor: usize) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "--cpu-list"]);
    command.arg(processor.to_string());
    command
}

/// An address that was free a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A started proxy; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    listen: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Where clients of `service` connect.
    pub fn target(&self, service: Service, load: &LoadSide) -> SocketAddr {
        if self.child.is_some() {
            self.listen
        } else {
            load.address(service)
        }
    }

    /// Takes over a pointsman that is up.
    pub fn adopt(child: Child, listen: SocketAddr) -> io::Result<Running> {
        Ok(Running {
            child: Some(child),
            listen,
            _directory: tempfile::tempdir()?,
        })
    }

    /// Checks that every thread of it may run on the proxy's processor only.
    pub fn check_pinned(&self, processors: Processors) -> io::Result<()> {
        match self.root() {
            Some(root) => machine::check_proxy_pinned(&procfs::process_tree(root)?, processors),
            None => Ok(()),
        }
    }

    /// Where the proxy listens.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Its first process, from which the others come; none without a proxy.
    pub fn root(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn wait_until_up(&mut self, log: &Path) -> io::Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        let child = self
            .child
            .as_mut()
            .expect("only a started proxy is waited for");
        while TcpStream::connect(self.listen).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("it ended: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "not up after {START_TIMEOUT:?}, see {}",
                    log.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Workers that start only now.
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // Fails if the process has ended already.
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < end {
            if let Ok(Some(_)) = child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATES: [&str; 6] = [
        include_str!("../peers/haproxy-tcp.cfg"),
        include_str!("../peers/haproxy-tcp-splice.cfg"),
        include_str!("../peers/haproxy-http.cfg"),
        include_str!("../peers/nginx-stream.conf"),
        include_str!("../peers/nginx-http.conf"),
        include_str!("../peers/sniproxy.conf"),
    ];

    fn setting() -> Setting<'static> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut port = 100;
        Setting {
            listen: at(443),
            processors: Processors { proxy: 2, load: 1 },
            directory: Path::new("/tmp/x"),
            services: Service::ALL.map(|service| {
                port += 1;
                (service, at(port))
            }),
        }
    }

    fn rendered(template: &str, peer: &Peer) -> String {
        render(template, &setting().values(peer, Listening::Tls)).expect("it renders")
    }

    #[test]
    fn every_template_renders_whole() {
        for template in TEMPLATES {
            let text = rendered(template, &Peer::Haproxy);
            assert!(!text.contains("{{"), "{text}");
            assert!(text.contains("127.0.0.1:443"), "{text}");
            assert!(!text.contains("pipesize"), "{text}");
        }
        let haproxy = rendered(TEMPLATES[1], &Peer::HaproxyPipes);
        assert!(haproxy.contains("\n    tune.pipesize 2"), "{haproxy}");
        let nginx = rendered(TEMPLATES[3], &Peer::Nginx);
        assert!(nginx.contains("worker_cpu_affinity 100;"), "{nginx}");
    }

    /// A proxy without the route would refuse its clients, and the run would fail.
    #[test]
    fn who_takes_part_has_a_route_for_every_service_of_the_scenario() {
        for scenario in crate::scenario::all() {
            for peer in Peer::OTHERS {
                let template = peer.template(scenario.listening);
                let Some(template) = template.filter(|_| peer.takes_part(&scenario)) else {
                    continue;
                };
                for (service, _) in &scenario.groups {
                    let mark = format!("{{{{{}}}}}", service.name());
                    assert!(
                        template.contains(&mark),
                        "{} has no route for {mark} of {}",
                        peer.name(),
                        scenario.name
                    );
                }
            }
        }
    }

    #[test]
    fn an_unknown_or_open_mark_is_an_error() {
        assert!(render("a {{b}}", &[]).is_err());
        assert!(render("a {{b", &[("b", String::new())]).is_err());
        assert_eq!(
            render("a {{b}} c", &[("b", "x".to_owned())]),
            Ok("a x c".to_owned())
        );
    }

    #[test]
    fn the_seed_backends_are_one_route_of_three() {
        let arguments = pointsman_arguments(Listening::Http, &setting());
        let seed = arguments
            .iter()
            .find(|one| one.starts_with("seed.bench.test="));
        assert_eq!(
            seed.map(String::as_str),
            Some("seed.bench.test=127.0.0.1:106,127.0.0.1:107,127.0.0.1:108")
        );
    }
}
