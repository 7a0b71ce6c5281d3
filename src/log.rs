//! The log: one line per event on standard error. A thread of its own writes it, so that no core waits when
//! standard error is read slowly. Lines for which there is no room are dropped and counted.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::SocketAddr;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::protocol::Protocol;

/// How many lines may wait for the thread that writes them; about 2 MB. Further lines are dropped.
const WAITING_LINES_MAX: usize = 8192;

/// The log of this process, for as long as this lives. Its drop writes the lines that wait, for about a
/// second at most.
pub(crate) struct Log {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// When the process has a log already.
    pub(crate) fn start(
        settings: LogSettings,
    ) -> Result<Log, tracing::subscriber::SetGlobalDefaultError> {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        tracing::subscriber::set_global_default(subscriber(settings, writer))?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(Log {
            dropped,
            _writer: guard,
        })
    }

    /// A function that reads how many lines were dropped because standard error was not read in time.
    pub(crate) fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as u64
    }
}

fn subscriber<W>(settings: LogSettings, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Of other crates only warnings and errors concern an operator.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("pointsman", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(writer);
    let lines = match settings.format {
        LogFormat::Text => lines.event_format(Logfmt).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

/// The line that says that clients are served. As text it is `ready https=127.0.0.1:8443
/// http=[::1]:8080 admin=127.0.0.1:9000`, in this order, with a word for each address. As JSON it is a log
/// line with a list of addresses for each of these words.
pub(crate) fn ready_line(
    format: LogFormat,
    listeners: &[(Protocol, SocketAddr)],
    admin: Option<SocketAddr>,
) -> String {
    let words = [
        (Protocol::Tls, "https"),
        (Protocol::Http, "http"),
        (Protocol::Tcp, "listen"),
    ];
    let of = |protocol| {
        let fits = move |(of, _): &&(Protocol, SocketAddr)| *of == protocol;
        listeners.iter().filter(fits).map(|(_, address)| *address)
    };
    let mut fields: Vec<(&str, Vec<SocketAddr>)> = words
        .map(|(protocol, word)| (word, of(protocol).collect()))
        .into();
    fields.push(("admin", admin.into_iter().collect()));
    fields.retain(|(_, addresses)| !addresses.is_empty());
    match format {
        LogFormat::Text => {
            let mut line = String::from("ready");
            for (word, addresses) in fields {
                for address in addresses {
                    write!(line, " {word}={address}").expect("a String takes everything");
                }
            }
            line
        }
        LogFormat::Json => {
            let mut line = json_line("INFO", "ready");
            let lists = fields.into_iter().map(|(word, addresses)| {
                let addresses = addresses.iter().map(SocketAddr::to_string).collect();
                (word.to_owned(), addresses)
            });
            line.extend(lists);
            serde_json::Value::from(line).to_string()
        }
    }
}

/// Says why the process ends without having been told to: as text a line per line of the cause, as JSON one
/// line.
pub(crate) fn failure_line(format: LogFormat, cause: &str) -> String {
    match format {
        LogFormat::Text => {
            let lines: Vec<String> = cause
                .lines()
                .map(|line| format!("pointsman: {line}"))
                .collect();
            lines.join("\n")
        }
        LogFormat::Json => serde_json::Value::from(json_line("ERROR", cause)).to_string(),
    }
}

/// The fields that every line of the JSON log has.
fn json_line(level: &str, message: &str) -> serde_json::Map<String, serde_json::Value> {
    let mut time = String::new();
    // When the time cannot be formatted, the line has none.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let pairs = [
        ("timestamp", time.as_str()),
        ("level", level),
        ("message", message),
        ("target", "pointsman"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.into()));
    pairs.into_iter().collect()
}

/// Writes a line to standard error at once, whatever the log level is and however many lines wait. A closed
/// standard error is no error.
pub(crate) fn print_line(line: &str) {
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}

/// Logs a panic. The standard library would print several lines in a format of its own.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        at = panic.location().map(tracing::field::display),
        "panic: {}",
        panic.payload_as_str().unwrap_or("without a message")
    );
}

/// Lines like `time=… level=… target=… message="…" key=value`. Values are escaped, so that none of them can
/// end its line or its quotes.
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        out.write_str("time=")?;
        SystemTime.format_time(&mut out)?;
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(out, " level={level} target={}", metadata.target())?;
        let mut pairs = Pairs {
            out: &mut out,
            result: Ok(()),
        };
        event.record(&mut pairs);
        pairs.result?;
        writeln!(out)
    }
}

struct Pairs<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Pairs<'_, '_> {
    fn pair(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() {
            self.result = write_pair(self.out, field.name(), value);
        }
    }
}

impl Visit for Pairs<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.pair(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field, &format!("{value:?}"));
    }
}

fn write_pair(out: &mut Writer<'_>, name: &str, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(plain) {
        return write!(out, " {name}={value}");
    }
    write!(out, " {name}=\"{}\"", value.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: LogSettings, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(settings, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        lines.text()
    }

    #[test]
    fn whatever_a_value_holds_it_stays_on_one_line() {
        let text = logged(LogSettings::default(), || {
            let evil = "a\nlevel=error \"b\"\x1b[2J";
            tracing::info!(target: "pointsman::sync", host = evil, count = 3, plain = "a.test",
                "routes\nchanged {evil}");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.ends_with('\n') && text.starts_with("time="));
        assert!(text.contains(" level=info target=pointsman::sync message=\"routes\\nchanged"));
        assert!(text.contains(" count=3 plain=a.test"));
        assert!(
            text.contains("host=\"a\\nlevel=error \\\"b\\\"\\u{1b}[2J\""),
            "{text}"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let settings = LogSettings {
            format: LogFormat::Json,
            ..LogSettings::default()
        };
        let text = logged(settings, || {
            tracing::warn!(target: "pointsman", host = "a\nb", "one\ntwo");
        });
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "one\ntwo");
        assert_eq!(line["host"], "a\nb");
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn details_of_other_crates_stay_out() {
        let events = || {
            tracing::debug!(target: "pointsman::conn", "ours");
            tracing::info!(target: "hickory_resolver", "theirs");
            tracing::warn!(target: "hickory_resolver", "warning");
        };
        let settings = |level| LogSettings {
            level,
            ..LogSettings::default()
        };
        let text = logged(settings(LogLevel::Trace), events);
        assert!(text.contains("ours") && text.contains("warning") && !text.contains("theirs"));
        let text = logged(settings(LogLevel::Info), events);
        assert!(!text.contains("ours") && text.contains("warning"));
        assert_eq!(logged(settings(LogLevel::Error), events), "");
    }

    #[test]
    fn the_ready_line_names_every_address() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listeners = [
            (Protocol::Http, address("127.0.0.1:8080")),
            (Protocol::Tls, address("127.0.0.1:8443")),
            (Protocol::Tls, address("[::1]:8443")),
        ];
        let admin = Some(address("127.0.0.1:9000"));
        assert_eq!(
            ready_line(LogFormat::Text, &listeners, admin),
            "ready https=127.0.0.1:8443 https=[::1]:8443 http=127.0.0.1:8080 admin=127.0.0.1:9000"
        );
        assert_eq!(ready_line(LogFormat::Text, &[], None), "ready");

        let line = ready_line(LogFormat::Json, &listeners, admin);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "ready");
        let https = serde_json::json!(["127.0.0.1:8443", "[::1]:8443"]);
        assert_eq!(line["https"], https);
        assert_eq!(line["admin"], serde_json::json!(["127.0.0.1:9000"]));
        assert_eq!(line["listen"], serde_json::Value::Null);
    }
}
