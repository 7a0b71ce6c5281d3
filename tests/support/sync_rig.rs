//! The sync thread without a proxy, and a copy of the table that it publishes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pointsman::internals::config::SyncSettings;
use pointsman::internals::host::Host;
use pointsman::internals::protocol::Protocol;
use pointsman::internals::route::{Route, Table};
use pointsman::internals::sync::{self, RedisState, SyncHandle};

use super::redis::RedisServer;

/// Within this time a change arrives on loopback.
pub const SOON: Duration = Duration::from_secs(1);

/// Within this time the thread has connected again, back-off included.
pub const LATER: Duration = Duration::from_secs(8);

/// Everything that this process logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct LogWriter;

impl std::io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn logged() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

pub struct Rig {
    pub handle: SyncHandle,
    pub view: Arc<Mutex<Table>>,
}

impl Rig {
    pub fn start(settings: SyncSettings) -> Rig {
        let rig = Rig::start_unready(settings);
        assert!(rig.handle.wait_first_table(LATER), "no first table");
        rig
    }

    pub fn start_unready(settings: SyncSettings) -> Rig {
        Rig::start_watched(settings, |_| {})
    }

    /// Calls `watch` with every table that is published.
    pub fn start_watched(settings: SyncSettings, watch: impl Fn(&Table) + Send + 'static) -> Rig {
        // Succeeds in the first test of the process, for all of them.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| LogWriter)
            .try_init();
        let view = Arc::new(Mutex::new(Table::new()));
        let core = Arc::clone(&view);
        let publish = Box::new(move |update: Arc<_>| {
            let mut view = core.lock().unwrap();
            view.apply(&update);
            watch(&view);
        });
        let handle = sync::start(settings, publish).unwrap();
        Rig { handle, view }
    }

    pub fn members(&self, name: &str) -> String {
        members(&self.view.lock().unwrap(), name)
    }

    pub fn wait(&self, within: Duration, what: &str, true_now: impl Fn(&Rig) -> bool) {
        let deadline = Instant::now() + within;
        while !true_now(self) {
            let status = self.handle.status();
            assert!(Instant::now() < deadline, "{what} did not come; {status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn expect(&self, within: Duration, name: &str, members: &str) {
        let what = format!("{name} at {members:?}");
        self.wait(within, &what, |rig| rig.members(name) == members);
    }

    pub fn expect_state(&self, within: Duration, state: RedisState) {
        self.wait(within, state.name(), |rig| {
            rig.handle.status().redis == state
        });
    }
}

/// The members of a name's route, sorted and joined; empty without a route.
pub fn members(view: &Table, name: &str) -> String {
    let route = match name {
        "default:https" => view.default_route(Protocol::Tls),
        "default:http" => view.default_route(Protocol::Http),
        name => view.lookup(&Host::from_operator(name).unwrap()),
    };
    route.map_or(String::new(), |route| texts(route))
}

fn texts(route: &Route) -> String {
    let mut texts: Vec<&str> = route.backends().iter().map(|one| one.text()).collect();
    texts.sort_unstable();
    texts.join(" ")
}

/// Intervals short enough for a test. The full comparison is so rare that it hides no missed change.
pub fn settings(url: impl AsRef<str>) -> SyncSettings {
    let options = [
        ("redis", url.as_ref()),
        ("redis-full-comparison", "10m"),
        ("redis-ping", "200ms"),
        ("redis-ping-timeout", "300ms"),
        ("redis-hold", "1500ms"),
    ];
    SyncSettings::of_options(&options).unwrap()
}

/// Settings with these values of `--route` and without Redis.
pub fn static_routes<R: AsRef<str>>(routes: impl IntoIterator<Item = R>) -> SyncSettings {
    let routes: Vec<R> = routes.into_iter().collect();
    let options: Vec<_> = routes
        .iter()
        .map(|route| ("route", route.as_ref()))
        .collect();
    SyncSettings::of_options(&options).unwrap()
}

/// What `pointsman check` finds out about the Redis at this URL.
pub fn try_redis(url: impl AsRef<str>) -> Result<String, String> {
    sync::try_redis(&settings(url).redis.unwrap())
}

pub fn seed(server: &RedisServer, hosts: std::ops::Range<usize>) {
    let commands: Vec<String> = hosts
        .map(|n| format!("SADD hostnames:h{n}.test:backends 10.0.0.{}:80", n % 250))
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    server.run(&commands);
}
