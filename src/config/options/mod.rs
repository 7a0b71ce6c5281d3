//! The one list of options. The command line, the environment and the file are all read by it, and
//! `--help`, `pointsman explain` and `docs/options.md` are made of it, so that an option has the same
//! name, unit, default, bounds and words everywhere.

mod address;
mod backends;
mod connections;
mod http;
mod operation;
mod routes;
mod spec;

pub(super) use spec::{ENVIRONMENT_PREFIX, ENVIRONMENT_SEPARATOR};
pub(crate) use spec::{Kind, OptionSpec, Section};

/// In the order of the help.
pub(crate) const SECTIONS: &[Section] = &[
    routes::LISTENERS,
    routes::ROUTES,
    routes::REDIS_AND_DNS,
    backends::CHOICE,
    backends::FAILURE,
    connections::DEADLINES,
    connections::LIMITS,
    http::HTTP,
    address::CLIENT_ADDRESS,
    operation::OPERATION,
    operation::RESOURCES,
    operation::FOR_TESTS,
];

/// Every option, hidden ones included.
pub(crate) fn options() -> impl Iterator<Item = &'static OptionSpec> {
    SECTIONS.iter().flat_map(|section| section.options)
}

/// The option of this name.
pub(crate) fn option(name: &str) -> Option<&'static OptionSpec> {
    options().find(|spec| spec.name == name)
}
