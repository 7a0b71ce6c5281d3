//! The one canonical form of a name. Lookup, log and Redis keys all go through it.

/// A validated, canonical host name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host(Box<str>);
