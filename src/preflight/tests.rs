//! The report about other machines than the one that runs the tests.

use std::ffi::OsString;
use std::fs;

use super::*;
use crate::config::{Machine, read};

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 1048576              files
Max locked memory         65536                524288               bytes
";

/// A machine that lacks nothing.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        (
            "self/status",
            "Name:\tx\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
        ),
        ("self/limits", LIMITS),
        ("sys/net/core/somaxconn", "4096\n"),
        ("sys/fs/pipe-user-pages-soft", "0\n"),
        ("sys/fs/pipe-max-size", "2097152\n"),
        ("sys/net/ipv4/ip_unprivileged_port_start", "1024\n"),
        ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ] {
        set(&root, path, text);
    }
    root
}

fn set(root: &tempfile::TempDir, path: &str, text: &str) {
    let path = root.path().join("proc").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn config(arguments: &[&str]) -> Config {
    let typical = [
        "pointsman",
        "--route",
        "a.test=127.0.0.1:1",
        "--https",
        ":8443",
    ];
    let arguments = typical.iter().chain(arguments).map(OsString::from);
    let (_, typed) = read(arguments, []).unwrap();
    let machine = Machine {
        allowed_cores: vec![0, 1],
    };
    typed.validate(&machine).unwrap()
}

fn found(summary: &str) -> FoundRoutes {
    FoundRoutes {
        summary: summary.to_owned(),
        sources: SourceAddresses::default(),
    }
}

const FINE: Trials<'_> = Trials {
    ring: &|_| Ok(String::from("there")),
    redis: &|_| Ok(found("answers")),
    routes: &|_| Ok(found("3 routes")),
    address: &|_| Ok(()),
    threads: &|_| Ok(()),
    run: &|command| Err(command.join(" ")),
};

fn item(report: &Report, name: &str) -> Item {
    let found = report.items.iter().find(|item| item.name == name);
    found
        .unwrap_or_else(|| panic!("no {name} in\n{report}"))
        .clone()
}

#[test]
fn on_a_good_machine_all_is_well() {
    let root = machine();
    let config = config(&["--redis", "redis://u:hush@h", "--routes", "/r"]);
    let report = report_below(root.path(), &config, &FINE);
    assert!(
        report.items.iter().all(|item| item.verdict == Verdict::Ok),
        "{report}"
    );
    assert_eq!(report.exit_code(), 0);
    assert_eq!(report.to_string().lines().count(), report.items.len());
    assert!(!report.to_string().contains("hush"));
}

#[test]
fn each_shortcoming_is_found_and_has_a_remedy() {
    use Verdict::{Fail, Warn};
    for (path, text, arguments, name, verdict) in [
        ("sys/kernel/osrelease", "5.4.0", &[][..], "kernel", Fail),
        (
            "self/status",
            "CapEff:\t0\nSeccomp:\t2\n",
            &[],
            "seccomp",
            Warn,
        ),
        (
            "self/limits",
            "Max open files 256 1024 files\n",
            &[],
            "open files",
            Warn,
        ),
        ("self/limits", "", &[], "open files", Warn),
        (
            "self/limits",
            "Max locked memory 65536 65536 bytes\n",
            &[],
            "locked memory",
            Fail,
        ),
        (
            "sys/kernel/osrelease",
            "5.10.46",
            &[],
            "locked memory",
            Warn,
        ),
        ("sys/net/core/somaxconn", "128", &[], "backlog", Warn),
        ("sys/fs/pipe-user-pages-soft", "16384", &[], "pipes", Warn),
        ("sys/fs/pipe-max-size", "65536", &[], "pipes", Warn),
        (
            "sys/net/ipv4/ip_local_port_range",
            "1024 65535",
            &[],
            "local ports",
            Warn,
        ),
        (
            "self/limits",
            "Max open files 20 20 files\n",
            &[],
            "open files",
            Fail,
        ),
        ("net/ignored", "", &["--http", ":80"], "low ports", Fail),
    ] {
        let root = machine();
        set(&root, path, text);
        let report = report_below(root.path(), &config(arguments), &FINE);
        let item = item(&report, name);
        assert_eq!(item.verdict, verdict, "{path} {arguments:?}\n{report}");
        assert!(item.to_string().contains("; "), "{report}");
        assert_eq!(report.exit_code(), u8::from(verdict == Fail), "{report}");
    }
}

