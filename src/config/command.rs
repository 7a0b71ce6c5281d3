//! The command line, as clap reads it and prints its help.

use clap::{Arg, ArgAction, Command};

use super::options::{OptionSpec, SECTIONS};

/// Made of the list of options.
pub(super) fn command() -> Command {
    let arguments = SECTIONS.iter().flat_map(|section| {
        let options = section.options.iter();
        options.map(|spec| argument(spec).help_heading(section.title))
    });
    Command::new("pointsman")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Routes TLS by SNI and HTTP by Host to backends, without opening what it carries")
        .after_help(
            "The command line goes before the environment, the environment before the file, the \
             file before the defaults.\n\
             Durations are written like 500ms, 10s, 5m or 1h, sizes like 65536, 64KiB or 1MiB.\n\
             pointsman explain OPTION says more about an option, pointsman explain OUTCOME about the end of \
             a connection.\n\
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
        .subcommand(explain_command())
        .subcommand(Command::new("unwrap").about(
            "Beside a server that knows no PROXY protocol: takes the header off (--listen, --proxy-from) \
             and connects to the server (--to) from the client's address",
        ))
}

/// Apart from the rest, because what stands behind `explain` may be an option's name with its dashes.
pub(crate) fn explain_command() -> Command {
    Command::new("explain")
        .bin_name("pointsman explain")
        .about("Says offline what an option or an outcome means; alone: what can be explained")
        .after_help("Exit status: 2 where nothing has that name.")
        .arg(
            Arg::new("markdown")
                .long("markdown")
                .value_parser(["options", "outcomes"])
                .help("Prints a page of docs/")
                .hide(true),
        )
        .arg(
            Arg::new("name")
                .value_name("OPTION|OUTCOME")
                .help("Like --head-deadline, head-deadline or head_timeout")
                .num_args(0..)
                .allow_hyphen_values(true),
        )
}

fn argument(spec: &'static OptionSpec) -> Arg {
    let environment = spec.environment_name();
    let help = match (spec.default, spec.repeatable) {
        ("", true) => format!(
            "{} [repeatable; env: {environment}, separated by ;]",
            spec.help
        ),
        ("", false) => format!("{} [env: {environment}]", spec.help),
        (default, _) => format!("{} [default: {default}; env: {environment}]", spec.help),
    };
    let action = if spec.repeatable {
        ArgAction::Append
    } else {
        ArgAction::Set
    };
    Arg::new(spec.name)
        .long(spec.name)
        .value_name(spec.value)
        .help(help)
        .hide(spec.hidden)
        .global(true)
        .action(action)
}
