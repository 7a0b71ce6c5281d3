//! Both stages together, as an operator sees them.

mod pages;
mod places;
mod unwrap;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::options::option;
use super::value::path;
use super::*;
use crate::protect::LimitSettings;
use crate::protocol::Protocol;
use crate::route::{Balance, Key};

const MINIMAL: [&str; 4] = ["--https", "127.0.0.1:0", "--route", "a.test=127.0.0.1:1"];

fn machine() -> Machine {
    Machine {
        allowed_cores: vec![0, 1],
    }
}

fn typed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Typed, clap::Error> {
    let arguments = ["pointsman"].iter().chain(arguments).map(OsString::from);
    let environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    read(arguments, environment).map(|(_, typed)| typed)
}

fn checked(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
    typed(arguments, environment)
        .unwrap()
        .validate(&machine())
        .unwrap()
}

/// What the operator reads about a wrong configuration.
fn mistakes(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    match typed(arguments, environment) {
        Ok(typed) => typed.validate(&machine()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn name(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn static_route((key, entry): (&str, &str)) -> StaticRoute {
    StaticRoute {
        key: Key::parse(key).unwrap(),
        entry: entry.to_owned(),
    }
}

#[test]
fn the_defaults_in_the_help_are_the_defaults() {
    let config = checked(&MINIMAL, &[]);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(
        config.sync.static_routes,
        [static_route(("a.test", "127.0.0.1:1"))]
    );
    assert_eq!(config.sync.redis, None);
    assert_eq!(config.log, LogSettings::default());
    assert_eq!(config.balance, Balance::default());
    let nobody = ProxySettings {
        from: Vec::new(),
        required: true,
        ja4: false,
    };
    assert_eq!(config.proxy, nobody);
    assert_eq!(config.client_limits, LimitSettings::default());
    assert_eq!(config.cores, [0, 1]);
    assert_eq!((config.admin, config.latency_dir), (None, None));
    assert_eq!(config.kernel_mask, None);
    assert!(!config.debug_faults && !config.lookup);
}

#[test]
fn the_command_line_goes_before_environment_file_and_default() {
    let file = file("drain = \"3s\"\nbacklog = 3\nhead-deadline = \"3s\"\n");
    let with_file = [&MINIMAL[..], &["--config", name(&file)]].concat();
    let environment = [("POINTSMAN_DRAIN", "2s"), ("POINTSMAN_BACKLOG", "2")];
    let limits = checked(&[&with_file[..], &["--drain", "1s"]].concat(), &environment).limits;
    assert_eq!(limits.drain, Duration::from_secs(1));
    assert_eq!(limits.backlog, 2);
    assert_eq!(limits.head_deadline, Duration::from_secs(3));
    assert_eq!(limits.connect_deadline, Limits::default().connect_deadline);
    // One of them goes by another.
    let limits = checked(&[&MINIMAL[..], &["--connect-deadline", "1s"]].concat(), &[]).limits;
    assert_eq!(limits.first_byte_deadline, Duration::from_secs(1));
}

#[test]
fn a_repeatable_option_is_taken_whole_from_one_source() {
    let file = file("https = [\"127.0.0.1:3\", \"127.0.0.1:4\"]\nroute = \"file.test=unix:/s\"\n");
    let config = checked(
        &["--config", name(&file), "--http", ":80"],
        &[(
            "POINTSMAN_ROUTE",
            "a.test=[::1]:1,127.0.0.1:2; default:http=unix:/run/b",
        )],
    );
    let ports: Vec<u16> = config
        .listeners
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    assert_eq!(ports, [3, 4, 80, 80]);
    assert!(!config.listeners[3].required && config.listeners[3].address.is_ipv6());
    let routes = [
        ("a.test", "[::1]:1"),
        ("a.test", "127.0.0.1:2"),
        ("default:http", "unix:/run/b"),
    ];
    assert_eq!(config.sync.static_routes, routes.map(static_route));
}

#[test]
fn the_file_may_be_named_in_the_environment() {
    let file = file("https = \"127.0.0.1:0\"\nroute = \"a.test=127.0.0.1:1\"\ncores = \"1\"\n");
    let config = checked(&[], &[("POINTSMAN_CONFIG", name(&file))]);
    assert_eq!(config.cores, [1]);
}

#[test]
fn mistakes_say_where_what_and_the_remedy() {
    let drain = "is no duration";
    assert!(
        mistakes(&[&MINIMAL[..], &["--drain", "soon"]].concat(), &[])
            .starts_with("--drain: \"soon\" is no duration")
    );
    let from_environment = mistakes(&MINIMAL, &[("POINTSMAN_DRAIN", "soon")]);
    assert!(
        from_environment.starts_with("POINTSMAN_DRAIN: \"soon\""),
        "{from_environment}"
    );
    assert!(from_environment.contains(drain) && from_environment.contains("; write it like"));
    let file = file("# first line\nbacklog = 5\ndrain = \"soon\"\n");
    let from_file = mistakes(&[&MINIMAL[..], &["--config", name(&file)]].concat(), &[]);
    assert!(
        from_file.starts_with(&format!("{}:3: drain: \"soon\"", name(&file))),
        "{from_file}"
    );
}

#[test]
fn unknown_names_are_refused_wherever_they_are() {
    let flag = mistakes(&[&MINIMAL[..], &["--drian", "1s"]].concat(), &[]);
    assert!(
        flag.contains("--drian") && flag.contains("--drain"),
        "{flag}"
    );
    let variable = mistakes(&MINIMAL, &[("POINTSMAN_DRIAN", "1s")]);
    assert!(
        variable.starts_with("POINTSMAN_DRIAN: there is no such option; write POINTSMAN_DRAIN"),
        "{variable}"
    );
    for (text, expected) in [
        (
            "drian = \"1s\"",
            ":1: there is no option \"drian\"; write drain",
        ),
        (
            "\nhead_deadline = \"1s\"",
            ":2: there is no option \"head_deadline\"; write head-deadline",
        ),
        (
            "[limits]\ndrain = \"1s\"",
            ":1: there is no option \"limits\"; remove the line in brackets",
        ),
        ("config = \"x\"", ":1: a file cannot name another file;"),
        ("drain = [\"1s\"]", ":1: takes one value, not a list;"),
        ("drain = 1.5", ":1: drain: the value is neither"),
        ("https = [true]", ":1: https: the value is neither"),
        ("backlog = 1\nbacklog = 2", ":2: not TOML: duplicate key"),
        ("drain = \"1s", ":1: not TOML:"),
    ] {
        let file = file(text);
        let got = mistakes(&[&MINIMAL[..], &["--config", name(&file)]].concat(), &[]);
        assert!(got.contains(expected), "{got}\nfor {text:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pointsman.toml");
    let path = path.to_str().unwrap();
    let missing = mistakes(&["--config", path], &[]);
    assert!(
        missing.starts_with(&format!("--config: {path} cannot be read:")),
        "{missing}"
    );
    assert_eq!(
        missing.lines().count(),
        1,
        "what it may hold is not missing"
    );
    let subcommand = mistakes(&["chekc"], &[]);
    assert!(subcommand.contains("'check'"), "{subcommand}");
}

#[test]
fn all_that_is_wrong_is_told_in_the_order_of_its_places() {
    let file = file(
        "queue = \"many\"\nhttps = [\"127.0.0.1:x\", \"127.0.0.1:1\"]\nbaklog = 5\n\
         drain = [\"1s\"]\nbacklog = 0\nlookup = \"yes\"\ndns-ttl-min = \"1h\"\n\
         head-deadline = 1.5\nredis = \"http://h\"\nbalance = \"best\"\n",
    );
    let arguments = ["--config", name(&file), "--ring-entries", "100"];
    let environment = [("POINTSMAN_DRIAN", "1s"), ("POINTSMAN_QUEUE_DEADLINE", "1")];
    let text = mistakes(&arguments, &environment);
    let told: Vec<&str> = text.lines().collect();
    let of_file = [
        ":1: queue: \"many\" is no whole number;",
        ":2: https: \"127.0.0.1:x\" is no address;",
        ":3: there is no option \"baklog\"; write backlog",
        ":4: takes one value, not a list;",
        ":5: backlog: \"0\" is out of bounds;",
        ":6: lookup: /client needs an admin endpoint",
        ":7: dns-ttl-min: is longer than dns-ttl-max;",
        ":8: head-deadline: the value is neither",
        ":9: redis: ",
        ":10: balance: \"best\" is not known;",
    ];
    let expected = [
        "--ring-entries: 100",
        "POINTSMAN_DRIAN: ",
        "POINTSMAN_QUEUE_DEADLINE: ",
    ];
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.starts_with(expected), "{text}");
    }
    for (line, expected) in told[expected.len()..].iter().zip(of_file) {
        let expected = format!("{}{expected}", name(&file));
        assert!(line.starts_with(&expected), "{line}\n is not {expected}");
    }
    assert_eq!(told.len(), expected.len() + of_file.len(), "{text}");
}

#[test]
fn what_follows_from_a_fault_is_no_fault_of_its_own() {
    for (arguments, told) in [
        (&["--https", "x", "--route", "a"][..], 2),
        (
            &[
                "--https",
                ":1",
                "--route",
                "a=b",
                "--lookup=yes",
                "--admin=x",
            ],
            1,
        ),
        (
            &[
                "--https",
                ":1",
                "--routes=/r",
                "--dns-ttl-max=x",
                "--dns-ttl-min=1h",
            ],
            1,
        ),
        (
            &[
                "--https",
                ":1",
                "--redis=x",
                "--proxy-in=optional",
                "--proxy-from=x",
            ],
            2,
        ),
        (
            &[
                "--https",
                ":1",
                "--redis=x",
                "--limit-exempt=::1",
                "--max-rate-per-client=x",
            ],
            2,
        ),
        (&["unwrap", "--listen=x", "--to=x", "--proxy-from=x"], 3),
        (&["unwrap"], 3),
        (&[], 2),
    ] {
        let text = mistakes(arguments, &[]);
        assert_eq!(text.lines().count(), told, "{arguments:?}\n{text}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    checked(
        &MINIMAL,
        &[
            ("PATH", "/bin"),
            ("POINTSMAN_SERVICE_HOST", "10.0.0.1"),
            ("POINTSMAN_PORT", "tcp://10.0.0.1:80"),
            ("POINTSMAN_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("POINTSMAN_DRAIN", ""),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn combinations_that_make_no_sense() {
    let none = mistakes(&["--route", "a=b"], &[]);
    assert!(
        none.contains("no address to listen on; add --https"),
        "{none}"
    );
    let nowhere = mistakes(&["--https", ":0"], &[]);
    assert!(
        nowhere.contains("no source of routes; add --redis"),
        "{nowhere}"
    );
    for (arguments, expected) in [
        (
            &["--http", ":81", "--https", ":81"][..],
            "0.0.0.0:81 is there twice",
        ),
        (
            &["--http", "127.0.0.1:81", "--admin", "127.0.0.1:81"],
            "--admin: 127.0.0.1:81 is an address for clients already",
        ),
        (
            &["--proxy-in", "optional"],
            "--proxy-in: no sender of PROXY headers is trusted; name the senders with --proxy-from",
        ),
        (
            &["--proxy-from", "10.1.0.1/16"],
            "--proxy-from: \"10.1.0.1/16\" has bits behind its prefix; write 10.1.0.0/16",
        ),
        (
            &["--proxy-from", "::1", "--proxy-in", "sometimes"],
            "--proxy-in: \"sometimes\" is not known; write one of required, optional",
        ),
        (
            &["--dns-ttl-min", "1m", "--dns-ttl-max", "1s"],
            "--dns-ttl-min: is longer",
        ),
        (
            &["--ring-entries", "100"],
            "--ring-entries: 100 is no power of two; write 128",
        ),
        (
            &["--cores", "7"],
            "--cores: this process may not use processor 7; choose among [0, 1]",
        ),
        (
            &["--route", "no-member"],
            "--route: \"no-member\" has no equals sign",
        ),
        (&["--route", "a=b,"], "has a wrong member"),
        (&["--route", "=b"], "has no host"),
        (&["--route", "a..b=c"], "has a wrong host"),
        (
            &["--route", "default:ftp=c"],
            "default:https and default:http",
        ),
        (&["--route", "a=c:0"], "has a wrong member"),
        (&["--lookup", "yes"], "add --admin ADDR"),
        (
            &["--route", "a=c proxy=v2 wait=1"],
            "\"wait=1\" is not known",
        ),
        (
            &["--log", "loud"],
            "--log: \"loud\" is not known; write one of error, warn",
        ),
        (
            &["--balance", "best"],
            "write one of p2c, least, round-robin, random, source, first",
        ),
        (
            &["--kernel-mask", "old"],
            "--kernel-mask: \"old\" is no kernel version",
        ),
        (&["--snapshot", ""], "--snapshot: is no path"),
        (
            &["--hello-bytes-max", "1"],
            "--hello-bytes-max: \"1\" is out of bounds",
        ),
    ] {
        let got = mistakes(&[&MINIMAL[..], arguments].concat(), &[]);
        assert!(got.contains(expected), "{got}\nfor {arguments:?}");
    }
}

#[test]
fn the_password_of_redis_appears_in_no_error_and_no_debug_print() {
    for url in [
        "rediss://u:hush@h:0",
        "u:hush@h",
        "redis://u:hu/sh@hush",
        "ftp://u:hush@h",
    ] {
        let text = mistakes(&[&MINIMAL[..], &["--redis", url]].concat(), &[]);
        assert!(
            text.starts_with("--redis: ") && !text.contains("hush"),
            "{text}"
        );
    }
    let config = checked(&["--http", ":0", "--redis", "redis://u:hush@h"], &[]);
    assert!(!format!("{config:?}").contains("hush"));
    let broken = file("redis = \"redis://u:hush@h\" oops\n");
    let text = mistakes(&["--config", name(&broken)], &[]);
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn subcommands_take_options_on_either_side() {
    for arguments in [["check", "--drain", "1s"], ["--drain", "1s", "check"]] {
        let arguments = ["pointsman"]
            .into_iter()
            .chain(arguments)
            .map(OsString::from);
        let (action, typed) = read(arguments, []).unwrap();
        assert_eq!(action, Action::Check);
        assert!(typed.is_set("drain"));
    }
    let (action, mut typed) = read(
        ["pointsman", "demo", "--http", ":0"].map(OsString::from),
        [],
    )
    .unwrap();
    assert_eq!(action, Action::Demo);
    typed.set_default("demo", "http", &["127.0.0.1:8080".into()]);
    typed.set_default("demo", "https", &["127.0.0.1:8443".into()]);
    typed.set_default("demo", "route", &["one.localhost=127.0.0.1:1".into()]);
    let config = typed.validate(&machine()).unwrap();
    let ports: Vec<u16> = config
        .listeners
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    assert_eq!(ports, [8443, 0, 0]);
    let arguments = ["pointsman", "--latency-dir", "/tmp/x"].map(OsString::from);
    assert_eq!(read(arguments, []).unwrap().0, Action::Run);
    assert_eq!(path("/tmp/x"), Ok(PathBuf::from("/tmp/x")));
}

#[test]
fn help_and_version_are_no_mistakes() {
    for flag in ["--help", "--version"] {
        let Err(error) = typed(&[flag], &[]) else {
            panic!("{flag} is not answered");
        };
        assert_eq!(error.exit_code(), 0);
    }
    let Err(error) = typed(&["--help"], &[]) else {
        panic!("--help is not answered");
    };
    let help = error.to_string();
    assert!(
        help.contains("[default: 10s; env: POINTSMAN_HEAD_DEADLINE]"),
        "{help}"
    );
    assert!(!help.contains("kernel-mask") && !help.contains("debug-faults"));
}