#[test]
fn directories_are_looked_at() {
    use Verdict::{Refused, Warn};
    let root = machine();
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("file");
    fs::write(&file, "").unwrap();
    let (missing, below_file) = (own.path().join("missing"), file.join("s"));
    for (option, path, verdict, code) in [
        ("latency-dir", own.path(), Verdict::Ok, 0),
        ("latency-dir", &missing, Warn, 0),
        ("latency-dir", &file, Refused, 2),
        ("latency-dir", &below_file, Refused, 2),
        ("snapshot", &own.path().join("s"), Verdict::Ok, 0),
        ("snapshot", &missing.join("s"), Warn, 0),
        ("snapshot", &below_file, Warn, 0),
    ] {
        let arguments = [&format!("--{option}"), path.to_str().unwrap()];
        let report = report_below(root.path(), &config(&arguments), &FINE);
        assert_eq!(item(&report, option).verdict, verdict, "{path:?}\n{report}");
        assert_eq!(report.exit_code(), code, "{report}");
    }
}

#[test]
fn an_address_that_the_machine_lacks_is_fatal_unless_it_is_the_other_half() {
    let root = machine();
    let bind = |address: SocketAddr| {
        if address.is_ipv4() {
            return Ok(());
        }
        Err(BindError {
            address,
            cause: std::io::Error::from_raw_os_error(libc::EAFNOSUPPORT),
        })
    };
    let no_v6 = Trials {
        address: &bind,
        ..FINE
    };
    let verdict = |arguments: &[&str]| {
        let report = report_below(root.path(), &config(arguments), &no_v6);
        (item(&report, "addresses").verdict, report.exit_code())
    };
    assert_eq!(verdict(&[]), (Verdict::Warn, 0));
    assert_eq!(verdict(&["--http", "[::1]:0"]), (Verdict::Fail, 1));
    assert_eq!(verdict(&["--admin", "[::1]:0"]), (Verdict::Fail, 1));
}

#[test]
fn what_root_may_do_is_no_shortcoming() {
    let root = machine();
    set(
        &root,
        "self/status",
        "CapEff:\t000001ffffffffff\nSeccomp:\t0\n",
    );
    set(&root, "sys/fs/pipe-user-pages-soft", "16384");
    set(&root, "self/limits", &LIMITS.replace("524288 ", "65536 "));
    let report = report_below(root.path(), &config(&["--http", ":80"]), &FINE);
    assert!(
        report.items.iter().all(|item| item.verdict == Verdict::Ok),
        "{report}"
    );
}

#[test]
fn a_reserved_port_is_safe() {
    let root = machine();
    set(&root, "sys/net/ipv4/ip_local_port_range", "1024 65535");
    set(
        &root,
        "sys/net/ipv4/ip_local_reserved_ports",
        "80,8000-9000",
    );
    let report = report_below(root.path(), &config(&[]), &FINE);
    assert_eq!(item(&report, "local ports").verdict, Verdict::Ok);
}

#[test]
fn trials_that_fail_say_why() {
    let root = machine();
    let trials = Trials {
        ring: &|_| Err(String::from("switched off; switch it on")),
        redis: &|_| Err(String::from("refused; start it")),
        ..FINE
    };
    let with_route = config(&["--redis", "redis://h"]);
    let report = report_below(root.path(), &with_route, &trials);
    assert_eq!(report.exit_code(), 1);
    assert!(
        report
            .to_string()
            .contains("FAIL  io_uring       switched off; switch it on\n")
    );
    assert_eq!(item(&report, "redis").verdict, Verdict::Warn);
    let mut only_redis = with_route;
    only_redis.sync.static_routes.clear();
    let report = report_below(root.path(), &only_redis, &trials);
    assert_eq!(item(&report, "redis").verdict, Verdict::Fail);
    let trials = Trials {
        routes: &|_| Err(String::from("f:3: no members; add one\nf:7: no port")),
        threads: &|_| Err(String::from("none left; raise the limit")),
        ..FINE
    };
    let report = report_below(root.path(), &config(&[]), &trials);
    assert_eq!(item(&report, "threads").verdict, Verdict::Fail);
    assert_eq!(item(&report, "routes").verdict, Verdict::Refused);
    let mistakes = report.items.iter().filter(|item| item.name == "routes");
    assert_eq!(mistakes.count(), 2, "{report}");
    assert_eq!(report.exit_code(), 2, "the configuration comes first");
}

#[test]
fn this_machine_can_be_looked_at() {
    let report = super::report(&config(&[]));
    assert_eq!(item(&report, "kernel").verdict, Verdict::Ok, "{report}");
}

#[test]
fn a_refused_configuration_is_a_report_too() {
    let (_, typed) = read(["pointsman", "check"].map(OsString::from), []).unwrap();
    let machine = Machine {
        allowed_cores: vec![0],
    };
    let report = Report::of_errors(&typed.validate(&machine).unwrap_err());
    assert_eq!(report.exit_code(), 2);
    assert!(
        report
            .to_string()
            .starts_with("FAIL  configuration  https, http: there is no address")
    );
}
