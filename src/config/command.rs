//! The command line, as clap reads it and prints its help.

use clap::{Arg, ArgAction, Command};

use super::options::OPTIONS;

/// Made of [`OPTIONS`].
pub(super) fn command() -> Command {
    let arguments = OPTIONS.iter().map(|spec| {
        let environment = spec.environment_name();
        let help = match (spec.default, spec.repeatable) {
            ("", true) => format!(
                "{} [repeatable; env: {environment}, separated by ;]",
                spec.help
            ),
            ("", false) => format!("{} [env: {environment}]", spec.help),
            (default, _) => format!("{} [default: {default}; env: {environment}]", spec.help),
        };
        Arg::new(spec.name)
            .long(spec.name)
            .value_name(spec.value)
            .help(help)
            .hide(spec.hidden)
            .global(true)
            .action(if spec.repeatable {
                ArgAction::Append
            } else {
                ArgAction::Set
            })
    });
    Command::new("pointsman")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Routes TLS by SNI and HTTP by Host to backends, without opening what it carries")
        .after_help(
            "The command line goes before the environment, the environment before the file, the \
             file before the defaults.\n\
             Durations are written like 500ms, 10s, 5m or 1h, sizes like 65536, 64KiB or 1MiB.\n\
             SIGUSR1 dumps latencies, SIGHUP reads routes again, SIGTERM and SIGINT drain, a second \
             one ends at once.\n\
             Exit status: 0 every connection finished, 1 failed to start or to run, 2 wrong \
             configuration, 3 connections were cut.",
        )
        .args(arguments)
        .subcommand(
            Command::new("demo")
                .about("Two HTTP and two TLS backends of its own, no Redis: try it in one command"),
        )
        .subcommand(
            Command::new("check").about("Checks configuration and machine, changes nothing"),
        )
        .subcommand(Command::new("unwrap").about(
            "Beside a server that knows no PROXY protocol: takes the header off (--listen, --proxy-from) and connects to the server (--to) from the client's address",
        ))
}
