//! The `pointsman` command: reads the configuration, then runs, checks or demonstrates.

use mimalloc::MiMalloc;
use pointsman::config::{Action, ReadError, Typed, read};
use pointsman::control::SignalEvents;
use pointsman::log::{Log, print_line};
use pointsman::run;
use std::error::Error;
use std::process::ExitCode;

/// A connection allocates its task and little else; this allocator is fast for that and gives
/// memory back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The configuration is wrong or something is in the way of the start.
const CANNOT_START: u8 = 2;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            if let Some(ReadError::CommandLine(said)) = error.downcast_ref::<ReadError>() {
                let _ = said.print();
                return ExitCode::from(said.exit_code() as u8);
            }
            print_line(&format!("pointsman: {error}"));
            ExitCode::from(CANNOT_START)
        }
    }
}

fn start() -> Result<ExitCode, Box<dyn Error>> {
    let signals = SignalEvents::catch()?;
    let (action, typed) = read(std::env::args_os(), std::env::vars_os())?;
    match action {
        Action::Run => serve(&typed, &signals),
        Action::Check => Err("check".into()),
        Action::Demo => Err("demo".into()),
    }
}

fn serve(typed: &Typed, signals: &SignalEvents) -> Result<ExitCode, Box<dyn Error>> {
    let config = typed.check(&run::machine())?;
    let log = Log::start(config.log)?;
    let ended = run::run(config, signals, &log)?;
    Ok(ExitCode::from(ended.exit_code()))
}
