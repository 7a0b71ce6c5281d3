//! A backend together with its share of one route.

use std::fmt;
use std::sync::Arc;

use super::backend::Backend;
use super::share::Share;

/// One member of a route.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) backend: Arc<Backend>,
    pub(crate) share: Share,
}

impl From<Arc<Backend>> for Endpoint {
    fn from(backend: Arc<Backend>) -> Endpoint {
        Endpoint {
            backend,
            share: Share::default(),
        }
    }
}

/// As an operator writes it.
impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.backend.text(), self.share)
    }
}
