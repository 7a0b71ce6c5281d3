//! The `pointsman` command: it reads the command line and runs what it asks for.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::config::{Action, ConfigErrors, LogLevel, Refused, Typed, explain_command, read};
use crate::control::SignalEvents;
use crate::demo::Demo;
use crate::explain::Unknown;
use crate::log::{Log, failure_line, print_line};
use crate::protocol::Protocol;
use crate::{explain, preflight, run};

/// Something other than the configuration keeps the process from starting.
const CANNOT_START: u8 = 1;
/// What the operator wrote is wrong.
const WRONG_CONFIGURATION: u8 = 2;

/// Runs the command with the arguments and the environment of this process. Prints each mistake on a line
/// of standard error.
pub fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            if let Some(said) = error.downcast_ref::<clap::Error>() {
                let _ = said.print();
                return ExitCode::from(said.exit_code() as u8);
            }
            for line in error.to_string().lines() {
                print_line(&format!("pointsman: {line}"));
            }
            exit_code(&*error)
        }
    }
}

fn exit_code(error: &(dyn Error + 'static)) -> ExitCode {
    let is_operators = error.is::<ConfigErrors>() || error.is::<Refused>() || error.is::<Unknown>();
    ExitCode::from(if is_operators {
        WRONG_CONFIGURATION
    } else {
        CANNOT_START
    })
}

fn start() -> Result<ExitCode, Box<dyn Error>> {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "explain")
    {
        print_out(&explained()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = SignalEvents::catch()?;
    let (action, mut typed) = read(std::env::args_os(), std::env::vars_os())?;
    match action {
        Action::Run | Action::Unwrap => serve(&typed, signals, |_| {}),
        Action::Check => {
            let report = match typed.validate(&run::allowed()) {
                Ok(config) => {
                    // The log adds what the sync thread meets while Redis is tried: trouble only,
                    // unless the operator asks for more.
                    let mut settings = config.log;
                    if !typed.is_set("log") {
                        settings.level = LogLevel::Warn;
                    }
                    let _log = Log::start(settings)?;
                    preflight::report(&config)
                }
                Err(error) => preflight::Report::of_errors(&error),
            };
            print_out(&report.to_string())?;
            Ok(ExitCode::from(report.exit_code()))
        }
        Action::Demo => {
            let demo = Demo::start(&mut typed)?;
            serve(&typed, signals, |listeners| {
                // The demo runs even when its instructions cannot be printed.
                let _ = print_out(&format!("{}\n", demo.instructions(listeners)));
            })
        }
    }
}

/// What `pointsman explain` was asked for. Needs no configuration, so that a wrong one cannot be in its
/// way.
fn explained() -> Result<String, Box<dyn Error>> {
    let matches = explain_command().try_get_matches_from(std::env::args_os().skip(1))?;
    if let Some(page) = matches.get_one::<String>("markdown") {
        return Ok(explain::page(page));
    }
    let names: Vec<&String> = matches.get_many("name").into_iter().flatten().collect();
    if names.is_empty() {
        return Ok(explain::list());
    }
    let texts: Result<Vec<String>, _> = names
        .into_iter()
        .map(|name| explain::explain(name))
        .collect();
    Ok(texts?.join("\n"))
}

fn serve(
    typed: &Typed,
    signals: SignalEvents,
    on_ready: impl FnOnce(&[(Protocol, SocketAddr)]),
) -> Result<ExitCode, Box<dyn Error>> {
    let config = typed.validate(&run::allowed())?;
    let log = Log::start(config.log)?;
    let format = config.log.format;
    match run::run(config, signals, &log, on_ready) {
        Ok(ended) => Ok(ExitCode::from(ended.exit_code())),
        Err(error) => {
            // The drop writes the lines of the log that wait; the cause comes last.
            drop(log);
            print_line(&failure_line(format, &error.to_string()));
            Ok(exit_code(&*error))
        }
    }
}

/// Writes to standard output, which may be a closed pipe or a full disk.
fn print_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| {
        let text = format!("standard output cannot be written: {error}; send it elsewhere");
        io::Error::new(error.kind(), text)
    })
}
