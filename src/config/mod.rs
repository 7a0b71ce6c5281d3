//! Configuration in two stages. The first reads what was typed: the command line, the environment, the
//! configuration file, and the pages that it names. The second validates it, without reading anything.
//! The rest of the program sees only validated values, and none of them is missing.

mod arguments;
mod command;
mod error;
mod file;
mod files;
mod http_settings;
mod kernel_version;
mod limits;
mod names;
mod options;
mod proxy_settings;
mod read;
mod settings;
mod sync_settings;
mod typed;
mod validate;
mod value;

pub(crate) use command::explain_command;
pub(crate) use error::{ConfigErrors, Refused};
pub(crate) use http_settings::HttpSettings;
pub use kernel_version::KernelVersion;
pub(crate) use limits::Limits;
pub(crate) use options::{Kind, OptionSpec, SECTIONS, Section, option, options};
pub(crate) use proxy_settings::ProxySettings;
pub(crate) use read::read;
pub(crate) use settings::{BackendCongestion, Config, Listener, LogFormat, LogLevel, LogSettings};
pub(crate) use sync_settings::StaticRoute;
pub use sync_settings::{RedisSettings, SyncSettings};
pub(crate) use typed::{Action, Typed};
pub(crate) use validate::Machine;

#[cfg(test)]
mod tests;
