//! One option after the other, from the command line, the environment and the file.

use super::*;
use crate::config::options::OPTIONS;

/// A value of each option of HTTP that is not its default.
const HTTP_VALUES: [(&str, &str); 15] = [
    ("keep-alive-deadline", "61s"),
    ("body-deadline", "31s"),
    ("response-deadline", "62s"),
    ("response-head-bytes-max", "16KiB"),
    ("requests-per-connection-max", "9"),
    ("pool-per-backend", "8"),
    ("pool-per-core", "9"),
    ("client-finished", "abort"),
    ("pool-idle-deadline", "29s"),
    ("forwarded", "x-real-ip,forwarded"),
    ("trusted-from", "10.0.0.0/8"),
    ("h2c", "yes"),
    ("outcome-header", "no"),
    (
        "error-page",
        concat!("502=", env!("CARGO_MANIFEST_DIR"), "/LICENSE"),
    ),
    ("unknown-host", "404"),
];

#[test]
fn every_option_is_read_from_all_three_places() {
    let values = [
        ("https", "127.0.0.1:1"),
        ("http", "127.0.0.1:2"),
        ("redis", "redis://h"),
        ("route", "a=b"),
        ("routes", "/r"),
        ("cores", "0"),
        ("admin", "127.0.0.1:3"),
        ("admin-host", "admin.test"),
        ("lookup", "yes"),
        ("latency-dir", "/l"),
        ("log", "warn"),
        ("log-format", "json"),
        ("proxy-from", "10.1.0.0/16"),
        ("proxy-in", "optional"),
        ("proxy-ja4", "yes"),
        ("max-connections", "1000"),
        ("max-connections-per-client", "10"),
        ("max-rate-per-client", "20"),
        ("limit-exempt", "10.2.0.0/16"),
        ("backend-allow", "10.3.0.0/16"),
        ("balance", "random"),
        ("backend-congestion", "reno"),
        ("head-deadline", "11s"),
        ("connect-deadline", "4s"),
        ("first-byte-deadline", "5s"),
        ("connect-attempts", "4"),
        ("backend-deadline", "8s"),
        ("eject-failures", "4"),
        ("eject-share", "60"),
        ("eject-time", "3s"),
        ("eject-time-max", "2m"),
        ("queue", "64"),
        ("queue-deadline", "2s"),
        ("idle-deadline", "2h"),
        ("tcp-keep-alive", "61s"),
        ("half-closed-deadline", "70s"),
        ("drain", "31s"),
        ("hello-bytes-max", "32KiB"),
        ("request-head-bytes-max", "16KiB"),
        ("backlog", "5000"),
        ("turn-bytes", "512KiB"),
        ("pipe-bytes", "64KiB"),
        ("pipes-per-core", "8"),
        ("ring-entries", "256"),
        ("snapshot", "/s"),
        ("redis-prefix", "p:"),
        ("redis-full-comparison", "61s"),
        ("redis-ping", "3s"),
        ("redis-ping-timeout", "4s"),
        ("redis-hold", "11s"),
        ("redis-ca", "/ca"),
        ("dns-server", "192.0.2.53:53"),
        ("dns-ttl-min", "6s"),
        ("dns-ttl-max", "6m"),
        ("kernel-mask", "5.10"),
        ("debug-faults", "yes"),
    ];
    let values: Vec<_> = values.into_iter().chain(HTTP_VALUES).collect();
    let named: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let listed = OPTIONS.iter().map(|spec| spec.name);
    let unread: Vec<&str> = listed
        // Those of unwrap stand beside none of routing and have a test of their own.
        .filter(|name| !["config", "listen", "to"].contains(name) && !named.contains(name))
        .collect();
    assert_eq!(unread, [""; 0], "add them here");

    let flags: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let from_flags = format!("{:?}", checked(&flags, &[]));

    let names: Vec<String> = named
        .iter()
        .map(|name| option(name).unwrap().environment_name())
        .collect();
    let environment: Vec<(&str, &str)> = names
        .iter()
        .zip(values.clone())
        .map(|(name, (_, value))| (name.as_str(), value))
        .collect();
    assert_eq!(format!("{:?}", checked(&[], &environment)), from_flags);

    let text: String = values
        .iter()
        .map(|(name, value)| format!("{name} = {value:?}\n"))
        .collect();
    let file = file(&text);
    let from_file = format!("{:?}", checked(&["--config", name(&file)], &[]));
    assert_eq!(from_file, from_flags);

    // Each value differs from the default, so an option that the check forgets shows here.
    for (name, value) in values {
        let fewer: Vec<&str> = flags
            .iter()
            .copied()
            .filter(|flag| *flag != format!("--{name}={value}"))
            .collect();
        let without = typed(&fewer, &[]).unwrap().validate(&machine());
        let without = without.map(|config| format!("{config:?}"));
        assert_ne!(without.as_ref(), Ok(&from_flags), "{name} is not read");
    }
}
